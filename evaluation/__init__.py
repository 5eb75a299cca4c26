"""Scores of a model's predictions, and how they are stored and shown."""
