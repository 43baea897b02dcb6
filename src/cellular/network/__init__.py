"""Cellpose's network: its weights, its input in tiles, and the cells that it finds."""
