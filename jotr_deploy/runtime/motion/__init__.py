"""People over time and in space: tracking, smoothing, alignment to 2-D joints, one metric scene."""
