"""Helpers that everything uses: precisions and the words of options, files that appear whole, safe file names, what a file is, caches, spans."""
