"""What is measured of a model's predictions, and how it is written down and shown."""
