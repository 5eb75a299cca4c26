"""Small tables, folders and archives of data, and what was read of them in a few words."""

import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import Bench
from picture_inputs import at, saved
from PIL import Image

from engagement_recognition.data.readers.sources import SourceOptions, read_source
from engagement_recognition.data.schema import LabelledSource

LABELS = ("bored", "engaged")


def dot(number: int = 0) -> bytes:
    """A picture of 8 pixels a side, each number's another."""
    return saved("PNG", Image.new("RGB", (8, 8), (number * 37 % 256, number * 11 % 256, number)))


def table(
    name: str, content: str | bytes, files: Sequence[str] = ("a.mp4", "b.mp4"), encoding: str = "utf-8"
) -> Callable[[Path], Path]:
    """A row's `make`: a table, and files beside it that nothing looks into."""

    def make(folder: Path) -> Path:
        for number, file in enumerate(files):
            at(folder, file, dot(number))
        return at(folder, name, content if isinstance(content, bytes) else content.encode(encoding))

    return make


def splits(*names: str, labels: Sequence[str] = LABELS) -> Callable[[Path], Path]:
    """A row's `make`: a folder with two labelled pictures in each split's folder."""

    def make(folder: Path) -> Path:
        for number, name in enumerate(names):
            for place, label in enumerate(labels):
                at(folder, f"{name}/{label}/anna_{number}{place}.png", dot(2 * number + place))
        return folder

    return make


def read(bench: Bench, path: Path) -> LabelledSource:
    return read_source(None, path)


def read_as(kind: str | None = None, **options: object) -> Callable[[Bench, Path], LabelledSource]:
    """A row's `run`."""
    return lambda bench, path: read_source(kind, path, SourceOptions(**options))  # type: ignore[arg-type]


def has_splits(**counts: int) -> Callable[[LabelledSource], bool]:
    """A row's `that`: so many records a split."""

    def check(source: LabelledSource) -> bool:
        found: dict[str, int] = {}
        for record in source.records:
            found[record.split or "none"] = found.get(record.split or "none", 0) + 1
        assert found == counts, found
        return True

    return check


def has_spans(*spans: tuple[float | None, float | None]) -> Callable[[LabelledSource], bool]:
    """A row's `that`: these times, in order, and no reject."""

    def check(source: LabelledSource) -> bool:
        found = tuple((record.clip_start_sec, record.clip_end_sec) for record in source.records)
        assert found == spans and not source.rejects, (found, source.rejects)
        return True

    return check


def has_paths(*paths: str, rejects: int = 0) -> Callable[[LabelledSource], bool]:
    """A row's `that`: records of these files, which can be read, and so many rejects."""

    def check(source: LabelledSource) -> bool:
        found = sorted(record.source_path for record in source.records)
        assert found == sorted(paths) and len(source.rejects) == rejects, (found, source.rejects)
        for record in source.records:
            content = source.read(record)
            assert isinstance(content, bytes) or (isinstance(content, Path) and content.is_file())
        return True

    return check


def has_reject(*words: str) -> Callable[[LabelledSource], bool]:
    """A row's `that`: one reject, with these words, beside records."""

    def check(source: LabelledSource) -> bool:
        (reject,) = source.rejects
        assert all(word in reject.reason for word in words) and "\n" not in reject.reason, reject
        return bool(source.records)

    return check


def archive(*more: tuple[str | zipfile.ZipInfo, bytes], name: str = "set.zip") -> Callable[[Path], Path]:
    """A row's `make`: a zip archive of two good pictures, and more."""

    def make(folder: Path) -> Path:
        good = [(f"{label}/anna_{number}.png", dot(number)) for number, label in enumerate(LABELS)]
        with warnings.catch_warnings(), zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as made:
            warnings.simplefilter("ignore")  # of a second member of one name
            for member, content in [*good, *more]:
                made.writestr(member, content)
        return folder / name

    return make
