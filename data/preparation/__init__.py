"""Records become crops on disk."""
