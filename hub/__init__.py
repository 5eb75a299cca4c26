"""Cards, and publishing models and data on the Hub."""
