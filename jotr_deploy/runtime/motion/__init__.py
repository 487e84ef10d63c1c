"""People over time and in space: tracking, smoothing, alignment to joints, one scene in metres."""
