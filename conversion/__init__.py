"""Models people have become ours, and ours become what others serve."""
