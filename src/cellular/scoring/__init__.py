"""From matched cells to scores, intervals and result files. Nothing here needs PyTorch."""
