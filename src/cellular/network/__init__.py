"""Cellpose's network: its weights, the tiles it sees, the cells it finds."""
