"""People who do not exist, drawn in the layouts of real data sets."""
