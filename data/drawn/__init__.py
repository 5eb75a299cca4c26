"""Drawn people, who do not exist, in the layouts of real data sets."""
