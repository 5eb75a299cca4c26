"""Every program of docs/recipes.md runs exactly as it stands there, in a folder laid out as the page says."""

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from conftest import Command, prepare_found
from datasets import load_from_disk
from doc_pages import blocks
from page_inputs import write_video
from places import ROOT
from saved_models import needs_onnx
from tiny_models import tiny_model
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from engagement_recognition import (
    EngagementForVideoClassification,
    EngagementVideoProcessor,
    register_auto_classes,
)
from engagement_recognition.answer_rule import AnswerRule
from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_subject
from engagement_recognition.data.readers.sources import read_source
from engagement_recognition.data.schema import BINARY
from engagement_recognition.inference.predictor import Predictor

PAGE = ROOT / "docs/recipes.md"
NAMES = ("set_transform", "map", "lora", "neighbours", "scoring", "accelerate", "onnx", "gradio")
PROGRAMS = dict(zip(NAMES, blocks(PAGE, "python"), strict=True))
Namespace = dict[str, Any]  # whatever a program defines
RunProgram = Callable[..., Namespace]


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page says that there is, but for the export: six people, two clips of four frames each."""
    root = tmp_path_factory.mktemp("recipes")
    (root / "videos").mkdir()
    rows = [("path", "label", "subject_id", "split")]
    for seed, split in enumerate(("train", "train", "train", "train", "validation", "test"), start=1):
        for label, pose in (("engaged", FacePose()), ("disengaged", FacePose(eye_openness=0.2, pitch_deg=12))):
            video = root / f"videos/{seed}_{label}.mp4"
            write_video(video, [draw_frame(draw_subject(seed), replace(pose, yaw_deg=yaw)) for yaw in range(4)])
            rows.append((video.name, label, str(seed), split))
    with (root / "videos/clips.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    found = read_source("videos", root / "videos/clips.csv")
    prepare_found(found, root / "videos/clips.csv", root / "prepared", num_frames=4, face_crop_size_px=64)
    register_auto_classes()  # so that the folder is whole, with code
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(BINARY)), "label2id": {name: label for label, name in enumerate(BINARY)}}
    tiny_model("resnet", "lstm", num_frames=4, num_labels=2, **labels).save_pretrained(root / "model")
    size = {"height": 32, "width": 32}
    EngagementVideoProcessor(num_frames=4, size=size).save_pretrained(root / "model")
    AnswerRule(BINARY, temperature=0.5, trained_on="drawn people").save(root / "model")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(root / "encoder")
    ViTImageProcessor(size=size).save_pretrained(root / "encoder")
    return root


@pytest.fixture
def place(laid_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, of a test's own."""
    for name in ("prepared", "model", "encoder"):
        (tmp_path / name).symlink_to(laid_out / name)
    shutil.copytree(laid_out / "videos", tmp_path / "videos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


@pytest.fixture
def run_program(place: Path) -> RunProgram:
    """A program's name → what it defined."""

    def run(name: str, module: str = "__main__") -> Namespace:
        torch.manual_seed(0)  # the programs set no seed
        namespace: Namespace = {"__name__": module}
        exec(compile(PROGRAMS[name], f"{PAGE.name}: {name}", "exec"), namespace)
        return namespace

    return run


def assert_answers(folder: Path, video: Path) -> torch.Tensor:
    """The folder is a whole model: it gives logits of a video."""
    model = EngagementForVideoClassification.from_pretrained(folder).eval()
    processor = EngagementVideoProcessor.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**processor(video)).logits
    assert logits.shape == (1, 2) and torch.isfinite(logits).all()
    return logits


def videos_of(place: Path) -> list[Path]:
    return sorted((place / "videos").glob("*.mp4"))


def test_programs_are_short_and_each_says_what_for_and_what_it_prints():
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    assert len(sections) == len(PROGRAMS) == 8
    for section, program in zip(sections, PROGRAMS.values(), strict=True):
        said = " ".join(section.partition("```")[0].split("\n")[1:])
        assert "For " in said and re.search(r"\b(program|It) prints", said), said
        assert len([line for line in program.splitlines() if line.strip()]) <= 35, section[:40]


def test_stock_trainer_on_prepared_data(run_program: RunProgram, place: Path, capsys: pytest.CaptureFixture):
    run_program("set_transform")
    assert "'eval_loss'" in capsys.readouterr().out
    tuned, before = (assert_answers(place / name, videos_of(place)[0]) for name in ("tuned", "model"))
    assert not torch.equal(tuned, before)  # it learned something


def test_what_is_trained_on_prepared_crops_is_what_the_video_itself_gives(run_program: RunProgram, place: Path):
    # The crops were resampled twice and stored as JPEG: near, and not the same.
    defined = run_program("set_transform")
    row = load_from_disk("prepared")["train"][0]
    prepared = defined["to_batch"]({"frames": [row["frames"]], "label": [row["label"]]})["pixel_values"]
    direct = defined["processor"](place / "videos" / row["source_path"])["pixel_values"]
    assert prepared.shape == direct.shape and (prepared - direct).abs().mean() < 0.05


def test_stock_trainer_on_video_paths(run_program: RunProgram, place: Path, capsys: pytest.CaptureFixture):
    defined = run_program("map")
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1
    assert len(defined["data"]["test"]) == 2 and defined["model"].config.label_names == ["disengaged", "engaged"]
    assert_answers(place / "from_paths", videos_of(place)[0])


def test_lora_trains_little_and_leaves_a_plain_model(
    run_program: RunProgram, place: Path, capsys: pytest.CaptureFixture
):
    pytest.importorskip("peft")
    run_program("lora")
    assert "trainable params" in capsys.readouterr().out
    torch.manual_seed(0)  # as before the program, whose first random numbers are the model's
    first = EngagementForVideoClassification.from_encoder("encoder")
    merged = EngagementForVideoClassification.from_pretrained("lora")
    before, after = first.encoder.state_dict(), merged.encoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("q_proj" in name or "v_proj" in name for name in changed)
    assert not torch.equal(merged.classifier.weight, first.classifier.weight)
    assert not torch.equal(merged.temporal.weight_hh_l0, first.temporal.weight_hh_l0)
    assert_answers(place / "lora", videos_of(place)[0])


def test_nearest_neighbours(run_program: RunProgram, place: Path, capsys: pytest.CaptureFixture):
    first = videos_of(place)[0]
    shutil.copyfile(first, place / "videos/0_twin.mp4")
    run_program("neighbours")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] in (f"0_twin.mp4: {first.name} at {sign}0.000" for sign in ("", "-"))
    assert [line.partition(":")[0] for line in lines] == [video.name for video in videos_of(place)]


def test_scores_of_a_folder(run_program: RunProgram, place: Path, capsys: pytest.CaptureFixture):
    whole = videos_of(place)
    (place / "videos/broken.mp4").write_bytes(b"no video")
    run_program("scoring")
    assert "broken.mp4" in capsys.readouterr().out.splitlines()[0]
    with (place / "scores.csv").open(encoding="utf-8", newline="") as file:
        table = {row.pop("path"): {name: float(score) for name, score in row.items()} for row in csv.DictReader(file)}
    assert list(table) == [video.name for video in whole]  # more than one batch of them
    expected = Predictor.from_pretrained("model").predict_video(whole[-1]).scores
    assert table[whole[-1].name] == pytest.approx(expected, abs=1e-3)


def test_an_accelerate_loop(run_program: RunProgram, place: Path, capsys: pytest.CaptureFixture):
    run_program("accelerate")
    assert [line[:7] for line in capsys.readouterr().out.splitlines()] == ["epoch 0", "epoch 1"]
    shutil.copyfile(place / "model/video_preprocessor_config.json", place / "looped/video_preprocessor_config.json")
    looped, before = (assert_answers(place / name, videos_of(place)[0]) for name in ("looped", "model"))
    assert not torch.equal(looped, before)


@pytest.mark.slow  # the export alone takes 5 s
@needs_onnx
def test_onnx_runtime_from_an_export(
    run_program: RunProgram, engagement: Command, place: Path, capfd: pytest.CaptureFixture
):
    (command,) = [line for line in next(blocks(PAGE, "bash")).splitlines() if line.startswith("engagement export")]
    code, _, said = engagement(*command.split()[1:])
    assert code == 0, said
    defined = run_program("onnx")
    *others, last = videos_of(place)
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [video.name for video in (*others, last)]
    np.testing.assert_allclose(defined["logits"], assert_answers(place / "model", last).numpy(), atol=1e-4)


def test_a_gradio_block(run_program: RunProgram, place: Path):
    gradio = pytest.importorskip("gradio")
    defined = run_program("gradio", module="page")  # imported, it serves nothing
    scores, said = defined["score"](str(videos_of(place)[0]))
    assert sum(scores.values()) == pytest.approx(1) and said.startswith(("apparent: ", "no label: "))
    assert [function.fn for function in defined["page"].fns.values()] == [defined["score"]]
    with pytest.raises(gradio.Error, match=r"clips\.csv"):
        defined["score"]("videos/clips.csv")
