"""Who is in a frame: detectors, 2-D pose networks, BlazePose, and joints or boxes given by the caller."""
