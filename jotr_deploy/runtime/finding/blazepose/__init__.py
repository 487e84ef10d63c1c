"""BlazePose: a detector and a landmark network that find people, and the steps around them.

Frames and units as elsewhere in this project: pixels, the first pixel's centre at 0. A person's region of interest
("ROI") is two points (2, 2): its centre, and the point that becomes, up to a margin, the middle of the crop's upper
edge; see `rotated_crops`.
"""
