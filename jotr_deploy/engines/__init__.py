"""What becomes of `mesh.onnx` on a particular engine, and the proof that it still says the same."""
