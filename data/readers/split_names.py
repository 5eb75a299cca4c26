"""Recognises names of splits: folders, files and cells named dev, eval, val_set, Train-Set, training, Validation, ...

The words are those of the datasets library, where eval means test. Two words for one split are refused as ambiguous.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

from ...processor.input_errors import DataError

_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development", "publictest"),  # the last is FER2013's
    "test": ("test", "testing", "tst", "eval", "evaluation", "privatetest"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
_BESIDE = ("set", "data", "dataset", "split", "part", "folder", "images", "videos", "clips", "frames", "pictures")
_GLUED = re.compile(f"({'|'.join(_SPLIT_OF)})(?:{'|'.join(_BESIDE)})")


def split_named(name: str) -> str | None:
    """train, validation or test; None if the name says none of them, or anything else besides."""
    word = _word_of(name)
    return None if word is None else _SPLIT_OF[word]


def _word_of(name: str) -> str | None:
    """The word that names the split: `Train_set` → train, `01-val` → val."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word and word not in _BESIDE]
    if len(words) != 1:
        return None
    glued = _GLUED.fullmatch(words[0])
    word = glued[1] if glued else words[0]
    return word if word in _SPLIT_OF else None


def require_one_word(names: Iterable[str], where: str) -> None:
    """Raises DataError if two names use different words for one split, such as dev and val."""
    words: dict[str, dict[str, str]] = defaultdict(dict)
    for name in sorted(names):
        if word := _word_of(name):
            words[_SPLIT_OF[word]].setdefault(word, name)
    for split, found in words.items():
        if len(found) > 1:
            raise DataError(
                f"The split {split} has two names in {where}: {' and '.join(found.values())}; rename one, or merge "
                "their files."
            )
