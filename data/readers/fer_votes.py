"""FER+ (Barsoum et al. 2016): votes of ten people on FER2013's pictures → soft labels, or the label of the majority.

Two tables are read: Microsoft's `fer2013new.csv` (`Usage,Image name,neutral,...,NF`), whose rows go with those of
`fer2013.csv` one by one, and tables that name the picture (`split,row,neutral,...`), the row within its split counted
from 0. Votes are counts by class; contempt, unknown and NF (not a face) are none of FER2013's expressions.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...processor.input_errors import DataError
from ..schema import EXPRESSION_OF, EXPRESSIONS, ClipRecord, LabelledSource, Reject
from .split_names import split_named
from .tables import Row, is_blank, read_table

VOTE_LABELS = ("soft", "majority")
_CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "nf")
_NOT_EXPRESSIONS = {"contempt": "contempt", "unknown": "unknown", "nf": "not a face"}
# Votes and FER2013's own labels agree in two thirds of the pictures; in another order of rows, in a fifth.
_LEAST_AGREEMENT = 0.4


@dataclass(frozen=True)
class Votes:
    """Votes on one picture."""

    counts: Mapping[str, int]  # by the names of the votes' columns

    def label_scores(self) -> list[float] | None:
        """Shares by `EXPRESSIONS` of the votes for one of them; None where nobody voted for any."""
        shares = {EXPRESSION_OF[name]: count for name, count in self.counts.items() if name not in _NOT_EXPRESSIONS}
        total = sum(shares.values())
        return [shares[name] / total for name in EXPRESSIONS] if total else None

    def majority(self) -> str | None:
        """The column with the most votes; None where two have as many."""
        (first, most), (_, next_most) = Counter(self.counts).most_common(2)
        return first if most > next_most else None

    @property
    def is_empty(self) -> bool:
        """Whether nobody voted."""
        return not any(self.counts.values())


def apply_votes(source: LabelledSource, path: Path, vote_labels: str) -> LabelledSource:
    """FER2013 with the votes on its pictures.

    Args:
        vote_labels: "soft" gives each picture shares of the votes beside its own label; "majority" puts the expression
            with the most votes in the label's place, and rejects pictures that have none.

    Raises:
        DataError: the table lacks a column, or does not go with these pictures.
    """
    if not path.is_file():
        raise DataError(f"Expected a CSV table of votes at {path}, found none; check the path.")
    votes = _read_votes(source, path)
    _check_agreement(source, votes, path)
    records: list[ClipRecord] = []
    rejects = list(source.rejects)
    without = 0
    for record in source.records:
        found = votes.get(record.clip_id)
        if vote_labels == "soft":
            scores = found.label_scores() if found else None
            without += scores is None
            records.append(replace(record, label_scores=scores))
        elif isinstance(label := _majority_label(found), Reject):
            without += 1
            rejects.append(replace(label, path=record.source_path, clip_id=record.clip_id))
        else:
            records.append(replace(record, label=label))
    notes = replace(source.notes, vote_labels=vote_labels, without_votes=without)
    return replace(source, records=records, rejects=rejects, notes=notes)


def _majority_label(votes: Votes | None) -> str | Reject:
    if votes is None or votes.is_empty:
        return Reject("", "", "label", "Expected votes on this picture, found none.")
    majority = votes.majority()
    if majority is None:
        return Reject("", "", "label", "Expected a majority of the votes, got as many for two classes.")
    if majority in _NOT_EXPRESSIONS:
        got = _NOT_EXPRESSIONS[majority]
        return Reject("", "", "label", f"Expected a majority for one of FER2013's expressions, got {got}.")
    return EXPRESSION_OF[majority]


def _read_votes(source: LabelledSource, path: Path) -> dict[str, Votes]:
    """Clip id → votes; a row without any says that nobody voted."""
    with path.open("rb") as file:
        table = read_table(file, path.name, required=_CLASSES, optional=("usage", "split", "row"))
        if not {"split", "row"} <= set(table.columns) and "usage" not in table.columns:
            raise DataError(
                f"Expected the columns split and row, or Usage, beside the votes in {path}, got "
                f"{', '.join([*table.columns, *table.extra_columns])}."
            )
        by_row = "row" in table.columns
        known = {record.clip_id for record in source.records} | {reject.clip_id for reject in source.rejects} - {""}
        splits = {name.partition("/")[0] for name in known}
        votes: dict[str, Votes] = {}
        counts: Counter[str] = Counter()
        for row in table.rows:
            split = _split_of(row, "split" if by_row else "usage")
            clip_id = f"{split}/{_number(row, 'row') if by_row else counts[split]:05}"
            counts[split] += 1
            if not by_row and split not in splits:
                continue  # of the competition's train.csv, which holds no other split's pictures
            if clip_id not in known:
                raise DataError(_not_of_these(row, path, source, f"for picture {clip_id}, which is not there"))
            if clip_id in votes:
                raise DataError(_not_of_these(row, path, source, f"for picture {clip_id} a second time"))
            is_empty = all(is_blank(row.cells[name]) for name in _CLASSES)
            votes[clip_id] = Votes({name: 0 if is_empty else _number(row, name) for name in _CLASSES})
    if not by_row and len(votes) != len(known):
        missing = min(known - set(votes))
        raise DataError(
            f"Expected a row of votes for each picture, {len(known)}, got {len(votes)} in {path}, none for {missing}; "
            "pass the votes on these pictures."
        )
    return votes


def _not_of_these(row: Row, path: Path, source: LabelledSource, got: str) -> str:
    pictures = ", ".join(f"{split} {count}" for split, count in Counter(of.split for of in source.records).items())
    return (
        f"Expected votes on the pictures that were read ({pictures}), got some {got}, in line {row.line} of {path}; "
        "pass the votes on these pictures."
    )


def _split_of(row: Row, column: str) -> str:
    row.check_width()
    split = split_named(row.cells[column])
    if split is None:
        raise DataError(f"Expected a split in {column}, got {row.cells[column]!r} in line {row.line} of {row.table}.")
    return split


def _number(row: Row, column: str) -> int:
    text = row.cells[column]
    if not text.isdigit():
        raise DataError(f"Expected {column} as a whole number, got {text!r} in line {row.line} of {row.table}.")
    return int(text)


def _check_agreement(source: LabelledSource, votes: Mapping[str, Votes], path: Path) -> None:
    """Votes on other pictures, or in another order, would teach nonsense without a word."""
    pairs = [(record.label, _majority_label(votes.get(record.clip_id))) for record in source.records]
    told = [label == majority for label, majority in pairs if isinstance(majority, str)]
    agreement = sum(told) / len(told) if told else 0.0
    if agreement < _LEAST_AGREEMENT:
        raise DataError(
            f"Expected votes that agree with most of FER2013's own labels, got {agreement:.0%} of {len(told)} in "
            f"{path}; these are votes on other pictures, or in another order: fer2013new.csv goes with fer2013.csv."
        )
