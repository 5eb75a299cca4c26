"""Where a model looks, checks of that, and a number for it."""
