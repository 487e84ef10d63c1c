"""Helpers that everything uses: files that appear whole, safe file names, what a file is, caches, spans."""
