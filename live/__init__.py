"""Frames in, tracked and smoothed predictions out; also on a page."""
