"""A model's card, what is published of it, and how it gets there."""
