"""Files derived from `mesh.onnx` for particular engines, each verified against the original."""
