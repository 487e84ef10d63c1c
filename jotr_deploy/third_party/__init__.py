"""Third-party networks: fetched on request and converted to ONNX, or added to a bundle after a trial run."""
