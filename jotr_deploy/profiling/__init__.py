"""Profiling: latency of networks and stages, measured side by side and in quiet moments."""
