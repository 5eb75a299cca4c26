"""Frames in, tracked and smoothed predictions out; on a page too."""
