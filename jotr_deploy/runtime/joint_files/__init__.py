"""User-supplied keypoint and box files: one module per family of layouts, and one that matches pictures."""
