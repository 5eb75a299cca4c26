"""FER+ votes on FER2013: soft labels, the majority's label, and votes that go with other pictures."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import prepare_found
from datasets import load_from_disk
from places import REAL_DATA
from small_files import picture

from engagement_recognition.data.preparation.prepared_data import load_prepared
from engagement_recognition.data.readers.sources import SourceOptions, read_source
from engagement_recognition.data.schema import EXPRESSIONS, LabelledSource
from engagement_recognition.processor.input_errors import DataError, RecipeError

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
# By the columns above; of the pictures below, in their order.
VOTES = [
    [0, 0, 0, 0, 10, 0, 0, 0, 0, 0],  # angry, as its label
    [0, 0, 0, 0, 0, 6, 2, 2, 0, 0],  # disgust, as its label; contempt is no expression of FER2013's
    [0, 8, 0, 0, 0, 0, 2, 0, 0, 0],  # happy, where the label is fear
    [0, 5, 0, 5, 0, 0, 0, 0, 0, 0],  # happy or sad
    [0, 0, 0, 1, 0, 0, 0, 0, 0, 9],  # no face
    [0, 0, 0, 0, 0, 0, 0, 0, 10, 0],
    [""] * 10,
]


@pytest.fixture(scope="module")
def fer2013(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of each expression, in FER2013's order."""
    folder = tmp_path_factory.mktemp("fer2013")
    contents = [picture(number) for number in range(len(EXPRESSIONS))]
    table = pyarrow.table({"image": contents, "label": list(range(len(EXPRESSIONS)))})
    pyarrow.parquet.write_table(table, folder / "train.parquet")
    return folder


def write_votes(
    path: Path, votes: Sequence[Sequence[object]], first: Sequence[str], cells: Sequence[Sequence[object]]
) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*first, *CLASSES])
        writer.writerows([*own, *row] for own, row in zip(cells, votes, strict=True))
    return path


def by_row(path: Path, votes: Sequence[Sequence[object]], rows: Sequence[int] | None = None) -> Path:
    return write_votes(path, votes, ["split", "row"], [["train", row] for row in rows or range(len(votes))])


def read(folder: Path, votes: Path, vote_labels: str | None = None) -> LabelledSource:
    return read_source(None, folder, SourceOptions(votes=votes, vote_labels=vote_labels))


@pytest.mark.parametrize("form", ["by row", "official"])
def test_soft_labels_stand_beside_the_labels_and_survive_preparation(form: str, fer2013: Path, tmp_path: Path):
    if form == "by row":
        votes = by_row(tmp_path / "votes.csv", VOTES[::-1], range(6, -1, -1))  # in any order
    else:
        cells = [["Training", f"fer{number:07}.png"] for number in range(7)]
        votes = write_votes(tmp_path / "votes.csv", VOTES, ["Usage", "Image name"], cells)
    found = read(fer2013, votes)
    assert [record.label for record in found.records] == list(EXPRESSIONS) and not found.rejects
    assert (found.notes.vote_labels, found.notes.without_votes) == ("soft", 2)
    scores = {record.label: record.label_scores for record in found.records}
    assert scores["angry"] == [1, 0, 0, 0, 0, 0, 0] and scores["surprise"] is None and scores["neutral"] is None
    assert scores["disgust"] == [0, 0.75, 0.25, 0, 0, 0, 0] and scores["happy"] == [0, 0, 0, 0.5, 0.5, 0, 0]
    prepared = prepare_found(found, fer2013, tmp_path / "out")
    rows = [row for split in prepared.splits.values() for row in split]
    stored = {row["label"]: row["label_scores"] for row in rows}
    assert stored == {label: None if of is None else pytest.approx(of) for label, of in scores.items()}
    assert load_from_disk(tmp_path / "out")["train"].features["label_scores"] is not None
    plain = prepare_found(read_source(None, fer2013), fer2013, tmp_path / "plain")
    assert plain.fingerprint != load_prepared(tmp_path / "out").fingerprint


def test_the_majority_takes_the_label_s_place(fer2013: Path, tmp_path: Path):
    found = read(fer2013, by_row(tmp_path / "votes.csv", VOTES), "majority")
    assert [record.label for record in found.records] == ["angry", "disgust", "happy"]
    assert {record.label_scores for record in found.records} == {None}
    told = [(reject.stage, reject.reason) for reject in found.rejects]
    assert [stage for stage, _ in told] == ["label"] * 4
    assert [text.rpartition(" ")[2] for _, text in told] == ["classes.", "face.", "unknown.", "picture."]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("row", "train/00041, which does not exist"),
        ("twice", "train/00000 a second time"),
        ("short", "on 6 of 7 pictures"),
        ("order", "on only 0% of 3"),
        ("column", "missing: nf"),
        ("pictures", "split and row, or Usage"),
        ("number", "neutral as a whole number, got 'x'"),
        ("usage", "a split in usage"),
        ("gone", "not a CSV table"),
    ],
)
def test_votes_that_do_not_match_the_pictures_are_one_line(change: str, words: str, fer2013: Path, tmp_path: Path):
    path = tmp_path / "votes.csv"
    usage = [["Training"]] * 7
    if change == "row":
        by_row(path, VOTES, [0, 1, 2, 3, 4, 5, 41])
    elif change == "twice":
        by_row(path, VOTES, [0, 1, 2, 3, 4, 5, 0])
    elif change == "short":
        write_votes(path, VOTES[:6], ["Usage"], usage[:6])
    elif change == "order":
        by_row(path, [VOTES[2], VOTES[0], VOTES[1], *VOTES[3:]])
    elif change == "pictures":
        write_votes(path, VOTES, ["name"], [["x"]] * 7)
    elif change == "number":
        by_row(path, [["x", *VOTES[0][1:]], *VOTES[1:]])
    elif change == "usage":
        write_votes(path, VOTES, ["Usage"], [["Holdout"], *usage[1:]])
    elif change == "column":
        path.write_text(by_row(path, VOTES).read_text().replace("NF", "no face"))
    with pytest.raises(DataError) as refusal:
        read(fer2013, path)
    assert words in str(refusal.value) and path.name in str(refusal.value) and "\n" not in str(refusal.value)


def test_votes_are_for_fer2013_alone_and_labels_need_votes(fer2013: Path, tmp_path: Path):
    for options in (SourceOptions(vote_labels="soft"), SourceOptions(votes=tmp_path, vote_labels="mean")):
        with pytest.raises(RecipeError, match="vote labels soft or majority"):
            read_source(None, fer2013, options)


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "ferplus").is_dir(), reason="no ferplus in ../shared/data")
def test_real_votes_go_with_fer2013():
    found = read(REAL_DATA / "fer2013", REAL_DATA / "ferplus/votes.csv")
    voted = [record for record in found.records if record.label_scores is not None]
    assert len(found.records) == 35887 and found.notes.without_votes == 35887 - len(voted) == 271
    majority = [EXPRESSIONS[max(range(7), key=record.label_scores.__getitem__)] for record in voted]
    agreement = sum(record.label == name for record, name in zip(voted, majority, strict=True)) / len(voted)
    assert agreement == pytest.approx(0.645, abs=0.005)
