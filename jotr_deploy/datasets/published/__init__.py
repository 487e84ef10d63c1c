"""Data sets that others have made: pictures of people with what was measured, or fitted, of them."""
