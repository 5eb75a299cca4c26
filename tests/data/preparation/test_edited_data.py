"""JSON files of prepared data that somebody edited: one line that names the file and the key, in every command."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import Command, prepare_drawn
from drawn_leaks import people_apart, write_rows

from engagement_recognition.data.audit.leakage import audit
from engagement_recognition.data.audit.page import read_audit, write_audit
from engagement_recognition.data.open_data import DataOptions, describe_data, open_or_prepare, require_audit
from engagement_recognition.data.preparation.parts import read_part
from engagement_recognition.data.preparation.prepared_data import load_prepared
from engagement_recognition.data.schema import Reject
from engagement_recognition.processor.input_errors import DataError

GONE = object()
NAN = float("nan")
NO_JSON = {"": "no JSON", '{"version": 2,': "no JSON", "[]": "[] as its content", "null": "null as its content"}
DESCRIPTION_EDITS = [
    ("version", GONE, "no version;"),
    ("version", 5, "5 as version (input should be 2, 3 or 4)"),
    ("version", "2", '"2" as version'),
    ("fingerprint", GONE, "no fingerprint;"),
    ("kind", 3, "3 as kind"),
    ("media", "film", "\"film\" as media (input should be 'video', 'picture', 'windows' or 'frames')"),
    ("drawn", "yes", '"yes" as drawn'),
    ("settings", [1], "[1] as settings"),
    ("settings.num_frames", GONE, "no settings.num_frames;"),
    ("settings.num_frames", "8", '"8" as settings.num_frames'),
    ("settings.num_frames", 0, "0 as settings.num_frames (input should be greater than or equal to 1)"),
    ("settings.sampling", "random", '"random" as settings.sampling'),
    ("settings.window_stride_frames", 4, "got uniform with stride 4"),
    ("settings.face_margin_ratio", NAN, "NaN as settings.face_margin_ratio (input should be a finite number)"),
    ("settings.frames", 8, "an unknown key settings.frames;"),
    ("notes.seed", "x", '"x" as notes.seed'),
    ("notes.sed", 1, "an unknown key notes.sed;"),
    ("inputs", -1, "-1 as inputs"),
    ("windows.outputs", GONE, "no windows.outputs;"),
    ("label_conflicts", None, "null as label_conflicts"),
    ("splits.train", [], "[] as splits.train"),
    ("splits.train.clips", GONE, "no splits.train.clips;"),
    ("splits.train.label.engaged", 1.5, "1.5 as splits.train.label.engaged"),
    ("splits.train.labels", {}, "an unknown key splits.train.labels;"),
    ("splits.train.windows", 1, "Expected 1 windows in"),
    ("versions.torch", 2, "2 as versions.torch"),
    ("more", 1, "an unknown key more;"),
]
AUDIT_EDITS = [
    ("version", GONE, "no version;"),
    ("version", 2, "2 as version (input should be 1)"),
    ("passed", GONE, "no passed;"),
    ("passed", "true", '"true" as passed'),
    ("passed", False, "passed false although"),
    ("findings.0.grade", "fail", "passed true although findings failed: shared subjects"),
    ("findings.0.grade", "fine", "\"fine\" as findings[0].grade (input should be 'fail', 'report' or 'ok')"),
    ("findings.1.summary", GONE, "no findings[1].summary;"),
    ("findings.1.note", "x", "an unknown key findings[1].note;"),
    ("findings.1", "ok", '"ok" as findings[1]'),
    ("findings.0.details", [], "[] as findings[0].details (input should be an object)"),
    ("findings.0.details.num_shared", NAN, "NaN as findings[0].details.num_shared ("),
    ("findings.2.details.recordings", [{"windows": None}], "null as findings[2].details.recordings[0].windows ("),
    ("counts.clips", "many", '"many" as counts.clips'),
    ("thresholds.neighbour_bits", NAN, "NaN as thresholds.neighbour_bits ("),
    ("label_scheme", GONE, "no label_scheme;"),
    ("fingerprint", None, "null as fingerprint"),
    ("more", 1, "an unknown key more;"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set that was audited."""
    data = write_rows(people_apart(count=2), tmp_path_factory.mktemp("data") / "whole")
    write_audit(audit(data), data, data.folder)
    return data.folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def edit(path: Path, key: str, value: object) -> None:
    content = json.loads(path.read_text())
    place, *outer = reversed([int(part) if part.isdigit() else part for part in key.split(".")])
    held = content
    for part in reversed(outer):
        held = held[part]
    if value is GONE:
        del held[place]
    else:
        held[place] = value
    path.write_text(json.dumps(content))


def refusal_of(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as refused:
        action()
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("key", "value", "words"), DESCRIPTION_EDITS)
def test_an_edited_description_is_one_line_that_names_the_key(folder: Path, key: str, value: object, words: str):
    edit(folder / "dataset.json", key, value)
    line = refusal_of(lambda: load_prepared(folder))
    assert words in line and str(folder) in line and "prepare it again" in line
    assert refusal_of(lambda: open_or_prepare(DataOptions(folder))) == line  # as training and evaluation do


@pytest.mark.parametrize(("text", "words"), NO_JSON.items())
def test_a_description_that_is_no_object_is_one_line(folder: Path, text: str, words: str):
    (folder / "dataset.json").write_text(text)
    assert words in refusal_of(lambda: load_prepared(folder))


@pytest.mark.parametrize(("key", "value", "words"), AUDIT_EDITS)
def test_an_edited_audit_is_one_line_and_never_taken_as_none(folder: Path, key: str, value: object, words: str):
    edit(folder / "audit.json", key, value)
    line = refusal_of(lambda: read_audit(folder))
    assert words in line and str(folder / "audit.json") in line and f"run `engagement audit {folder}`" in line
    prepared = load_prepared(folder)
    for use in (
        lambda: open_or_prepare(DataOptions(folder)),
        lambda: require_audit(prepared),
        lambda: describe_data(prepared, "own", {}),
    ):
        assert refusal_of(use) == line


@pytest.mark.parametrize(("text", "words"), NO_JSON.items())
def test_an_audit_that_is_no_object_is_one_line(folder: Path, text: str, words: str):
    (folder / "audit.json").write_text(text)
    assert words in refusal_of(lambda: open_or_prepare(DataOptions(folder)))


def test_commands_end_with_that_line(drawn_expressions: Path, tmp_path: Path, engagement: Command):
    output = prepare_drawn(drawn_expressions, tmp_path / "data").folder
    edit(output / "dataset.json", "inputs", "many")
    told = f'Expected a prepared data set in {output / "dataset.json"}, got "many" as inputs'
    again = ["prepare", "images", drawn_expressions, "--output", output]
    for command in (["audit", output], again):
        code, _, said = engagement(*command)
        assert code == 2 and said.startswith(f"error: {told}") and said.count("\n") == 1
    (output / "plan.json").write_bytes(b"\xff\xfe")
    code, _, said = engagement(*again)
    assert code == 2 and "a different source or with other settings" in said and said.count("\n") == 1


def test_auditing_again_mends_an_edited_audit(folder: Path, engagement: Command):
    before = read_audit(folder)
    (folder / "audit.json").write_text("[]")
    assert engagement("audit", folder)[0] == 0 and read_audit(folder) == before


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("test/state.json", "_data_files", GONE),
        ("test/state.json", "_data_files", []),
        ("test/state.json", "_data_files", 3),
        ("test/state.json", "_data_files.0.filename", "nowhere.arrow"),
        ("test/state.json", "_data_files.0.filename", "../train/data-00000-of-00001.arrow"),  # more rows than test has
        ("test/state.json", "_format_type", "x"),
        ("test/state.json", "_split", NAN),
        ("test/dataset_info.json", "features", "x"),
        ("test/dataset_info.json", "features.label", GONE),
        ("test/dataset_info.json", "features.label.dtype", "int8"),
        ("test/dataset_info.json", "features.label._type", "Picture"),
        ("dataset_dict.json", "splits", 3),
        ("dataset_dict.json", "splits", ["train"]),
    ],
)
def test_edited_files_of_the_datasets_library_are_one_line(folder: Path, name: str, key: str, value: object):
    edit(folder / name, key, value)
    line = refusal_of(lambda: load_prepared(folder))
    assert str(folder) in line and "prepare it again" in line


@pytest.mark.parametrize("name", ["test/state.json", "test/dataset_info.json", "dataset_dict.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "NaN"])
def test_files_of_the_datasets_library_that_are_no_object_are_one_line(folder: Path, name: str, text: str):
    (folder / name).write_text(text)
    assert str(folder) in refusal_of(lambda: load_prepared(folder))


def test_columns_chosen_for_another_use_are_given_whole(folder: Path):
    edit(folder / "test/state.json", "_format_columns", ["clip_id"])
    edit(folder / "test/state.json", "_format_type", "numpy")
    row = load_prepared(folder).splits["test"][0]
    assert type(row["clip_id"]) is str and "frames" in row


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "{} as its content"),
        ("[", "no JSON"),
        ('[{"path": "a", "clip_id": "a", "stage": "face"}]', "no [0].reason"),
        ('[{"path": "a", "clip_id": "a", "stage": "face", "reason": "r", "window": 1}]', "an unknown key [0].window"),
        ('[{"path": 1, "clip_id": "a", "stage": "face", "reason": "r"}]', "1 as [0].path"),
    ],
)
def test_an_edited_list_of_rejects_is_one_line(tmp_path: Path, text: str, words: str):
    path = tmp_path / "00000016.rejects.json"
    path.write_text(json.dumps([asdict(Reject("a.mp4", "a", "face", "no face"))]))
    assert read_part(tmp_path, 16) == (None, [Reject("a.mp4", "a", "face", "no face")])
    path.write_text(text)
    line = refusal_of(lambda: read_part(tmp_path, 16))
    assert words in line and str(path) in line and "delete that file" in line


# --- What earlier versions wrote


def test_a_description_of_an_early_version_is_read_with_the_same_meaning(whole: Path, folder: Path):
    content = json.loads((folder / "dataset.json").read_text())
    del content["drawn"]
    content["notes"] |= {"subset": None}  # what nobody knows was null where it is left out today
    content["settings"]["window_stride_frames"] = None
    content["split"] = "drawn by person"  # stood beside the notes as well, for a while
    (folder / "dataset.json").write_text(json.dumps(content))
    read, today = load_prepared(folder).description, load_prepared(whole).description
    assert read.model_copy(update={"split": None}) == today and not read.drawn


def test_a_folder_whose_name_is_no_text_can_be_prepared(drawn_expressions: Path, tmp_path: Path):
    source = tmp_path / b"caf\xe9".decode("utf-8", "surrogateescape")
    shutil.copytree(drawn_expressions, source)
    assert prepare_drawn(source, tmp_path / "data").description.source == "caf?"
