"""Data sets: what a picture shows, with exact or measured labels."""
