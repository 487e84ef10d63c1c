"""Bodies moved, as little as it takes, to stand on the 2-D joints they were recovered from."""
