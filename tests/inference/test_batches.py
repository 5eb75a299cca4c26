"""Clips of many files in one pass of the model, files read at once: the answers are those of one after the other."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil
import pytest
import torch
from conftest import Command
from kept_reader import one_reader
from numbered_videos import encode
from tiny_models import draw_pixels, tiny_model

from engagement_recognition import EngagementImageProcessor, EngagementVideoProcessor
from engagement_recognition.data import worker_processes
from engagement_recognition.inference.devices import choose_dtype
from engagement_recognition.inference.many_files import predict_many
from engagement_recognition.inference.predictions import Refusal, VideoPrediction
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.inference.reading_ahead import read_at_once
from engagement_recognition.inference.scoring import BatchDoesNotFitError, Batches
from engagement_recognition.processor import bounded_reader
from engagement_recognition.processor.face_preparation import PreparedClip
from engagement_recognition.processor.input_errors import ModelLoadError


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    for number in range(4):
        encode(folder / f"{number}.mp4", num_frames=8 + 4 * number, fps=4)
    (folder / "text.mp4").write_text("no film")
    return sorted(folder.iterdir())


def build(head: str = "lstm", **placed: object) -> Predictor:
    """Of whole frames: nobody looks for faces in films of numbers."""
    torch.manual_seed(0)
    model = tiny_model("resnet", head)
    if head == "image":
        processor = EngagementImageProcessor(size={"height": 32, "width": 32}, face_crop=False)
        processor.pictures_are_frames = True
    else:
        processor = EngagementVideoProcessor(size={"height": 32, "width": 32}, num_frames=2, face_crop=False)
    return Predictor(model, processor, device="cpu", **placed)


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "usable_cpus", lambda: 2)


def count_rows(predictor: Predictor) -> list[int]:
    """The rows of every pass that will be."""
    rows, logits = [], predictor.engine.logits

    def remember(pixel_values: np.ndarray) -> np.ndarray:
        rows.append(len(pixel_values))
        return logits(pixel_values)

    predictor.engine.logits = remember
    return rows


@pytest.mark.parametrize(
    ("head", "batch_size", "workers"), [("lstm", 3, 1), ("lstm", 3, 2), ("image", 16, 1), ("image", 4, 2)]
)
def test_answers_are_those_of_one_clip_at_a_time(
    head: str, batch_size: int, workers: int, films: list[Path], two_cpus: None
):
    predictor = build(head, batch_size=batch_size, workers=workers)
    rows = count_rows(predictor)
    with one_reader():
        expected = list(predict_many(build(head, batch_size=1), films, timeline_step_sec=1.0))
        found = list(predict_many(predictor, films, timeline_step_sec=1.0))
    assert [answer.source for answer in found] == [str(film) for film in films]
    assert isinstance(found[-1], Refusal) and found[-1] == expected[-1]
    for answer, other in zip(found[:-1], expected[:-1], strict=True):
        assert isinstance(answer, VideoPrediction) and answer.scores == pytest.approx(other.scores, abs=1e-5)
        assert len(answer.timeline) == len(other.timeline) > 1
        for span, other_span in zip(answer.timeline, other.timeline, strict=True):
            assert span.scores == pytest.approx(other_span.scores, abs=1e-5)
    assert max(rows) == batch_size and len(rows) == -(-sum(rows) // batch_size)  # none but the last is smaller


def test_clips_scored_together_and_alone_agree(films: list[Path]):
    predictor = build(batch_size=2)
    clips = [predictor.video_processor.prepare_clip(film) for film in films[:3]]
    rows = count_rows(predictor)
    together = predictor.score_clips(clips)
    assert rows == [2, 1] and together.shape == (3, 3)
    np.testing.assert_allclose(together, [predictor.score_clips([clip])[0] for clip in clips], atol=1e-6)


def test_a_slow_first_file_keeps_its_place_and_others_are_read_meanwhile(
    films: list[Path], two_cpus: None, monkeypatch: pytest.MonkeyPatch
):
    done, finish = [], EngagementVideoProcessor.finish_clip

    def slow_first(self: EngagementVideoProcessor, clip: PreparedClip) -> PreparedClip:
        name, until = Path(clip.source).name, time.monotonic() + 20
        while name == "0.mp4" and len(done) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        done.append(name)
        return finish(self, clip)

    monkeypatch.setattr(EngagementVideoProcessor, "finish_clip", slow_first)
    answers = list(predict_many(build(workers=2), films[:4]))
    assert [Path(answer.source).name for answer in answers] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert done[3] == "0.mp4"


def test_a_crash_costs_one_file_alone_and_no_process_is_left(
    films: list[Path], two_cpus: None, monkeypatch: pytest.MonkeyPatch
):
    write_message = bounded_reader.write_message

    def end_on_1(pipe: BinaryIO, head: dict[str, object], parts: Sequence[bytes] = ()) -> None:
        if str(head.get("path")).endswith("1.mp4"):
            pipe.write(b"\xff" * 4)  # no message: the process ends
            pipe.flush()
        else:
            write_message(pipe, head, parts)

    monkeypatch.setattr(bounded_reader, "write_message", end_on_1)
    before = set(psutil.Process().children())
    first, crashed, last = predict_many(build(workers=2), films[:3])
    assert isinstance(first, VideoPrediction) and isinstance(last, VideoPrediction)
    assert isinstance(crashed, Refusal) and "exit code" in crashed.error and "1.mp4" in crashed.error
    answers = predict_many(build(workers=2), films * 5)  # left in the middle
    next(answers)
    answers.close()
    assert set(psutil.Process().children()) <= before


def test_what_ends_a_film_in_the_middle_is_its_refusal(films: list[Path]):
    predictor = build(workers=1)

    def read(path: Path) -> object:
        reading = predictor.read(path, 1.0)
        return replace(reading, clips=broken(reading.clips)) if path.name == "1.mp4" else reading

    def broken(clips: Iterator[PreparedClip]) -> Iterator[PreparedClip]:
        yield next(clips)
        raise RuntimeError("no more")

    answers = predict_many(predictor, films[:3], reader=lambda paths: read_at_once(read, paths, 2))
    first, ended, last = answers
    assert isinstance(first, VideoPrediction) and isinstance(last, VideoPrediction)
    assert ended == Refusal(str(films[1]), f"{films[1]}: RuntimeError: no more", "RuntimeError")


def no_memory(most: int, error: Exception) -> object:
    """An engine's work that has room for so many rows."""

    def compute(rows: np.ndarray) -> np.ndarray:
        if len(rows) > most:
            raise error
        return rows * 2.0

    return compute


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "mps", "numpy"],
)
def test_a_batch_that_does_not_fit_is_halved_and_that_is_said_once(error: Exception, capsys: pytest.CaptureFixture):
    batches, rows = Batches(16, "cuda:0"), np.arange(40.0)[:, None]
    for _ in range(2):
        np.testing.assert_array_equal(batches.run(no_memory(5, error), rows), rows * 2)
    assert batches.size == 4
    (said,) = capsys.readouterr().err.splitlines()
    assert "batch of 16" in said and "memory: 4 " in said
    with pytest.raises(BatchDoesNotFitError, match="on cuda:0 even for one input"):
        batches.run(no_memory(0, error), rows)


def test_what_does_not_fit_alone_is_that_file_s_refusal(films: list[Path], monkeypatch: pytest.MonkeyPatch):
    predictor = build(batch_size=4)
    logits = predictor.engine.logits

    def refuse_third(pixel_values: np.ndarray) -> np.ndarray:
        if any(np.array_equal(row, third) for row in pixel_values):
            raise torch.OutOfMemoryError("out of memory")
        return logits(pixel_values)

    third = predictor.processor.to_pixel_values(predictor.video_processor.prepare_clip(films[2]).frames).numpy()
    monkeypatch.setattr(predictor.engine, "logits", refuse_third)
    answers = list(predict_many(predictor, films[:4]))
    assert [isinstance(answer, Refusal) for answer in answers] == [False, False, True, False]
    assert answers[2].kind == "BatchDoesNotFitError" and "\n" not in answers[2].error


def test_half_precision_is_taken_where_it_agrees():
    scores = np.array([[0.3, 0.7], [0.504, 0.496]])
    said = {
        "float32": scores,
        "bfloat16": np.array([[0.303, 0.697], [0.499, 0.501]]),  # near, but another label
        "float16": scores + 0.004 * np.array([1, -1]),
    }
    assert choose_dtype(["bfloat16", "float16"], said.__getitem__) == "float16"
    assert choose_dtype(["bfloat16"], said.__getitem__) == "float32"
    assert choose_dtype([], said.__getitem__) == "float32"

    def overflows(dtype: str) -> np.ndarray:
        if dtype != "float32":
            raise ModelLoadError("infinity")
        return scores

    assert choose_dtype(["float16"], overflows) == "float32"


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("head", ["lstm", "transformer", "image"])
def test_dtype_is_that_of_the_arithmetic_and_stands_in_the_answer(head: str, dtype: str):
    predictor, exact = build(head, dtype=dtype), build(head, dtype="float32")
    assert predictor.about["dtype"] == ("float32" if dtype == "auto" else dtype)
    pixel_values = draw_pixels(exact.model).numpy()
    difference = np.abs(predictor.engine.logits(pixel_values) - exact.engine.logits(pixel_values)).max()
    assert (difference == 0) == (predictor.about["dtype"] == "float32") and difference < 0.05
    assert {weight.dtype for weight in predictor.model.parameters()} == {torch.float32}


def test_options_that_a_command_cannot_honour_are_refused_by_name(engagement: Command, films: list[Path]):
    given = {
        "explain": [films[0], "--model", "m", "--output", "a.png"],
        "predict": [films[0], "--model", "m"],
        "live": ["--model", "m"],
    }
    for command, option, value, words in (
        ("explain", "--engine", "openvino", "use --engine torch"),
        ("explain", "--dtype", "bfloat16", "explain needs --dtype float32"),
        ("predict", "--dtype", "int8", "dtype int8 needs --engine onnxruntime or openvino"),
        ("predict", "--engine", "tensorrt", "torch, onnxruntime, openvino, got 'tensorrt'"),
        ("predict", "--batch-size", "0", "batch_size must be from 1 to 4096, got 0"),
        ("live", "--workers", "2", "No such option"),
    ):
        code, out, err = engagement(command, *given[command], option, value)
        assert (code, out) == (2, "") and words in err, (command, option)


def test_more_workers_than_processors_is_said(films: list[Path], two_cpus: None, capsys: pytest.CaptureFixture):
    assert len(list(predict_many(build(workers=5), films[:1]))) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("workers: 2 instead of 5")
