"""Many DVC experiments: profiles, the paper's grid, cross-validation, the search."""
