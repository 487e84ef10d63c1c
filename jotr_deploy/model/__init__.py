"""JOTR in PyTorch, as the published checkpoints have it (docs/network.md; ICCV 2023, arXiv 2307.16377)."""
