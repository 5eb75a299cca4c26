"""EngageNet, AffectNet and RAF-DB in the layouts that they are published in, made here: read, prepared, audited."""

import codecs
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import prepare_found
from made_layouts import (
    AFFECTNET_NUMBERS,
    MARGIN_PX,
    film,
    save,
    write,
    write_affectnet,
    write_affectnet8,
    write_engagenet,
    write_rafdb,
    write_rafdb_copy,
)
from small_files import zip_folder

from engagement_recognition.data.audit.leakage import audit
from engagement_recognition.data.audit.page import write_audit
from engagement_recognition.data.preparation.prepared_data import PreparedData
from engagement_recognition.data.preparation.settings import FrameOptions
from engagement_recognition.data.readers.sources import detect_kind, read_source
from engagement_recognition.data.schema import ENGAGENET_LEVELS, EXPRESSIONS, SPLITS, LabelledSource, order_label_names
from engagement_recognition.processor.input_errors import DataError
from engagement_recognition.processor.media_inputs import load_picture

MAKE = {
    "engagenet": write_engagenet, "affectnet": write_affectnet, "affectnet8": write_affectnet8, "rafdb": write_rafdb,
    "rafdb_copy": write_rafdb_copy,
}  # fmt: skip
KIND_OF = {"affectnet8": "affectnet", "rafdb_copy": "rafdb"}
LIST = {
    "engagenet": "train_engagement_labels.csv", "affectnet": "Manually_Annotated_file_lists/training.csv",
    "rafdb": "EmoLabel/list_patition_label.txt",
}  # fmt: skip


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("layouts")
    return {name: make(folder / name) for name, make in MAKE.items()}


@pytest.fixture(scope="module")
def prepared_engagenet(layouts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Whole frames: who is where is what counts here, and no face need be looked for."""
    output, source = tmp_path_factory.mktemp("prepared") / "engagenet", layouts["engagenet"]
    return prepare_found(read_source(None, source), source, output, num_frames=2, face_crop=False, face_crop_size_px=32)


def counted(source: LabelledSource) -> dict[str, int]:
    return dict(Counter(str(record.split) for record in source.records))


def edited(layout: Path, tmp_path: Path, name: str, edit: Callable[[str], str | bytes]) -> Path:
    """A copy of a layout with another list."""
    folder = shutil.copytree(layout, tmp_path / "edited")
    content = edit((folder / name).read_text())
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_each_layout_is_told_and_read_whole(name: str, as_zip: bool, layouts: dict[str, Path], tmp_path: Path):
    kind = KIND_OF.get(name, name)
    path = zip_folder(layouts[name], tmp_path / "set.zip", "data/top/") if as_zip else layouts[name]
    assert detect_kind(path) == kind
    source = read_source(None, path)
    assert source.kind == kind and source.rejects == [] and set(counted(source)) == set(SPLITS)
    assert len({record.clip_id for record in source.records}) == len(source.records)
    read = pickle.loads(pickle.dumps(source.read))  # as it goes to other processes
    for record in source.records:
        content = read(record)
        assert isinstance(content, bytes) or content.is_file()
        if source.media == "picture":
            assert load_picture(content).shape == (48, 48, 3)  # the face alone, whatever lies around it
    expected = ENGAGENET_LEVELS if kind == "engagenet" else EXPRESSIONS
    assert order_label_names({record.label for record in source.records if record.label}) == list(expected)


def test_labels_that_may_be_anybody_s_keep_the_order_that_they_had():
    assert order_label_names(["not-engaged", "engaged"]) == ["engaged", "not-engaged"]
    assert order_label_names(["happy", "contempt", "angry"]) == ["angry", "contempt", "happy"]


def test_engagenet_s_people_are_in_the_file_names(layouts: dict[str, Path]):
    source = read_source("engagenet", layouts["engagenet"])
    people = {split: {r.subject_id for r in source.records if r.split == split} for split in SPLITS}
    assert people == {"train": {"7", "12"}, "validation": {"3"}, "test": {"55"}}
    assert source.notes.split == "the source's own"
    assert source.notes.files == [f"{split}_engagement_labels.csv" for split in ("test", "train", "validation")]


def test_the_audit_of_engagenet_finds_a_person_in_two_splits(
    prepared_engagenet: PreparedData, layouts: dict[str, Path], tmp_path: Path
):
    assert audit(prepared_engagenet).passed
    folder = shutil.copytree(layouts["engagenet"], tmp_path / "leaky")
    film(folder / "Test/subject_7_zz9_vid_1_0.mp4", 7, 9)
    with (folder / "test_engagement_labels.csv").open("a") as file:
        file.write("9,subject_7_zz9_vid_1_0.mp4,Engaged\n")
    found = read_source(None, folder)
    settings = {"num_frames": 2, "face_crop": False, "face_crop_size_px": 32}
    audited = audit(prepare_found(found, folder, tmp_path / "out", **settings))
    shared = next(finding for finding in audited.findings if finding.name == "shared subjects")
    assert not audited.passed and shared.grade == "fail" and "7" in shared.summary


@pytest.mark.parametrize("name", ["affectnet", "affectnet8", "rafdb", "rafdb_copy"])
def test_a_published_test_stays_and_validation_is_drawn_from_train(name: str, layouts: dict[str, Path]):
    source = read_source(None, layouts[name])
    assert {record.subject_id for record in source.records} == {None}
    listed = (layouts["affectnet"] / "Manually_Annotated_file_lists/validation.csv").read_text()
    published = {
        record.source_path
        for record in source.records
        if "test_" in record.source_path
        or "val_set/" in record.source_path
        or f"/{Path(record.source_path).name}," in listed
    }
    assert len(published) == 7
    assert {record.source_path for record in source.records if record.split == "test"} == published
    told = str(source.notes.split)
    assert "validation drawn from train clip by clip" in told
    assert ("test is the published validation set" in told) is name.startswith("affectnet")
    assert read_source(None, layouts[name]).records == source.records


@pytest.mark.parametrize("name", LIST)
def test_lists_with_a_mark_crlf_capitals_and_blanks_are_read_the_same(
    name: str, layouts: dict[str, Path], tmp_path: Path
):
    def spoil(text: str) -> bytes:
        lines = text.replace(".mp4", ".MP4").replace("train_0", "TRAIN_0").replace("Barely-engaged", "BARELY ENGAGED")
        separator = "," if name != "rafdb" else " "
        return (
            codecs.BOM_UTF8
            + "\r\n".join(
                f"{line.replace(separator, separator + ' ')}  " if line else "" for line in [*lines.splitlines(), ""]
            ).encode()
        )

    whole = read_source(None, layouts[name])
    source = read_source(None, edited(layouts[name], tmp_path, LIST[name], spoil))
    assert source.rejects == []
    assert [(r.source_path, r.label, r.split) for r in source.records] == [
        (r.source_path, r.label, r.split) for r in whole.records
    ]


@pytest.mark.parametrize("name", LIST)
def test_a_line_or_a_file_alone_is_one_reject(name: str, layouts: dict[str, Path], tmp_path: Path):
    whole = read_source(None, layouts[name])
    folder = edited(layouts[name], tmp_path, LIST[name], lambda text: text)
    first, second = [record for record in whole.records if record.split == "train"][:2]
    (folder / first.source_path).unlink()
    lines = (folder / LIST[name]).read_text().splitlines(keepends=True)
    stem = Path(second.source_path).stem.removesuffix("_aligned")
    (folder / LIST[name]).write_text("".join(line for line in lines if stem not in line))
    source = read_source(None, folder)
    assert {reject.stage: reject.path for reject in source.rejects} == {
        "source": LIST[name],
        "label": second.source_path,
    }
    assert f"of {LIST[name]}" in source.rejects[0].reason and "in line" in source.rejects[0].reason
    assert len(source.records) + len(source.rejects) == len(whole.records)


@pytest.mark.parametrize(
    ("name", "label", "words"),
    [
        ("engagenet", "SNP(Subject Not Present)", "subject is not present"),
        ("engagenet", "Very-Engaged", "'Very-Engaged'"),
        ("affectnet", "8", "none of the expressions"),
        ("affectnet", "9", "uncertain"),
        ("affectnet", "10", "no face"),
        ("affectnet", "11", "'11'"),
        ("rafdb", "0", "'0'"),
        ("rafdb", "", "2 words, got 1"),
    ],
)
def test_a_label_that_says_nothing_is_a_reject_with_its_line(
    name: str, label: str, words: str, layouts: dict[str, Path], tmp_path: Path
):
    def edit(text: str) -> str:
        lines = text.splitlines()
        at, separator = (0, " ") if name == "rafdb" else (1, ",")
        cells = lines[at].split(separator)
        cells[{"engagenet": 2, "affectnet": 6, "rafdb": 1}[name]] = label
        if label == "10":  # as the real list has it: there is no box, either
            cells[1:5] = ["NULL"] * 4
        lines[at] = separator.join(cells)
        return "\n".join(lines)

    (reject,) = read_source(None, edited(layouts[name], tmp_path, LIST[name], edit)).rejects
    assert reject.stage == "label" and words in reject.reason
    assert f"in line {1 if name == 'rafdb' else 2} of {LIST[name]}" in reject.reason


@pytest.mark.parametrize("name", LIST)
def test_a_line_that_is_there_twice_counts_once_and_a_contradiction_not_at_all(
    name: str, layouts: dict[str, Path], tmp_path: Path
):
    whole = read_source(None, layouts[name])

    def twice(text: str) -> str:
        lines = text.splitlines()
        rest = lines[1:] if name != "rafdb" else lines
        other = rest[1].replace(",Barely-engaged", ",Engaged").replace(",0,0.25", ",4,0.25")
        other = f"{other[:-1]}7" if name == "rafdb" else other
        return "\n".join([*lines, rest[0], other, ""])

    source = read_source(None, edited(layouts[name], tmp_path, LIST[name], twice))
    told = Counter(reject.reason.partition(" in line")[0].rpartition(", ")[2] for reject in source.rejects)
    assert told == {"got it a second time": 1, "got it again with other values": 2}
    assert len(source.records) == len(whole.records) - 1


@pytest.mark.parametrize("name", LIST)
def test_a_list_of_other_files_names_file_and_line(name: str, layouts: dict[str, Path], tmp_path: Path):
    swap = {"engagenet": ("subject_", "subject_9"), "affectnet": (".jpg", "f.jpg"), "rafdb": ("_0", "_9")}[name]
    folder = edited(layouts[name], tmp_path, LIST[name], lambda text: text.replace(*swap))
    for other in {*folder.glob("*labels.csv"), *folder.rglob("validation.csv")} - {folder / LIST[name]}:
        other.unlink()
    source = read_source(None, folder)
    assert source.records == [] and f"of {LIST[name]}" in source.rejects[0].reason
    with pytest.raises(DataError, match=f"in line {1 if name == 'rafdb' else 2} of {LIST[name]}"):
        prepare_found(source, folder, tmp_path / "out")


# --- EngageNet's tables


def test_a_workbook_is_refused_in_a_line_that_says_what_to_do(layouts: dict[str, Path], tmp_path: Path):
    folder = shutil.copytree(layouts["engagenet"], tmp_path / "set")
    table = folder / "train_engagement_labels.csv"
    write(folder, "train_engagement_labels.xlsx", b"PK\3\4")
    assert read_source(None, folder).rejects == []  # what was saved from it lies beside it
    table.unlink()
    with pytest.raises(DataError, match=r"_labels\.xlsx; save it .* train_engagement_labels\.csv\."):
        read_source(None, folder)
    table.write_text("video,label\na,b\n")
    with pytest.raises(DataError, match=r"train_engagement_labels\.csv .* missing: chunk"):
        read_source(None, folder)
    write(folder, "copy/training_engagement_labels.csv", "chunk,label\na,b\n")
    with pytest.raises(DataError, match="two tables of train"):
        read_source(None, folder)


def test_a_name_without_a_person_is_a_reject(layouts: dict[str, Path], tmp_path: Path):
    folder = edited(layouts["engagenet"], tmp_path, LIST["engagenet"], lambda text: text.replace("subject_7_", "s7_"))
    for video in folder.glob("Train/subject_7_*"):
        video.rename(video.with_name(video.name.replace("subject_7_", "s7_")))
    rejects = read_source(None, folder).rejects
    assert len(rejects) == 4 and all("subject_<number>" in reject.reason for reject in rejects)


# --- AffectNet's boxes and places


def test_affectnet_s_boxes_are_cut_out_unless_faces_are_looked_for(layouts: dict[str, Path], tmp_path: Path):
    faces = read_source("affectnet", layouts["affectnet"])
    whole = read_source("affectnet", layouts["affectnet"], frames=FrameOptions(face_crop=True))
    for face, picture in zip(faces.records, whole.records, strict=True):
        assert face.clip_id == f"{picture.clip_id}@{MARGIN_PX},{MARGIN_PX},48,48"
        assert replace(face, clip_id="") == replace(picture, clip_id="")
        pixels = load_picture(whole.read(picture))
        assert pixels.shape == (48 + 2 * MARGIN_PX,) * 2 + (3,)
        assert np.array_equal(load_picture(faces.read(face)), pixels[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX])
    prepared = prepare_found(faces, layouts["affectnet"], tmp_path / "out")
    assert (prepared.description.inputs, prepared.description.rejects) == (28, 0)


def test_pictures_that_are_cut_already_are_no_places_for_boxes(layouts: dict[str, Path], tmp_path: Path):
    def larger(text: str) -> str:
        return text.replace(f",{MARGIN_PX},{MARGIN_PX},48,48,", ",134,134,899,899,")

    folder = edited(layouts["affectnet"], tmp_path, LIST["affectnet"], larger)
    source = read_source(None, folder)
    prepared = prepare_found(source, folder, tmp_path / "out")
    assert prepared.description.rejects_by_stage == {"decode": 21}
    reason = (tmp_path / "out/rejects.csv").read_text()
    assert "134,134,899,899" in reason and "remove face_x, face_y, face_width, face_height from" in reason
    for name, split in {"training": "train", "validation": "test"}.items():
        write(folder, f"Manually_Annotated_file_lists/{name}.csv", _without_boxes(source, split))
    whole = read_source(None, folder)
    assert {load_picture(whole.read(record)).shape[0] for record in whole.records} == {48 + 2 * MARGIN_PX}


def _without_boxes(source: LabelledSource, published: str) -> str:
    rows = [
        f"{record.source_path.removeprefix('Manually_Annotated_Images/')},{AFFECTNET_NUMBERS[record.label or '']}"
        for record in source.records
        if (record.split == "test") is (published == "test")
    ]
    return "\n".join(["subDirectory_filePath,expression", *rows])


def test_affectnet_in_two_places_is_refused_and_the_models_labels_are_not_read(
    layouts: dict[str, Path], tmp_path: Path
):
    folder = shutil.copytree(layouts["affectnet"], tmp_path / "set")
    header = (folder / LIST["affectnet"]).read_text().splitlines()[0]
    write(folder, "Automatically_Annotated_file_lists/automatically_annotated.csv", f"{header}\n1/a.jpg,1,1,9,9,,1,0,0")
    write(folder, "Automatically_Annotated_Images/1/a.jpg", b"not looked at")
    assert len(read_source(None, folder).records) == 28 and read_source(None, folder).rejects == []
    shutil.copytree(folder / "Manually_Annotated_Images", folder / "aligned")
    with pytest.raises(DataError, match="Manually_Annotated_Images/ and aligned/; keep one"):
        read_source(None, folder)


def test_an_annotation_that_is_no_number_is_a_reject(layouts: dict[str, Path], tmp_path: Path):
    folder = shutil.copytree(layouts["affectnet8"], tmp_path / "set")
    write(folder, "train_set/annotations/0_exp.npy", b"no array")
    np.save(folder / "train_set/annotations/1_exp.npy", np.array([1, 2]))
    np.save(folder / "train_set/annotations/2_exp.npy", np.int64(7))
    (folder / "train_set/annotations/3_exp.npy").unlink()
    (folder / "train_set/images/4.jpg").unlink()
    source = read_source(None, folder)
    assert sorted((Path(reject.path).name, reject.stage) for reject in source.rejects) == [
        ("0_exp.npy", "label"), ("1_exp.npy", "label"), ("3.jpg", "label"), ("4_exp.npy", "source"),
    ]  # fmt: skip
    assert [r.label for r in source.records if r.clip_id == "train_set/images/2"] == ["contempt"]


# --- RAF-DB's pictures


def test_rafdb_s_whole_pictures_are_read_where_faces_are_looked_for(layouts: dict[str, Path], tmp_path: Path):
    whole = read_source("rafdb", layouts["rafdb"], frames=FrameOptions(face_crop=True))
    assert {record.source_path.split("/")[1] for record in whole.records} == {"original"} and whole.rejects == []
    folder = shutil.copytree(layouts["rafdb"], tmp_path / "set")
    shutil.rmtree(folder / "Image/aligned")
    with pytest.raises(DataError, match=r"aligned faces .* --face-crop"):
        read_source("rafdb", folder)
    shutil.rmtree(folder / "Image")
    (folder / LIST["rafdb"]).unlink()
    save(folder / "faces/a.jpg", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"list_patition_label\.txt.* in folders 1 to 7"):
        read_source("rafdb", folder)


def test_rafdb_s_compound_expressions_are_not_taken_for_the_basic_ones(layouts: dict[str, Path], tmp_path: Path):
    folder = edited(layouts["rafdb"], tmp_path, LIST["rafdb"], lambda text: text.replace(" 7\n", " 11\n"))
    with pytest.raises(DataError, match=f"(?i)line 7 of {LIST['rafdb']}.* 11.*folder basic"):
        read_source(None, folder)
    shutil.copytree(layouts["rafdb"], folder / "basic")
    with pytest.raises(DataError, match="several lists of RAF-DB"):
        read_source(None, folder)


# --- Both stages on such data


def test_both_stages_train_on_them(
    tiny_recipe: dict[str, object], prepared_engagenet: PreparedData, layouts: dict[str, Path], tmp_path: Path
):
    from engagement_recognition import train
    from engagement_recognition.evaluation.results_file import read_results
    from engagement_recognition.training.arguments import Recipe

    write_audit(audit(prepared_engagenet), prepared_engagenet, prepared_engagenet.folder)
    stages = {"expression": {"data": str(layouts["rafdb"])}, "engagement": {"data": str(prepared_engagenet.folder)}}
    recipe = {**tiny_recipe, **stages, "num_frames": 2, "output_dir": str(tmp_path / "run"), "num_train_epochs": 1}
    recipe["cache_dir"] = str(tmp_path / "cache")
    expression, engagement = map(read_results, train.train(Recipe(recipe), {}))
    assert expression.label_names == list(EXPRESSIONS) and engagement.label_names == list(ENGAGENET_LEVELS)
    assert expression.data and expression.data.kind == "rafdb"
    assert engagement.data and engagement.data.kind == "engagenet"
