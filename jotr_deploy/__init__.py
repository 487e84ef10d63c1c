"""jotr-deploy: take JOTR from a checkpoint to meshes, with a latency profile."""
