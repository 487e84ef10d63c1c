"""Evaluation on published data sets, as in the published code."""
