"""A model's masks, scored and drawn."""
