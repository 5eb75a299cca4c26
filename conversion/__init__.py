"""Import of existing models, and export to formats that other software serves."""
