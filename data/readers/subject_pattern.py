"""The person in a file's name, by a regular expression of the user's, within bounded time.

A pattern such as `(a+)+$` can take longer for one name than anybody waits, and Python's own `re` cannot be stopped.
"""

import re
import time

import regex

from ...processor.input_errors import RecipeError

_SECONDS = 10.0  # for all names together; a pattern without such a fault takes microseconds each


class SubjectPattern:
    """
    Args:
        pattern: searched in a path; the subject is its group "subject", else its first group, else all of the match.

    Raises:
        RecipeError: no regular expression.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._seconds_left = _SECONDS
        try:
            re.compile(pattern)
            self._compiled = regex.compile(pattern)
        except (re.error, regex.error, RecursionError, OverflowError) as error:
            raise RecipeError(f"Expected a regular expression as subject pattern, got {pattern!r}: {error}.") from error

    def search(self, text: str) -> str | None:
        """The subject; None where there is none, or an empty one.

        Raises:
            RecipeError: the pattern takes too long.
        """
        began = time.monotonic()
        try:
            match = self._compiled.search(text, timeout=self._seconds_left)
        except TimeoutError as error:
            raise RecipeError(
                f"Expected a subject pattern that answers at once, {self.pattern!r} took more than {_SECONDS:g} s, at "
                f"last for {text}; leave out repeats within repeats, such as (a+)+."
            ) from error
        self._seconds_left = max(0.001, self._seconds_left - (time.monotonic() - began))
        if match is None:
            return None
        groups = self._compiled.groupindex
        return (match["subject"] if "subject" in groups else match[1] if self._compiled.groups else match[0]) or None
