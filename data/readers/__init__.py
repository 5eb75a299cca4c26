"""Readers: from raw sources to records."""
