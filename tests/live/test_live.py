"""A live picture: everybody keeps their number, what is served is what was trained, and doubt is said, not hidden."""

import gc
import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
import torch
from conftest import TrainedStages
from tiny_models import tiny_model

from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.data.drawn.faces import (
    AffectLevels,
    FacePose,
    Person,
    draw_frame,
    draw_people,
    draw_subject,
    engagement_trajectory,
)
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.live.engine import LiveEngagement, PersonState, run_live, to_json_line
from engagement_recognition.live.settings import LiveSettings
from engagement_recognition.live.sources import open_source
from engagement_recognition.processor.image_processing_engagement import EngagementImageProcessor
from engagement_recognition.processor.input_errors import EngagementInputError
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor

WIDTH_PX, HEIGHT_PX = 320, 240
EMPTY_ROOM = np.full((HEIGHT_PX, WIDTH_PX, 3), 90, np.uint8)


def person_frame(roll_deg: float = 0.0, seed: int = 1) -> np.ndarray:
    return draw_frame(draw_subject(seed), FacePose(roll_deg=roll_deg), WIDTH_PX, HEIGHT_PX)


@pytest.fixture(scope="module")
def clip_model(trained: TrainedStages) -> Predictor:
    """Reads four frames together."""
    return Predictor.from_pretrained(str(trained.engagement))


@pytest.fixture(scope="module")
def face_model(trained: TrainedStages) -> Predictor:
    """Reads one face: seven expressions."""
    return Predictor.from_pretrained(str(trained.expression))


def whole_frame_model() -> Predictor:
    torch.manual_seed(0)
    size = {"height": 32, "width": 32}
    processor = EngagementVideoProcessor(size=size, face_crop=False, face_crop_size_px=32, num_frames=2)
    return Predictor(tiny_model("resnet", num_labels=2), processor)


# --- What is served is what was trained


def test_a_clip_model_says_live_what_it_says_of_the_file(trained: TrainedStages, tmp_path: Path):
    clip_model = Predictor.from_pretrained(str(trained.engagement))
    clip_model.model.classifier.weight.data *= 100  # so far from a draw that another frame or crop would show
    clip_model.rule = replace(clip_model.rule, clip_sec=4.0)
    path = tmp_path / "four seconds.mp4"
    encode_video(path, (person_frame(roll) for roll in range(-8, 8)), 4, WIDTH_PX, HEIGHT_PX, "mp4")
    results = []
    # Faces are looked for in every frame of a window, however seldom otherwise.
    settings = LiveSettings(detect_every_sec=9.0, smoothing_alpha=1.0, abstain_below=0.0)
    run_live(open_source(path), LiveEngagement(clip_model, settings), results.append)
    # Of 16 frames the clip's four are 2, 6, 10 and 14: with the last of them the window is the clip.
    states = [state for result in results for state in result.states]
    collecting = [f"collecting {num_frames} of 4 frames" for num_frames in (1, 1, 2, 2, 3, 3)]
    assert [state.status for state in states[:14:2]] == [*collecting, None]
    assert len(states) == 16 and {state.number for state in states} == {1}
    of_the_file = clip_model.predict_video(path)
    assert states[14].label == of_the_file.label

    def distance(state: PersonState) -> float:
        return abs(log_odds(state.scores) - log_odds(of_the_file.scores))

    assert distance(states[14]) < 2e-3, "boxes found one by one differ by hundredths of a pixel"
    assert distance(states[12]) > 10 * distance(states[14]), "else any four frames would do"


def log_odds(scores: dict[str, float]) -> float:
    return math.log(scores["engaged"] / scores["disengaged"])


def test_a_single_face_model_predicts_every_step(face_model: Predictor):
    live = LiveEngagement(face_model, LiveSettings(smoothing_alpha=1.0, abstain_below=0.0))
    frames = [person_frame(roll) for roll in (0, 5, 10)]
    states = [live.step(frame, time_sec)[0] for frame, time_sec in zip(frames, (0.0, 0.1, 0.2), strict=True)]
    assert len({tuple(state.scores.values()) for state in states}) == 3
    for state, frame in ((states[0], frames[0]), (states[2], frames[2])):  # in between, nobody is looked for
        clip = face_model.video_processor.prepare_clip(frame[None], num_frames=1)
        logits = face_model.model(face_model.video_processor.to_pixel_values(clip.frames)).logits
        assert list(state.scores.values()) == pytest.approx(logits.softmax(1)[0].tolist(), abs=1e-4)
        assert state.box_xyxy_px == pytest.approx(clip.boxes_xyxy_px[0].tolist(), abs=0.2)


def test_a_whole_frame_model_has_one_state_for_the_picture():
    predictor = whole_frame_model()
    live = LiveEngagement(predictor, LiveSettings(window_sec=2.0, smoothing_alpha=1.0, abstain_below=0.0))
    first, *_, last = (live.step(person_frame(time_sec), time_sec) for time_sec in (0.0, 0.5, 1.0))
    assert [(state.number, state.box_xyxy_px, state.status) for state in first] == [
        (None, None, "collecting 1 of 2 frames")
    ]
    pixel_values = predictor.processor(np.stack([person_frame(0.0), person_frame(1.0)]))["pixel_values"]
    expected = predictor.model(pixel_values).logits.softmax(1)[0].tolist()
    assert list(last[0].scores.values()) == pytest.approx(expected, abs=1e-5)


def test_neighbouring_frames_are_a_thirtieth_of_a_second_apart():
    predictor = whole_frame_model()
    predictor.video_processor.sampling = "consecutive"
    live = LiveEngagement(predictor, LiveSettings(abstain_below=0.0))
    first, second = (live.step(EMPTY_ROOM, number / 30)[0] for number in range(2))
    assert (first.status, second.status) == ("collecting 1 of 2 frames", None)


# --- What is said when there is nothing to say


def test_a_face_that_goes_is_missed_and_keeps_its_number(face_model: Predictor):
    live = LiveEngagement(face_model, LiveSettings(keep_lost_sec=2.0))
    for time_sec in (0.0, 0.2):
        (before,) = live.step(person_frame(), time_sec)
    (slip,) = live.step(EMPTY_ROOM, 0.4)
    assert (slip.found, slip.scores, slip.label) == (False, before.scores, before.label), "a slip of the detector"
    assert before.box_xyxy_px and slip.box_xyxy_px is None, "a box without a face goes at once"
    (missing,) = live.step(EMPTY_ROOM, 1.4)
    assert (missing.number, missing.label, missing.scores, missing.status) == (1, None, None, "no face for 1.2 s")
    (back,) = live.step(person_frame(), 1.8)
    assert (back.number, back.found) == (1, True) and back.scores is not None
    for time_sec in (2.6, 3.4):
        live.step(EMPTY_ROOM, time_sec)
    assert live.step(EMPTY_ROOM, 4.0) == []
    assert live.step(person_frame(), 4.2) == [], "who has just come is nobody yet"
    for time_sec in np.arange(4.4, 5.3, 0.2):
        other = live.step(person_frame(), time_sec)
    assert other[0].number == 2, "numbers are never given twice"


def test_what_nobody_looked_at_is_neither_a_window_nor_an_absence(clip_model: Predictor):
    live = LiveEngagement(clip_model, LiveSettings(window_sec=4.0, abstain_below=0.0, min_seen_sec=0.0))
    live.step(EMPTY_ROOM, 0.0)
    (new,) = live.step(person_frame(), 12.0)
    assert new.status == "collecting 1 of 4 frames", "one frame is no window, however long nobody looked"
    for time_sec in np.arange(12.5, 17.0, 0.5):
        (state,) = live.step(person_frame(), time_sec)
    assert state.label is not None
    (after,) = live.step(person_frame(), 40.0)  # the machine slept
    assert (after.number, after.label) == (1, None) and after.status.startswith("collecting")
    said = [live.step(person_frame(), time_sec)[0].status for time_sec in np.arange(40.5, 44.5, 0.5)]
    waits = said[: said.index(None)]
    assert waits == sorted(waits) and set(said[len(waits) :]) == {None}, "a count that never falls, then labels"


def test_small_faces_and_doubt_give_no_label(face_model: Predictor):
    far = draw_people([Person(draw_subject(1), FacePose(), (320, 220), 32)])
    (state,) = LiveEngagement(face_model).step(far, 0.0)
    assert (state.label, state.scores, state.status, state.found) == (None, None, "face too small", True)
    (state,) = LiveEngagement(face_model, LiveSettings(abstain_below=1.0)).step(person_frame(), 0.0)
    assert (state.label, state.status) == (None, "uncertain") and sum(state.scores.values()) == pytest.approx(1)
    assert LiveEngagement(face_model).step(EMPTY_ROOM, 0.0) == []


@pytest.mark.parametrize(("top_score", "label"), [(0.30, None), (0.33, "fear")])
def test_by_default_doubt_begins_a_fifth_above_chance(top_score: float, label: str | None, trained: TrainedStages):
    model = Predictor.from_pretrained(str(trained.expression))  # of seven classes: 0.314
    rest = (1 - top_score) / 6
    with torch.no_grad():
        model.model.classifier.weight.zero_()
        model.model.classifier.bias.copy_(torch.tensor([rest, rest, top_score, rest, rest, rest, rest]).log())
    (state,) = LiveEngagement(model).step(person_frame(), 0.0)
    assert state.label == label and state.scores["fear"] == pytest.approx(top_score)


def test_a_window_with_little_of_the_face_is_collected_anew(clip_model: Predictor):
    live = LiveEngagement(clip_model, LiveSettings(window_sec=2.0, abstain_below=0.0, detect_every_sec=0.5))
    shown = [True] * 4 + [False] * 3 + [True] * 2
    states = [live.step(person_frame() if here else EMPTY_ROOM, i / 2)[0] for i, here in enumerate(shown)]
    assert [state.status for state in states[2:4]] == ["collecting 3 of 4 frames", None]
    assert states[6].status == "no face for 1.5 s"
    assert [state.status for state in states[7:]] == ["collecting 1 of 4 frames", None], "half of it is enough"
    assert {state.number for state in states} == {1}


@pytest.mark.slow
def test_smoothing_steadies_the_labels():
    torch.manual_seed(0)
    predictor = Predictor(
        tiny_model("resnet", "image", num_labels=2), EngagementImageProcessor(size={"height": 32, "width": 32})
    )
    lively = engagement_trajectory(AffectLevels(2, 1, 0, 0), "appearance", 5.0, 5, np.random.default_rng(0))
    frames = [draw_frame(draw_subject(1), pose, WIDTH_PX, HEIGHT_PX) for pose in lively]
    classifier = predictor.model.classifier
    with torch.no_grad():  # a model in two minds about these faces
        classifier.weight *= 100
        classifier.bias -= predictor.model(**predictor.processor(frames)).logits.mean(dim=0)

    def watch_face(alpha: float) -> list[PersonState]:
        live = LiveEngagement(predictor, LiveSettings(smoothing_alpha=alpha, abstain_below=0.0))
        return [live.step(frame, index / 5)[0] for index, frame in enumerate(frames)]

    raw, smoothed = watch_face(1.0), watch_face(0.3)
    assert num_changes(smoothed) < num_changes(raw)
    shown = raw[0].scores["LABEL_0"]
    for newest, state in zip(raw[1:], smoothed[1:], strict=True):
        shown = 0.3 * newest.scores["LABEL_0"] + 0.7 * shown
        assert state.scores["LABEL_0"] == pytest.approx(shown, abs=1e-5)


def num_changes(states: list[PersonState]) -> int:
    return sum(before.label != after.label for before, after in pairwise(states))


def test_what_is_kept_does_not_grow(face_model: Predictor):
    live = LiveEngagement(whole_frame_model(), LiveSettings(window_sec=2.0))
    for_faces = LiveEngagement(face_model, LiveSettings(max_people=2, keep_lost_sec=0.5))

    ends = (type, FunctionType, ModuleType, Predictor, np.ndarray, torch.Tensor)

    def num_arrays() -> int:
        found, waiting = {}, [live, for_faces]
        while waiting:
            item = waiting.pop()
            if id(item) not in found:
                found[id(item)] = item
                waiting += gc.get_referents(item) if not isinstance(item, ends) else []
        return sum(isinstance(item, (np.ndarray, torch.Tensor)) for item in found.values())

    counts = []
    two = draw_people([Person(draw_subject(s), FacePose(), (x, 110), 70) for s, x in ((1, 80), (2, 240))], 320, 240)
    for round_number in range(3):
        for index in range(100):
            live.step(EMPTY_ROOM, round_number * 100 + index)
        for index, frame in enumerate([two, two, person_frame(), EMPTY_ROOM, EMPTY_ROOM, two]):
            for_faces.step(frame, round_number * 10 + index * 0.4)
        counts.append(num_arrays())
    assert counts[1] == counts[2] > 10


# --- Words and wrong use


def test_a_json_line_is_one_line_of_plain_values():
    states = [
        PersonState(1, (1.0, 2.0, 3.0, 4.0), True, "engagé", {"engagé": 2 / 3, "x": 1 / 3}, None),
        PersonState(None, None, False, None, None, "uncertain"),
    ]
    line = to_json_line(1.23456, states)
    read = json.loads(line)
    assert "\n" not in line and read["time_sec"] == 1.235
    assert read["people"][0] == {
        "person": 1, "box_xyxy_px": [1, 2, 3, 4], "found": True, "label": "engagé",
        "scores": {"engagé": 0.6667, "x": 0.3333}, "status": None,
    }  # fmt: skip
    assert (read["people"][1]["person"], read["people"][1]["scores"]) == (None, None)


@pytest.mark.parametrize(
    "frame",
    [EMPTY_ROOM[None], EMPTY_ROOM / 255, EMPTY_ROOM[..., :1], EMPTY_ROOM[:0], [1]],
    ids=["batch", "float", "grey", "empty", "list"],
)
def test_what_is_no_frame_is_refused(frame: object):
    with pytest.raises(EngagementInputError, match=r"Expected a frame .* got "):
        LiveEngagement(whole_frame_model()).step(frame, 0.0)


@pytest.mark.parametrize("time_sec", [0.9, float("nan"), float("inf")])
def test_time_does_not_go_back(time_sec: float):
    live = LiveEngagement(whole_frame_model())
    live.step(EMPTY_ROOM, 1.0)
    live.step(EMPTY_ROOM, 1.0)
    with pytest.raises(EngagementInputError, match="must not decrease"):
        live.step(EMPTY_ROOM, time_sec)


@pytest.mark.parametrize(
    "setting",
    [
        {"smoothing_alpha": 0.0},
        {"smoothing_alpha": 1.5},
        {"window_sec": 0.0},
        {"window_sec": math.inf},
        {"keep_lost_sec": math.nan},
        {"abstain_below": -0.1},
        {"max_people": 0},
        {"min_seen_sec": -1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, float]):
    ((name, value),) = setting.items()
    with pytest.raises(EngagementInputError, match=rf"{name} .* \d.*{value}\b"):
        LiveSettings(**setting)
