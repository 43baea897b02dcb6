"""The paper's grid of DVC experiments, and profiles of parameters."""
