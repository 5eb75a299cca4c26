"""Face focus of a model over a data set: the mean of its clips, what is left out counted, and nobody named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import prepare_drawn
from person_videos import HEIGHT_PX, WIDTH_PX, write_video
from tiny_models import tiny_model

from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_people, draw_subject
from engagement_recognition.data.readers.sources import SourceOptions
from engagement_recognition.evaluation.focus_records import FaceFocusResults, FocusPeople
from engagement_recognition.explanation import data_set_focus
from engagement_recognition.explanation.data_set_focus import FocusClip, describe_focus, find_clips, measure_focus
from engagement_recognition.explanation.explain_files import explain_file
from engagement_recognition.explanation.face_focus import REGIONS
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.input_errors import DataError
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor

PEOPLE = [f"9000{number}" for number in range(11, 17)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[FocusClip]:
    """A clip of each of six people, then an empty room and a file that is no video, both of the first person."""
    folder = tmp_path_factory.mktemp("clips")
    frames = {who: [draw_frame(draw_subject(i), FacePose(yaw_deg=4.0 * turn), WIDTH_PX, HEIGHT_PX) for turn in (0, 1)]
              for i, who in enumerate(PEOPLE)}  # fmt: skip
    frames["empty"] = [draw_people([], WIDTH_PX, HEIGHT_PX, room_seed=3)] * 2
    for name, pictures in frames.items():
        write_video(folder / f"{name}.mp4", pictures, 2)
    (folder / "damaged.mp4").write_bytes(b"no video")
    return [FocusClip(name, name if name in PEOPLE else PEOPLE[0], folder / f"{name}.mp4")
            for name in (*frames, "damaged")]  # fmt: skip


def build_predictor(weight: float = 1.0, **settings: object) -> Predictor:
    """Always the first class, for which every activation speaks alike: there is heat wherever there are features."""
    torch.manual_seed(0)
    model = tiny_model("resnet18", "mean")
    with torch.no_grad():
        model.classifier.weight.zero_()[0] = weight
        model.classifier.bias.copy_(torch.tensor([100.0, 0.0, 0.0]))
    return Predictor(model, EngagementVideoProcessor(num_frames=2, size={"height": 64, "width": 64}, **settings))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return build_predictor(face_crop=False)


@pytest.fixture(scope="module")
def measured(predictor: Predictor, clips: list[FocusClip]) -> FaceFocusResults:
    return measure_focus(predictor, clips)


def test_the_mean_is_that_of_the_explained_clips(predictor, clips, measured):
    focuses = [explain_file(predictor, clip.source).clips[0].face.focus for clip in clips[: len(PEOPLE)]]
    for region in REGIONS:
        of_clips = [focus.clip[region] for focus in focuses]
        found = getattr(measured, region)
        assert found.mean == pytest.approx(np.mean([clip["heat_share"] for clip in of_clips]))
        assert found.chance == pytest.approx(np.mean([clip["area_share"] for clip in of_clips]))
        assert found.ratio == pytest.approx(found.mean / found.chance)
        assert found.lower < found.mean < found.upper


def test_what_says_nothing_is_counted_and_not_in_the_mean(measured):
    assert measured.num_clips == 8
    assert (measured.num_without_face, measured.num_without_heat, measured.num_unreadable) == (1, 0, 1)
    assert describe_focus(measured, "test").endswith("left out: 1 without face, 1 unreadable")


@pytest.mark.parametrize("side", [2, 4])
def test_the_terminal_says_when_maps_are_too_coarse(measured, side: int):
    said = describe_focus(measured.model_copy(update={"map_size": [side, side]}), "test")
    assert ("maps of 2×2 places are too coarse" in said) == ("coarse" in said) == (side == 2)


def test_people_are_not_named(measured):
    assert not any(who in measured.model_dump_json() for who in PEOPLE)
    assert measured.people.num_people == 6 and not measured.people.suppressed
    assert len(measured.people.lowest_means) == 5
    assert measured.people.lowest_means == sorted(measured.people.lowest_means)


def test_under_five_people_there_is_a_mean_and_nothing_of_persons(predictor, clips, monkeypatch):
    monkeypatch.setattr(data_set_focus, "CHECKED_CLIPS", 1)
    measured = measure_focus(predictor, clips[:3])
    assert measured.people == FocusPeople(suppressed=True, num_people=None, lowest_means=[])
    assert measured.face.mean is not None and measured.face.lower is None
    unknown = [FocusClip(clip.clip_id, None, clip.source) for clip in clips[:5]]
    assert measure_focus(predictor, unknown).people.suppressed


def test_maps_of_untrained_weights_are_the_check(measured):
    assert 3 <= measured.sanity.num_clips <= 5  # some draws show no heat
    assert -1 <= measured.sanity.randomised_rank_correlation < 0.9


def test_a_model_that_sees_nothing_has_no_focus(clips):
    measured = measure_focus(build_predictor(weight=0.0, face_crop=False), clips[:2])
    assert (measured.num_without_heat, measured.face.mean, measured.map_size) == (2, None, None)
    assert "unknown" in describe_focus(measured, "test")


def test_some_clips_are_drawn_by_the_seed(predictor, clips):
    some = [measure_focus(predictor, clips, num_clips=1, seed=seed) for seed in (1, 1, 2)]
    assert some[0].num_clips == 1 and some[0] == some[1]
    assert some[0].face != some[2].face


@pytest.mark.slow
def test_prepared_crops_say_what_the_files_say(drawn_daisee: Path, tmp_path: Path):
    prepare_drawn(drawn_daisee, tmp_path / "crops", num_frames=2)
    of_files, of_crops = (find_clips(data, "validation") for data in (drawn_daisee, tmp_path / "crops"))
    assert [clip.clip_id for clip in of_files] == [clip.clip_id for clip in of_crops]
    predictor = build_predictor()
    first, second = (measure_focus(predictor, clips).face for clips in (of_files, of_crops))
    # JPEG changes the pixels a little, and the face's place not at all.
    assert second.chance == pytest.approx(first.chance, abs=1e-3)
    assert second.mean == pytest.approx(first.mean, abs=0.03)


def test_where_no_face_can_be_known_focus_is_refused(drawn_daisee: Path, drawn_expressions: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"faces already.* not defined"):
        find_clips(drawn_expressions)
    prepare_drawn(drawn_expressions, tmp_path / "pictures")
    with pytest.raises(DataError, match="contains pictures"):
        find_clips(tmp_path / "pictures")
    prepare_drawn(drawn_daisee, tmp_path / "frames", num_frames=2, face_crop=False, face_crop_size_px=32)
    with pytest.raises(DataError, match=r"without detected faces.*pass the raw source"):
        find_clips(tmp_path / "frames")
    with pytest.raises(DataError, match="no split dev"):
        find_clips(tmp_path / "frames", "dev")


def test_a_raw_source_is_read_as_it_is_asked_for(tmp_path: Path):
    for place in (f"{label}/p{person}_{label}.mp4" for label in ("engaged", "disengaged") for person in range(20)):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    found = [find_clips(tmp_path, "test", "videos", SourceOptions(None, r"p\d+", seed)) for seed in (0, 0, 1)]
    people = [sorted(clip.subject_id for clip in clips) for clips in found]
    assert people[0] == people[1] != people[2] and set(people[0]) <= {f"p{person}" for person in range(20)}


def test_a_raw_split_without_clips_is_refused(predictor: Predictor, drawn_daisee: Path):
    with pytest.raises(DataError, match="no clips to explain"):
        measure_focus(predictor, find_clips(drawn_daisee, "dev"))
