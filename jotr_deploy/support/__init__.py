"""Helpers that everything uses: words of options, files that appear whole, file names and kinds, caches, spans."""
