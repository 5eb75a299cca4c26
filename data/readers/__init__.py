"""Raw sources become records."""
