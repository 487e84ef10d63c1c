"""Networks fetched on request: downloaded, checked, turned into ONNX, kept in the user's data folder."""
