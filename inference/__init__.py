"""A model and files become predictions."""
