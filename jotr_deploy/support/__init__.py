"""Helpers used everywhere: option values, atomic writes, file names and kinds, caches, spans."""
