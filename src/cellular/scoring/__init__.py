"""Scores of matched cells, their intervals, and result files. Nothing here needs PyTorch."""
