"""Pictures and files made of `People`."""
