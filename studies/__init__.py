"""Experiments: reproductions of published studies, the planted shortcut, the benchmark."""
