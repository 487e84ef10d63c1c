"""Samples from published data sets, drawn and augmented as in the published training."""
