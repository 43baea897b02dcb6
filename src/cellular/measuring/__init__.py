"""The read-out: how much autophagy is in each cell, well and condition, and how sure it is."""
