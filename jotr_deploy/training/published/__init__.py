"""Samples from data sets that others have made, drawn and varied as in the published training."""
