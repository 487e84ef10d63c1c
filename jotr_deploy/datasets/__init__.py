"""Data sets: pictures of people with exact or measured labels."""
