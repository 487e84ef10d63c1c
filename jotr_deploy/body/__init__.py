"""The SMPL body: safe loading, skinning, pose prior, and a licence-free stand-in with the same shapes."""
