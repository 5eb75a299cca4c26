"""Whole recordings: everybody tracked, one row per person and window, a page, a copy with blurred faces."""
