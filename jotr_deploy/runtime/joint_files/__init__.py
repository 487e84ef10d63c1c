"""Files of joints and boxes that users bring: one module a family of layouts, and which entry is about which picture."""
