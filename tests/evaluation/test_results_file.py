"""`results.json`: what is written is read, version 2 as what it meant, and a file with a mistake is one line."""

import json
import re
from pathlib import Path

import pytest
from made_up_results import NAMES, OTHER, OWN, described, measurement, results, without_bias
from results_version_2 import version_2, without_nulls

from engagement_recognition.data.described_data import AuditSummary
from engagement_recognition.evaluation.focus_records import FaceFocusResults, FocusPeople, FocusRegion, FocusSanity
from engagement_recognition.evaluation.results_file import read_results, write_results
from engagement_recognition.evaluation.results_schema import ImportedFrames, ImportedFrom, ReportedByFile, Results
from engagement_recognition.processor.input_errors import ModelLoadError

FOCUS = FaceFocusResults(
    num_clips=3, num_without_face=0, num_without_heat=1, num_unreadable=0, label="predicted", seed=0,
    face=FocusRegion(mean=0.5, chance=0.25, ratio=2.0, lower=None, upper=None),
    eyes=FocusRegion(mean=None, chance=None, ratio=None, lower=None, upper=None),
    mouth=FocusRegion(mean=0.1, chance=0.2, ratio=0.5, lower=0.0, upper=0.2),
    people=FocusPeople(suppressed=True, num_people=None, lowest_means=[]), sanity=FocusSanity(num_clips=0),
)  # fmt: skip


def put(folder: Path, content: object) -> Path:
    path = folder / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def version_3() -> dict:
    return json.loads(results().model_dump_json(by_alias=True))


# --- Version 2, as it was written


def with_later(old: dict, fingerprint: str, **told: object) -> dict:
    """`engagement evaluate` measured test on this data."""
    later = {"fingerprint": fingerprint, "label_scheme": "binary", "audit_passed": True, **told}
    return {**old, "evaluated_on": {"test": later}}


def assert_read_and_written(old: dict, folder: Path) -> Results:
    """Version 2 → 3, which says the same again."""
    put(folder, old)
    found = read_results(folder)
    write_results(folder, found)
    assert json.loads((folder / "results.json").read_text(encoding="utf-8"))["version"] == 3
    assert read_results(folder) == found
    return found


def test_version_2_is_read_as_what_it_meant(tmp_path: Path):
    found = assert_read_and_written(version_2(), tmp_path)
    assert found == results().model_copy(update={"measurements": [without_bias(results().measurements[0])]})


def test_a_split_measured_on_other_data_is_of_that(tmp_path: Path):
    environment = {"python": "3.12", "torch_threads": 1, "timm": "1.0"}
    told = {"kind": "videos", "source": "others", "drawn": True, "environment": environment}
    found = assert_read_and_written(with_later(version_2(), OTHER, **told), tmp_path)
    (measured,) = found.measurements
    assert (measured.data.fingerprint, measured.data.kind, measured.data.source) == (OTHER, "videos", "others")
    assert measured.data.drawn and measured.data.audit == AuditSummary(passed=True)
    assert measured.environment.packages == {"timm": "1.0"} and measured.environment.torch_threads == 1
    assert found.data.fingerprint == OWN and found.doubt() == "other data"


def test_an_evaluation_that_says_little_of_its_data_keeps_what_it_says(tmp_path: Path):
    old = {"fingerprint": OTHER, "source": "others", "label_scheme": "binary", "audit_passed": None}
    (measured,) = assert_read_and_written({**version_2(), "evaluated_on": {"test": old}}, tmp_path).measurements
    assert (measured.data.kind, measured.data.source, measured.data.audit) == ("unknown", "others", None)


def test_a_split_measured_again_on_its_own_data_is_of_the_data_with_the_later_audit(tmp_path: Path):
    (measured,) = assert_read_and_written(with_later(version_2(), OWN, audit_passed=False), tmp_path).measurements
    assert measured.data == described().model_copy(update={"audit": AuditSummary(passed=False)})
    (measured,) = assert_read_and_written(with_later(version_2(), OWN, audit_passed=None), tmp_path).measurements
    assert measured.data == described()
    (measured,) = assert_read_and_written(with_later(version_2(), OWN, label_scheme="levels"), tmp_path).measurements
    assert measured.data.label_scheme == "levels"


IMPORTED = {"from": "a.pth", "system": "CNN + LSTM", "num_weights": 9, "num_encoder_weights": 8, "sha256": "0f",
            "reported_by_file": {"epoch": 3, "val_f1": None}}  # fmt: skip
SIZELESS = {"num_frames": 8, "sampling": "consecutive", "window_stride_frames": 16, "face_crop": False}


def imported_2() -> dict:
    old = version_2()
    kept = ("version", "stage", "label_names", "started_from", "evaluation", "data")
    return {**{name: old[name] for name in kept}, "imported": IMPORTED}


def test_an_imported_model_s_data_is_what_it_was_measured_on(tmp_path: Path):
    found = assert_read_and_written(imported_2(), tmp_path)
    assert found.data is found.seed is found.training is found.environment is None
    assert found.measurements[0].data == described() and found.doubt() is None
    assert found.imported == ImportedFrom(
        source="a.pth", system="CNN + LSTM", num_weights=9, num_encoder_weights=8, sha256="0f",
        reported_by_file=ReportedByFile(epoch=3, val_f1=None),
    )  # fmt: skip


def test_an_imported_model_that_nobody_measured_has_no_data(tmp_path: Path):
    old = {name: value for name, value in imported_2().items() if name not in ("evaluation", "data")}
    found = assert_read_and_written(old, tmp_path)
    assert not found.measurements and found.doubt() == "unmeasured"


@pytest.mark.parametrize("name", ["face_crop_size", "face_crop_size_px"])
def test_a_crop_s_side_had_another_name(name: str, tmp_path: Path):
    old = imported_2()
    old["imported"] = {**IMPORTED, "frames": {**SIZELESS, name: 224}}
    assert assert_read_and_written(old, tmp_path).imported.frames == ImportedFrames(**SIZELESS, face_crop_size_px=224)
    old = version_2()
    old["data"]["prepared_with"] = {"num_frames": 8, "sampling": "uniform", name: 256, "data_kind": "daisee"}
    assert assert_read_and_written(old, tmp_path).data.prepared_with == results().data.prepared_with


def test_results_from_before_some_keys_existed_do_not_know_them(tmp_path: Path):
    old = version_2()
    for name in ("drawn", "prepared_with"):
        del old["data"][name]
    focus = without_nulls(FOCUS.model_dump())
    old["evaluation"]["test"]["face_focus"] = focus
    assert not {"window_span_sec", "drawn", "prepared_with"} & set(old["data"]) and "map_size" not in focus
    assert "started_from_data" not in old
    found = assert_read_and_written(old, tmp_path)
    assert found.data.drawn is found.data.window_span_sec is found.data.prepared_with is None
    assert found.started_from_data is None and not found.is_trained_on_drawn
    assert found.measurements[0].evaluation.face_focus == FOCUS and not FOCUS.is_coarse


def test_without_a_validation_split_nothing_was_chosen(tmp_path: Path):
    old = version_2()
    del old["evaluation"]["test"]["calibration"]["temperature"], old["evaluation"]["test"]["calibration"]["scaled"]
    old["evaluation"]["test"]["decision"] = None
    evaluation = assert_read_and_written(old, tmp_path).measurements[0].evaluation
    assert evaluation.decision is evaluation.calibration.scaled is None


# --- Version 3, written and read


def test_what_is_written_is_read(tmp_path: Path):
    told = results().with_measurement(measurement("validation", described(OTHER)))
    told = told.model_copy(
        update={"imported": ImportedFrom(source="a", system="b", num_weights=1, num_encoder_weights=1)}
    )
    write_results(tmp_path, told)
    assert read_results(tmp_path) == told
    before = (tmp_path / "results.json").read_bytes()
    write_results(tmp_path, read_results(tmp_path))
    assert (tmp_path / "results.json").read_bytes() == before


def test_the_same_data_and_split_takes_its_place_and_others_are_added():
    first, other = measurement(), measurement(data=described(OTHER))
    told = results().with_measurement(other).with_measurement(measurement("validation"))
    assert [(found.split, found.data.fingerprint) for found in told.measurements] == [
        ("test", OWN), ("test", OTHER), ("validation", OWN),
    ]  # fmt: skip
    again = measurement(seed=4)
    assert again.evaluation != first.evaluation
    assert told.with_measurement(again).measurements == [again, *told.measurements[1:]]
    other_labels = described().model_copy(update={"label_scheme": "levels"})
    assert len(told.with_measurement(measurement(data=other_labels)).measurements) == 4
    assert told.measured_on("train") is None
    for order in (told.measurements, told.measurements[::-1]):  # the model's own data speaks for it
        assert told.model_copy(update={"measurements": order}).measured_on("test").data.fingerprint == OWN


def test_a_model_of_nobody_s_data_is_spoken_for_by_what_was_measured_first():
    imported = results().model_copy(update={"data": None, "measurements": []})
    for data in (OTHER, OWN):
        imported = imported.with_measurement(measurement(data=described(data)))
    assert imported.measured_on("test").data.fingerprint == OTHER


def test_keys_that_may_be_null_or_missing_are_read(tmp_path: Path):
    told = {**version_3(), "seed": None, "environment": None}
    del told["imported"], told["train_label_counts"]
    put(tmp_path, told)
    assert read_results(tmp_path).seed is None


# --- Files that somebody edited

GONE = object()
Mistake = tuple[str, object, str]  # a key such as `measurements.0.split`, what is put there, and what is said of it


def shown(key: str) -> str:
    return re.sub(r"\.(\d+)", r"[\1]", key)


def missing(key: str) -> Mistake:
    return key, GONE, f"no {shown(key)}"


def unknown(key: str) -> Mistake:
    return key, 1, f"an unknown key {shown(key)}"


def wrong(key: str, value: object) -> Mistake:
    return key, value, f"{json.dumps(value)} as {shown(key)} ("


def labels(key: str, value: dict | list, got: str) -> Mistake:
    return key, value, f"{got} as {shown(key)}, wh"


def make(mistake: Mistake, content: dict) -> None:
    *parents, last = (int(part) if part.isdigit() else part for part in mistake[0].split("."))
    for parent in parents:
        content = content[parent]
    content[last] = mistake[1]
    if mistake[1] is GONE:
        del content[last]


SCORES, TWINLESS = "measurements.0.evaluation.scores", "measurements.0.without_duplicates.scores"
MISTAKES_3 = [
    missing("stage"),
    missing("version"),
    missing(f"{SCORES}.macro_f1"),
    missing("measurements.0.evaluation.groups.hair.dark.num_people"),
    unknown("notes"),
    unknown(f"{SCORES}.f2"),
    wrong("version", 1),
    wrong("version", 99),
    wrong("seed", "0"),
    wrong("label_names", "engaged"),
    wrong("data", []),
    wrong("data.fingerprint", None),
    wrong("data.audit.passed", "yes"),
    wrong("training.seconds", float("inf")),
    wrong(f"{SCORES}.macro_f1", float("nan")),
    wrong(f"{SCORES}.accuracy", 1.7),
    wrong(f"{SCORES}.num_examples", -1),
    wrong(f"{SCORES}.confusion_matrix.0.1", "3"),
    wrong("measurements.0.evaluation.decision.temperature", 0),
    wrong("measurements.0.evaluation.intervals.resampled", "persons"),
    ("measurements.0.evaluation.groups.hair.dark.suppressed", 3, "as measurements[0].evaluation.groups.hair.dark ("),
    labels("train_label_counts", {"engaged": 1}, "engaged"),
    labels(f"{SCORES}.per_class", {}, "none"),
    labels(f"{SCORES}.confusion_matrix", [[1]], "1 rows"),
    labels(f"{TWINLESS}.confusion_matrix", [[1, 2], [3]], "2 rows"),
    labels("measurements.0.evaluation.decision.offsets", {"engaged": 0.1}, "engaged"),
    ("label_names", ["low", "high"], "disengaged, engaged as train_label_counts, where the labels are low, high"),
    ("label_names", [*NAMES, "asleep"], "2 rows as measurements[0].evaluation.scores.confusion_matrix"),
]
MISTAKES_2 = [
    missing("stage"),
    missing("label_names"),
    missing("evaluation.test.scores.macro_f1"),
    missing("evaluation.test.decision.test"),
    unknown("evaluation.test.scores.f2"),
    wrong("evaluation", []),
    wrong("evaluation.test.scores.accuracy", 1.7),
    wrong("evaluation.test.calibration.temperature", -1.0),
    wrong("evaluation.test.decision.test.fitted.mae", -1),
    wrong("environment.torch_threads", "four"),
    wrong("data.prepared_with.face_crop_size_px", -1),
    ("evaluated_on", {"test": {"source": "others"}}, "no evaluated_on.test.fingerprint"),
    ("evaluated_on", {"test": {"fingerprint": "", "environment": {"av": 3}}}, "3 as evaluated_on.test.environment.av"),
    ("imported", {}, "no imported.from"),
    ("imported", {**IMPORTED, "from": 3}, "3 as imported.from"),
    ("imported", {**IMPORTED, "frames": {"num_frames": 8}}, "no imported.frames.sampling"),
    ("imported", {**IMPORTED, "frames": SIZELESS}, "no imported.frames.face_crop_size_px"),
    ("evaluation.test.calibration.temperature", GONE, "without calibration.temperature"),
    ("data", None, "no data for evaluation.test"),
    ("label_names", ["low", "high"], "disengaged, engaged as train_label_counts"),
    labels("evaluation.test.scores.confusion_matrix", [[1, 2]], "1 rows"),
    labels("evaluation.test_without_duplicates.scores.per_class", {}, "none"),
]
TEXTS = {
    "empty": ("", "no JSON"),
    "cut off": ('{"version": 3, "stage": ', "no JSON"),
    "a list": ("[]", "[] as its content"),
    "version 2 alone": ('{"version": 2}', "no stage"),
}


def assert_refused(folder: Path, content: object, told: str) -> None:
    path = put(folder, content)
    with pytest.raises(ModelLoadError) as refusal:
        read_results(folder)
    message = str(refusal.value)
    assert "\n" not in message and message.startswith(f"Expected measured results in {path}, got ")
    assert told in message
    assert "evaluate the model again" in message


@pytest.mark.parametrize("mistake", MISTAKES_3, ids=lambda mistake: mistake[2])
def test_a_mistake_in_version_3_is_one_line_that_names_the_key(mistake: Mistake, tmp_path: Path):
    content = version_3()
    make(mistake, content)
    assert_refused(tmp_path, content, mistake[2])


@pytest.mark.parametrize("mistake", MISTAKES_2, ids=lambda mistake: mistake[2])
def test_a_mistake_in_version_2_is_named_by_the_key_of_that_file(mistake: Mistake, tmp_path: Path):
    content = version_2()
    make(mistake, content)
    assert_refused(tmp_path, content, mistake[2])


def test_a_misspelt_key_is_missing(tmp_path: Path):
    content = version_3()
    content["label_name"] = content.pop("label_names")
    assert_refused(tmp_path, content, "no label_names (and 1 more)")


@pytest.mark.parametrize(("text", "told"), TEXTS.values(), ids=TEXTS)
def test_what_is_no_results_file_is_one_line(text: str, told: str, tmp_path: Path):
    assert_refused(tmp_path, text, told)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path):
    for _ in range(2):
        with pytest.raises(ModelLoadError, match=r"results\.json, got none .*check the path") as refusal:
            read_results(tmp_path)
        assert "\n" not in str(refusal.value)
        (tmp_path / "results.json").write_bytes(b"\xff\xfe\x00")
