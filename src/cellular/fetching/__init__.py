"""Data sets and weights from elsewhere, verified."""
