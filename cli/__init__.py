"""The `engagement` command: options in, lines out; what it prints is computed in the other folders."""
