"""Evaluation: errors of recovered people against the truth, and drift of the files of a bundle."""
