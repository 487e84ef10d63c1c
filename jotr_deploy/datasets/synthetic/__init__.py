"""Scenes of stand-in bodies with exact labels, fresh and deterministic by seed."""
