"""Crops, cameras, rotations and the depth-buffer rasteriser: pure functions on arrays."""
