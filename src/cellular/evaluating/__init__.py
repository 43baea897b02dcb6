"""A model is scored: its label maps, tables of scores, and pictures."""
