"""Images and videos in, `People` out: no PyTorch, and no TensorRT until a file needs it."""
