"""FER+ (Barsoum et al. 2016): votes of ten people on FER2013's pictures → soft labels, or majority labels.

Two kinds of tables are read: Microsoft's `fer2013new.csv` (`Usage,Image name,neutral,...,NF`), whose rows match those
of `fer2013.csv` one by one, and tables that name the picture (`split,row,neutral,...`) by its row within its split,
counted from 0. Votes are counts by class; contempt, unknown and NF (not a face) are not among FER2013's expressions.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...processor.input_errors import DataError
from ..schema import EXPRESSION_OF, EXPRESSIONS, ClipRecord, LabelledSource, Reject
from .split_names import split_named
from .tables import Row, is_blank, read_table

VOTE_LABELS = ("soft", "majority")
_CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "nf")
_NOT_EXPRESSIONS = {"contempt": "contempt", "unknown": "unknown", "nf": "not a face"}
# Votes and FER2013's own labels agree on two thirds of the pictures; with a different order of rows, on a fifth.
_LEAST_AGREEMENT = 0.4


_Votes = dict[str, int]  # on one picture, by column name


def apply_votes(source: LabelledSource, path: Path, vote_labels: str) -> LabelledSource:
    """Apply the votes to FER2013's pictures.

    Args:
        vote_labels: "soft" adds the shares of the votes to each picture, which keeps its own label; "majority" replaces
            the label with the expression that has the most votes, and rejects pictures without one.

    Raises:
        DataError: the table lacks a column, or does not match these pictures.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a CSV table of votes; check the path.")
    votes = _read_votes(source, path)
    _check_agreement(source, votes, path)
    records: list[ClipRecord] = []
    rejects = list(source.rejects)
    without = 0
    for record in source.records:
        found = votes.get(record.clip_id)
        if vote_labels == "soft":
            scores = None if found is None else _label_scores(found)
            without += scores is None
            records.append(replace(record, label_scores=scores))
        elif isinstance(label := _majority_label(found), Reject):
            without += 1
            rejects.append(replace(label, path=record.source_path, clip_id=record.clip_id))
        else:
            records.append(replace(record, label=label))
    notes = replace(source.notes, vote_labels=vote_labels, without_votes=without)
    return replace(source, records=records, rejects=rejects, notes=notes)


def _label_scores(votes: _Votes) -> list[float] | None:
    """Each expression's share of the votes, in the order of `EXPRESSIONS`; None if nobody voted for any of them."""
    shares = {EXPRESSION_OF[name]: count for name, count in votes.items() if name not in _NOT_EXPRESSIONS}
    total = sum(shares.values())
    return [shares[name] / total for name in EXPRESSIONS] if total else None


def _majority_label(votes: _Votes | None) -> str | Reject:
    if votes is None or not any(votes.values()):
        return Reject("", "", "label", "There are no votes on this picture.")
    (majority, most), (_, next_most) = Counter(votes).most_common(2)
    if most == next_most:
        return Reject("", "", "label", "The votes are tied between two classes.")
    if majority in _NOT_EXPRESSIONS:
        got = _NOT_EXPRESSIONS[majority]
        return Reject("", "", "label", f"The majority of the votes is for none of FER2013's expressions: {got}.")
    return EXPRESSION_OF[majority]


def _read_votes(source: LabelledSource, path: Path) -> dict[str, _Votes]:
    """Clip id → votes; an empty row means that nobody voted."""
    with path.open("rb") as file:
        table = read_table(file, path.name, required=_CLASSES, optional=("usage", "split", "row"))
        if not {"split", "row"} <= set(table.columns) and "usage" not in table.columns:
            raise DataError(
                f"{path} lacks the columns split and row, or Usage; it has "
                f"{', '.join([*table.columns, *table.extra_columns])}."
            )
        by_row = "row" in table.columns
        known = {record.clip_id for record in source.records} | {reject.clip_id for reject in source.rejects} - {""}
        splits = {name.partition("/")[0] for name in known}
        votes: dict[str, _Votes] = {}
        counts: Counter[str] = Counter()
        for row in table.rows:
            split = _split_of(row, "split" if by_row else "usage")
            clip_id = f"{split}/{_number(row, 'row') if by_row else counts[split]:05}"
            counts[split] += 1
            if not by_row and split not in splits:
                continue  # the competition's train.csv contains only training pictures
            if clip_id not in known:
                raise DataError(_not_of_these(row, path, source, f"for picture {clip_id}, which does not exist"))
            if clip_id in votes:
                raise DataError(_not_of_these(row, path, source, f"for picture {clip_id} a second time"))
            is_empty = all(is_blank(row.cells[name]) for name in _CLASSES)
            votes[clip_id] = {name: 0 if is_empty else _number(row, name) for name in _CLASSES}
    if not by_row and len(votes) != len(known):
        missing = min(known - set(votes))
        raise DataError(
            f"{path} has votes on {len(votes)} of {len(known)} pictures, none for {missing}; pass the votes on these "
            "pictures."
        )
    return votes


def _not_of_these(row: Row, path: Path, source: LabelledSource, got: str) -> str:
    pictures = ", ".join(f"{split} {count}" for split, count in Counter(of.split for of in source.records).items())
    return (
        f"The votes in {path} do not match the pictures ({pictures}): line {row.line} is {got}; pass the votes on "
        "these pictures."
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


def _check_agreement(source: LabelledSource, votes: Mapping[str, _Votes], path: Path) -> None:
    """Raises DataError for votes on other pictures, or in a different order, which would silently give wrong labels."""
    pairs = [(record.label, _majority_label(votes.get(record.clip_id))) for record in source.records]
    told = [label == majority for label, majority in pairs if isinstance(majority, str)]
    agreement = sum(told) / len(told) if told else 0.0
    if agreement < _LEAST_AGREEMENT:
        raise DataError(
            f"The votes in {path} agree with FER2013's own labels on only {agreement:.0%} of {len(told)} pictures; "
            "they are on other pictures, or in a different order: fer2013new.csv matches fer2013.csv."
        )
