"""Files of joints and boxes that users bring: a module for every family of layouts, and one that finds pictures."""
