"""Input frames and output films: pictures, films, cameras, URLs, and the lens they were captured with."""
