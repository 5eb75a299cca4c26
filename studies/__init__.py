"""Experiments: the published studies again, the planted shortcut, the benchmark."""
