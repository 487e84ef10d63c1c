"""Eight-bit networks: which nodes, from which frames, at what price in millimetres."""
