"""Models: weights with the settings that they want to be used with."""
