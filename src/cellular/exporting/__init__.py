"""Export: a model as other programs take it."""
