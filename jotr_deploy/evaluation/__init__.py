"""How far recovered people are from the truth, and the files of a bundle from each other."""
