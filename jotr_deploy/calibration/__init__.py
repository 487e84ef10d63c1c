"""Calibration of 8-bit networks: choice of nodes, calibration crops, and the cost in millimetres."""
