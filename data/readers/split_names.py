"""What people call a split: folders, files and cells named dev, eval, val_set, Train-Set, training, Validation, ...

The words are those of the datasets library, for which eval is a test. Two words for one split are refused, since nobody
knows which is meant.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

from ...processor.input_errors import DataError

_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development", "publictest"),  # one of FER2013's own
    "test": ("test", "testing", "tst", "eval", "evaluation", "privatetest"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
_BESIDE = ("set", "data", "dataset", "split", "part", "folder", "images", "videos", "clips", "frames", "pictures")
_GLUED = re.compile(f"({'|'.join(_SPLIT_OF)})(?:{'|'.join(_BESIDE)})")


def split_named(name: str) -> str | None:
    """train, validation or test; None where the name says neither, or more than that."""
    word = _word_of(name)
    return None if word is None else _SPLIT_OF[word]


def _word_of(name: str) -> str | None:
    """The one word that tells the split: `Train_set` → train, `01-val` → val."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word and word not in _BESIDE]
    if len(words) != 1:
        return None
    glued = _GLUED.fullmatch(words[0])
    word = glued[1] if glued else words[0]
    return word if word in _SPLIT_OF else None


def require_one_word(names: Iterable[str], where: str) -> None:
    """Raises DataError where two of the names tell one split in different words, such as dev and val."""
    words: dict[str, dict[str, str]] = defaultdict(dict)
    for name in sorted(names):
        if word := _word_of(name):
            words[_SPLIT_OF[word]].setdefault(word, name)
    for split, found in words.items():
        if len(found) > 1:
            raise DataError(
                f"Expected one name for the split {split} in {where}, got {' and '.join(found.values())}; rename one, "
                "or put their files together."
            )
