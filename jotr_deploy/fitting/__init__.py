"""3DNBF: a body of Gaussians with features, rendered into a feature map, and a pose fitted to it (docs/fitting.md)."""
