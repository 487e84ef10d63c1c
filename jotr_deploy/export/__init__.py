"""Export of a checkpoint to a verified ONNX file in a bundle."""
