"""People over HTTP: the server, and a model repository for Triton."""
