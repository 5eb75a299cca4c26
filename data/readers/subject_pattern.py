"""Finds the person in a file name by the user's regular expression, within bounded time.

A pattern such as `(a+)+$` can take extremely long for one name, and Python's own `re` cannot be interrupted.
"""

import re
import time

import regex

from ...processor.input_errors import RecipeError

_SECONDS = 10.0  # for all names together; an ordinary pattern takes microseconds per name


class SubjectPattern:
    """
    Args:
        pattern: searched in a path; the subject is its group "subject", else its first group, else the whole match.

    Raises:
        RecipeError: it is not a regular expression.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._seconds_left = _SECONDS
        try:
            re.compile(pattern)
            self._compiled = regex.compile(pattern)
        except (re.error, regex.error, RecursionError, OverflowError) as error:
            raise RecipeError(f"The subject pattern {pattern!r} is not a regular expression: {error}.") from error

    def search(self, text: str) -> str | None:
        """The subject; None if there is none, or if it is empty.

        Raises:
            RecipeError: the pattern takes too long.
        """
        began = time.monotonic()
        try:
            match = self._compiled.search(text, timeout=self._seconds_left)
        except TimeoutError as error:
            raise RecipeError(
                f"The subject pattern {self.pattern!r} took more than {_SECONDS:g} s (last for {text}); avoid "
                "repeats within repeats, such as (a+)+."
            ) from error
        self._seconds_left = max(0.001, self._seconds_left - (time.monotonic() - began))
        if match is None:
            return None
        groups = self._compiled.groupindex
        return (match["subject"] if "subject" in groups else match[1] if self._compiled.groups else match[0]) or None
