"""Evaluation on the data sets that others have made, as the published code does it."""
