"""Whole recordings: everybody in them followed, a row a person and window, a page, a copy with faces blurred."""
