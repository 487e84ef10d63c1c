"""Finding the people in a frame: detectors, 2-D pose networks, BlazePose, and joints or boxes from the caller."""
