"""Data to the Hub and back: pushed over HTTP to a server that speaks the Hub's protocol, read by `datasets` alone on a
stranger's machine, and by us with the same fingerprint and audit."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, prepare_drawn
from datasets import Image, load_dataset
from datasets import List as Repeated
from hub_client import STRANGER, files_of, refill, the_only_hub
from hub_server import READ_TOKEN, HubServer, running

from engagement_recognition.data.drawn.datasets import SETTINGS_NAME, write_daisee
from engagement_recognition.data.hub_source import data_name, is_on_hub, local_folder, parse_name
from engagement_recognition.data.open_data import audit_of, require_audit
from engagement_recognition.data.parquet_tables import read_tables, write_tables
from engagement_recognition.data.preparation.picture_codec import decode_picture
from engagement_recognition.data.preparation.prepared_data import FEATURES, PreparedData, load_prepared
from engagement_recognition.data.readers.sources import read_source
from engagement_recognition.data.schema import EXPRESSIONS
from engagement_recognition.hub.push_data import check_push, push_data
from engagement_recognition.processor.input_errors import DataError, EngagementInputError, RecipeError
from engagement_recognition.training.arguments import Recipe, plan_stages
from engagement_recognition.training.stage_data import open_stage_data


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """Also the only Hub that this process knows."""
    # Requests about a repository that was just made: what it is, what it holds, preupload, LFS batch, then a PUT and a
    # verification for each of three tables, then the commit.
    server = HubServer(tmp_path_factory.mktemp("hub"), {"datasets/org/batch": 4, "datasets/org/last": 11})
    with running(server), the_only_hub(server, tmp_path_factory.mktemp("client")):
        yield server


@pytest.fixture(scope="module")
def faces(drawn_expressions: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Single pictures with labels."""
    return prepare_drawn(drawn_expressions, tmp_path_factory.mktemp("prepared") / "faces")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """A few clips of face crops, rated as DAiSEE is, with boxes, landmarks and rejects."""
    source = tmp_path_factory.mktemp("drawn") / "daisee"
    shape = {"fps": 4, "duration_sec": 2.0, "width_px": 320, "height_px": 240}
    write_daisee(source, 3, 2, seed=0, **shape, processes=1, show_progress=False)
    return prepare_drawn(source, source.parent / "clips", num_frames=2)


@pytest.fixture(scope="module")
def mine(drawn_expressions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that count as those of real people, some of them in two splits, and one that cannot be read."""
    source = tmp_path_factory.mktemp("home of somebody") / "mine"
    shutil.copytree(drawn_expressions, source, ignore=shutil.ignore_patterns(SETTINGS_NAME))
    pictures = sorted(source.rglob("*.png"))
    for picture in [path for path in pictures if "train" in path.parts][:14]:
        shutil.copy(picture, source / "test" / picture.parent.name / f"again_{picture.name}")
    pictures[-1].write_bytes(b"no picture")
    return source


@pytest.fixture(scope="module")
def my_data(mine: Path) -> PreparedData:
    return prepare_drawn(mine, mine.parent / "prepared")


@pytest.fixture(scope="module")
def my_push(hub: HubServer, my_data: PreparedData) -> str:
    """What pushing them says on stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        push_data(my_data.folder, "org/mine")
    return said.getvalue()


@pytest.fixture(scope="module")
def pushed(hub: HubServer, faces: PreparedData, clips: PreparedData) -> dict[str, PreparedData]:
    for name, data in (("org/faces", faces), ("org/clips", clips)):
        assert push_data(data.folder, name, license_name="mit") == f"{hub.endpoint}/datasets/{name}"
    return {"org/faces": faces, "org/clips": clips}


@pytest.mark.parametrize("name", ["org/faces", "org/clips"])
def test_what_comes_back_has_every_byte_the_fingerprint_and_the_audit(
    name: str, pushed: dict[str, PreparedData], tmp_path: Path, capsys: pytest.CaptureFixture
):
    before = pushed[name]
    back = load_prepared(local_folder(Path(f"hf://{name}"), tmp_path))
    assert back.fingerprint == before.fingerprint and back.description == before.description
    assert back.splits.keys() == before.splits.keys()
    for split, rows in before.splits.items():
        assert back.splits[split].features == FEATURES
        assert repr(back.splits[split].to_dict()) == repr(rows.select_columns(list(FEATURES)).to_dict())  # NaN too
    assert audit_of(back) == audit_of(before) is not None
    require_audit(back)
    assert (back.folder / "duplicates.csv").read_bytes() == (before.folder / "duplicates.csv").read_bytes()
    assert back.rejects() == before.rejects()
    assert not (back.folder / "rows.arrow").exists()
    assert f"hf://{name} at " in capsys.readouterr().out
    assert local_folder(Path(f"hf://{name}@main"), tmp_path) == back.folder and len(list(tmp_path.glob("*.json"))) == 0


def test_it_is_converted_once_and_read_offline_afterwards(
    hub: HubServer, pushed: dict[str, PreparedData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = local_folder(Path("hf://org/faces"), tmp_path)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert local_folder(Path("hf://datasets/org/faces"), tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written and hub.requests == []


@pytest.mark.slow
def test_a_stranger_s_process_reads_and_streams(hub: HubServer, pushed: dict[str, PreparedData], tmp_path: Path):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
    command, environment = [sys.executable, "-P", "-c", STRANGER], {**inherited, **hub.environment(tmp_path)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found, splits = json.loads(done.stdout), pushed["org/clips"].splits
    assert found["rows"] == {split: len(rows) for split, rows in splits.items()}
    assert found["pictures"] == [[[224, 224], "RGB"]] * 2


def test_the_datasets_library_reads_and_streams_pictures_classes_and_lists(
    hub: HubServer, pushed: dict[str, PreparedData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    for name, prepared in pushed.items():
        data, stream = load_dataset(name, cache_dir=str(tmp_path)), load_dataset(name, streaming=True)
        assert {split: len(rows) for split, rows in data.items()} == {
            split: len(rows) for split, rows in prepared.splits.items()
        }
        features, row = data["test"].features, next(iter(stream["test"]))
        assert features["frames"] == Repeated(Image()) and row["clip_id"] == prepared.splits["test"]["clip_id"][0]
        decoded = decode_picture(prepared.splits["test"][0]["frames"][0])
        assert np.abs(np.asarray(row["frames"][0].convert("RGB")).astype(int) - decoded).max() <= 4  # two decoders
        if name == "org/faces":
            assert features["label"].names == list(EXPRESSIONS)  # in our order
            assert "engagement" not in features  # nothing is known of it
        else:
            assert features["boredom"].names == ["very low", "low", "high", "very high"] and "label" not in features
            assert data["test"]["engagement"][:] == prepared.splits["test"]["engagement"][:]
    assert hub.unknown == []


def test_tables_are_cut_into_files_and_read_in_order(faces: PreparedData, tmp_path: Path):
    names = write_tables(faces.splits, tmp_path, file_bytes=faces.splits["train"].data.nbytes // 3)
    assert names == sorted(names, key=lambda name: ("train", "validation", "test").index(name[5:].partition("-")[0]))
    assert sum("train" in name for name in names) >= 3 and all((tmp_path / name).is_file() for name in names)
    rows = read_tables(tmp_path, tmp_path / "rows.arrow")
    assert rows["clip_id"][:] == [key for split in faces.splits.values() for key in split["clip_id"][:]]


# --- What may go up, and for whom to see


@pytest.mark.parametrize("kind", ["daisee", "fer2013", "reference-h5", "engagenet", "affectnet", "rafdb"])
def test_data_that_is_not_ours_is_refused_before_anything_is_asked(
    kind: str, hub: HubServer, drawn_expressions: Path, monkeypatch: pytest.MonkeyPatch
):
    source = replace(read_source("images", drawn_expressions), kind=kind)
    hub.requests.clear()
    with pytest.raises(DataError, match="must not be shared") as refusal:
        check_push(replace(source, drawn=False), "org/new", public=True)
    assert "\n" not in str(refusal.value) and hub.requests == []
    check_push(source, "org/new")  # drawn people in the same layout
    assert "datasets/org/new" not in hub.repositories


def test_what_is_rated_as_daisee_is_counts_as_daisee(hub: HubServer, clips: PreparedData, tmp_path: Path):
    folder = shutil.copytree(clips.folder, tmp_path / "copy")
    described = (folder / "dataset.json").read_text(encoding="utf-8").replace('"drawn": true', '"drawn": false')
    (folder / "dataset.json").write_text(described.replace('"daisee"', '"videos"'), encoding="utf-8")
    with pytest.raises(DataError, match="rated like DAiSEE"):
        push_data(folder, "org/rated", public=False)
    assert "datasets/org/rated" not in hub.repositories


def test_drawn_people_are_public_and_all_others_private_unless_told(
    hub: HubServer, my_data: PreparedData, my_push: str, pushed: object
):
    assert not hub.repositories["datasets/org/faces"].private
    assert hub.repositories["datasets/org/mine"].private
    hub.create("datasets/org/told", private=False)
    for public in (None, False):
        with pytest.raises(EngagementInputError, match="org/told is public"):
            push_data(my_data.folder, "org/told", public)
    push_data(my_data.folder, "org/told", public=True)
    assert "dataset.json" in hub.files("datasets/org/told")


def test_a_failed_audit_is_said_on_the_screen_and_in_the_card(hub: HubServer, my_push: str):
    assert "failed the audit" in my_push
    card = hub.files("datasets/org/mine")["README.md"].decode()
    assert "**It failed the audit for leakage" in card and "- fail, " in card
    assert "**Faces of real people.**" in card and "license: unknown" in card
    assert "decode 1;" in card and "must not be used for" in card


def test_the_card_says_what_is_there_and_how_to_load_it(hub: HubServer, pushed: dict[str, PreparedData]):
    card = hub.files("datasets/org/clips")["README.md"].decode()
    assert "path: data/train-*" in card and "n<1K" in card and "- synthetic" in card and "license: mit" in card
    assert "**Drawn people who do not exist" in card and "hf://org/clips" in card
    assert pushed["org/clips"].fingerprint in card and "It passed the audit" in card and "windows of 2 frames" in card


def test_nothing_goes_up_that_tells_of_this_machine(
    hub: HubServer, my_data: PreparedData, my_push: str, pushed: object
):
    place = str(my_data.folder.parent)
    assert place in (my_data.folder / "rejects.csv").read_text(encoding="utf-8")  # here it helps
    for repository in ("mine", "clips", "faces"):
        files = hub.files(f"datasets/org/{repository}")
        assert "audit.html" not in files and "manifest.csv" not in files and "plan.json" not in files
        assert not [name for name, content in files.items() if place.encode() in content]
    (row,) = csv.DictReader(hub.files("datasets/org/mine")["rejects.csv"].decode().splitlines())
    assert row["path"] in row["reason"] and "somebody" not in row["reason"] and row["stage"] == "decode"


def test_rows_that_name_a_place_on_a_disk_are_refused(hub: HubServer, clips: PreparedData, tmp_path: Path):
    rows = {split: rows.map(lambda row: {"source_path": f"/home/x/{row['clip_id']}"}, keep_in_memory=True)
            for split, rows in clips.splits.items()}  # fmt: skip
    named = type(clips.splits)(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engagement_recognition.hub.push_data.load_prepared", lambda _: replace(clips, splits=named))
        with pytest.raises(DataError, match=r"absolute path /home/x/"):
            push_data(clips.folder, "org/absolute")
    assert "datasets/org/absolute" not in hub.repositories


# --- What goes wrong


@pytest.mark.parametrize("repository", ["org/batch", "org/last"])
def test_a_broken_push_can_be_repeated_and_the_data_stays(repository: str, hub: HubServer, faces: PreparedData):
    before = files_of(faces.folder)
    with pytest.raises(EngagementInputError, match=r"No space left on this Hub.*push again") as refusal:
        push_data(faces.folder, repository)
    assert "\n" not in str(refusal.value) and str(faces.folder) in str(refusal.value)
    push_data(faces.folder, repository)
    assert len(hub.repositories[f"datasets/{repository}"].commits) == 2  # its first, and the data
    assert files_of(faces.folder).items() >= before.items()
    assert [path.name for path in faces.folder.parent.iterdir() if "_hub" in path.name] == []


def test_what_is_no_earlier_version_is_left_alone(
    hub: HubServer, pushed: object, faces: PreparedData, clips: PreparedData
):
    hub.fill("datasets/org/theirs", {"data/train-00000-of-00001.parquet": b"PAR1", "README.md": b""})
    hub.fill("datasets/org/table", {"dataset.json": b"{}", "people.csv": b"1", "notes/a.txt": b"2"})
    for repository, data, found in (
        ("org/theirs", faces, "data/train-00000-of-00001.parquet"),
        ("org/table", faces, "people.csv, notes/a.txt"),
        ("org/faces", clips, "names drawn images, picture, this one drawn daisee, video"),
    ):
        before = hub.files(f"datasets/{repository}")
        with pytest.raises(EngagementInputError, match="name another repository") as refusal:
            push_data(data.folder, repository)
        assert found in str(refusal.value) and hub.files(f"datasets/{repository}") == before


def test_a_model_of_the_same_name_is_in_nobody_s_way(hub: HubServer, faces: PreparedData, tmp_path: Path):
    hub.fill("org/model", {"config.json": b"{}"})
    with pytest.raises(DataError, match=r"hf://org/model is not a .*a model has this name"):
        local_folder(Path("hf://org/model"), tmp_path)
    push_data(faces.folder, "org/model")
    assert hub.files("org/model").keys() == {".gitattributes", "config.json"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf://nix", "hf://org/name"),
        ("hf://org/a/b", "hf://org/name"),
        ("hf://models/org/name", "hf://org/name"),
        ("hf://org/na me", "hf://org/name"),
        ("hf://org/none", "none, or not readable with this token"),
        ("hf://org/faces@nix", "no such revision"),
        ("hf://org/foreign", "hf://org/foreign has no dataset.json"),
        ("hf://org/edited", "a prepared data set at hf://org/edited, in "),
    ],
)
def test_a_name_of_nothing_is_one_line(name: str, says: str, hub: HubServer, pushed: object, tmp_path: Path):
    if "datasets/org/foreign" not in hub.repositories:
        hub.fill("datasets/org/foreign", {"train.csv": b"a,b\n"})
        hub.fill("datasets/org/edited", {"dataset.json": b'{"x": 1}'})
    with pytest.raises(DataError) as refusal:
        local_folder(Path(name), tmp_path)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_changed_data_is_not_taken_for_what_was_pushed(hub: HubServer, pushed: dict[str, PreparedData], tmp_path: Path):
    files, fingerprint = hub.files("datasets/org/faces"), pushed["org/faces"].fingerprint
    other = files["dataset.json"].replace(fingerprint.encode(), b"0" * 64)
    table = "data/test-00000-of-00001.parquet"
    cases = {
        "org/cut": ({table: files[table][:100]}, False, f"{table} has changed"),
        "org/counted": ({"dataset.json": other}, True, "were changed"),
        "org/swapped": ({table: files["data/validation-00000-of-00001.parquet"]}, True, "twice|were changed"),
        "org/clip-table": ({table: hub.files("datasets/org/clips")[table]}, True, "were changed"),
        "org/no-table": ({table: b"PAR1"}, True, "could not be read"),
    }
    for name, (changes, sums, says) in cases.items():
        refill(hub, name, changes, tmp_path / name, sums)
        with pytest.raises(DataError, match=says) as refusal:
            local_folder(Path(f"hf://{name}"), tmp_path / "cache")
        assert "\n" not in str(refusal.value)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]  # nothing half done is left


def test_an_audit_of_other_data_is_not_trusted(hub: HubServer, pushed: dict[str, PreparedData], tmp_path: Path):
    audit = hub.files("datasets/org/faces")["audit.json"]
    audit = audit.replace(pushed["org/faces"].fingerprint.encode(), b"0" * 64)
    refill(hub, "org/audited", {"audit.json": audit}, tmp_path / "files")
    assert audit_of(load_prepared(local_folder(Path("hf://org/audited"), tmp_path))) is None


@pytest.mark.parametrize(
    ("token", "says"),
    [("", "no token is set here.*hf auth login"), (READ_TOKEN, "may only read"), ("hf_no", "[Ii]nvalid")],
)
def test_a_token_that_cannot_push_is_found_before_the_work(
    token: str,
    says: str,
    hub: HubServer,
    mine: Path,
    tmp_path: Path,
    engagement: Command,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    code, _, err = engagement("prepare", "images", mine, "--output", tmp_path / "out", "--push-to-hub", "org/token")
    assert code == 2 and err.count("\n") == 1 and re.search(says, err), err
    assert not (tmp_path / "out").exists() and (not token or token not in err)


def test_a_hub_that_is_away_is_one_line(hub: HubServer, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(EngagementInputError, match="so push again"):
        check_push(read_source("images", mine), "org/away")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"offline mode is enabled.*HF_HUB_OFFLINE"):
        local_folder(Path("hf://org/never-seen"), tmp_path)


# --- By command


def test_prepare_pushes_and_every_command_reads(
    hub: HubServer, drawn_expressions: Path, tmp_path: Path, engagement: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    prepare = ["prepare", "images", drawn_expressions, "--output", "data", "--push-to-hub", "org/typed"]
    for _ in range(2):  # done already, and pushed all the same
        code, out, _ = engagement(*prepare, "--license", "cc-by-nc-4.0")
        assert code == 0 and f"pushed to {hub.endpoint}/datasets/org/typed" in out
    assert len(hub.repositories["datasets/org/typed"].commits) == 2
    assert engagement("audit", "hf://org/typed")[0] == 0
    (folder,) = (path for path in Path("runs/cache").iterdir() if path.is_dir())
    assert folder.name.startswith("hub-org--typed-") and (folder / "audit.html").is_file()
    assert load_prepared(folder).fingerprint == load_prepared(Path("data")).fingerprint
    code, _, err = engagement(*prepare, "--license", "made-up")
    assert code == 2 and '"license" must be one of' in err and "--license" in err
    for wrong in (["--push-to-hub", "name"], ["--public"], ["--license", "mit"]):
        code, _, err = engagement("prepare", "images", drawn_expressions, "--output", "other", *wrong)
        assert code == 2 and err.count("\n") == 1 and "org/name" in err and not Path("other").exists()


def test_a_recipe_names_data_on_the_hub(hub: HubServer, pushed: dict[str, PreparedData], tmp_path: Path):
    options = {"engagement_data": "hf://org/clips", "expression_data": "hf://org/faces@main", "pretrained": "false"}
    runs = plan_stages(Recipe({"cache_dir": str(tmp_path), "encoder": "test_resnet"}), options)
    assert [open_stage_data(run).fingerprint for run in runs] == [data.fingerprint for data in pushed.values()]
    asked = plan_stages(Recipe({"cache_dir": str(tmp_path)}), {"engagement_data": "hf://org/clips", "num_frames": "3"})
    with pytest.raises(RecipeError, match=r"num_frames 2, got 3"):
        open_stage_data(asked[-1])


def test_names_survive_a_path_and_records_hold_them_whole():
    for text in ("hf://org/name", "hf://org/name@v1", "hf://datasets/org/name@refs/pr/1"):
        assert is_on_hub(Path(text)) and is_on_hub(text)
        assert data_name(Path(text)) == str(parse_name(text)) == text.replace("datasets/", "")
    assert not is_on_hub(Path("runs/hf")) and data_name(Path("runs/hf")) == "hf"
