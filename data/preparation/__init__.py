"""Preparation: from records to crops on disk."""
