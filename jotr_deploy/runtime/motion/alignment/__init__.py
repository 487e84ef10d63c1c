"""Alignment of recovered bodies to the 2-D joints they were recovered from, with the smallest change needed."""
