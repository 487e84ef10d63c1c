"""Images and videos in, `People` out: no PyTorch, no TensorRT until a file asks for it."""
