"""Training: one loop, the tasks it trains, and the losses of the mesh network (docs/training.md)."""
