"""Pictures and files made from `People`."""
