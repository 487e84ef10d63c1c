"""Frames coming in and films going out: pictures, films, cameras, URLs, and the lens they were taken with."""
