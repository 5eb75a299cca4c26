"""Heat maps of where a model looks, checks of the maps, and a measure of face focus."""
