"""Model folders: code in them never runs, and broken ones are one line, told before memory is asked for."""

import io
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from bench import Bench, Said, face_frames, write_film
from broken_models import (
    CONFIG,
    HOSTILE,
    PROCESSOR,
    WEIGHTS,
    Change,
    clips_model,
    edited,
    faces_model,
    first_weight,
    hostile_folder,
    pickled,
    removed,
    replaced,
    was_run,
    weights,
)
from PIL import Image
from rows import Comes, Refused, Row

from engagement_recognition.inference.predictor import Predictor

_NAN, _INF = float("nan"), float("inf")


def picture(folder: Path) -> Path:
    path = folder / "face.png"
    Image.fromarray(face_frames()[0]).save(path)
    return path


def answering_yes(bench: Bench, *arguments: object) -> Said:
    """A command, with somebody at the keyboard who says yes to everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
        return bench.command(*arguments)


def _never_runs(arguments: Callable[[Path], tuple[object, ...]], bench: Bench, model: Path) -> Said:
    said = answering_yes(bench, *arguments(model))
    assert not was_run(model.parent)
    assert "[y/N]" not in said.text and "trust_remote_code" not in said.text
    return said


_PREDICT = lambda model: ("predict", picture(model.parent), "--model", model, "--device", "cpu")  # noqa: E731
# Every command that takes a model, or what a training starts from.
_COMMANDS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "session": lambda model: (
        "session", write_film(model.parent / "a.mp4"), "--model", model, "--output", model.parent / "out"
    ),
    "explain": lambda model: ("explain", picture(model.parent), "--model", model, "--output", model.parent / "why.png"),
    "live": lambda model: (
        "live", "--model", model, "--source", write_film(model.parent / "a.mp4"), "--no-window", "--json"
    ),
    "app": lambda model: ("app", model),
    "evaluate": lambda model: ("evaluate", model, "--data", model.parent),
    "export stock": lambda model: ("export", model, "--to", "stock", "--output", model.parent / "out"),
    "export onnx": lambda model: ("export", model, "--to", "onnx", "--output", model.parent / "out.onnx"),
    "benchmark": lambda model: ("benchmark", "--model", model, "--rounds", 1, "--part", "warm"),
    "import-checkpoint": lambda model: ("import-checkpoint", model, "--output", model.parent / "out"),
    "publish": lambda model: ("publish", model, "--repo", "a/b", "--dry-run"),
    "train encoder": lambda model: ("train", "demo", "--encoder", model, "--output_dir", model.parent / "out"),
}  # fmt: skip

_HOSTILE_ROWS = [
    *(
        Row(
            f"code in a folder: {name}",
            partial(hostile_folder, name=name),
            partial(_never_runs, _PREDICT),
            Refused(("model",)),
            kind=36,
        )
        for name in HOSTILE
    ),
    *(
        Row(
            f"code in a folder, {command}",
            lambda folder: hostile_folder(folder, "an unknown type"),
            partial(_never_runs, arguments),
            Refused(()),
            kind=36,
        )
        for command, arguments in _COMMANDS.items()
    ),
    Row(
        "code in a folder, handed to from_encoder",
        lambda folder: hostile_folder(folder, "an unknown type"),
        lambda bench, model: _from_encoder(model),
        Comes(that=lambda said: "pretrained encoder" in said),
        kind=36,
    ),
]


def _from_encoder(model: Path) -> str:
    from engagement_recognition import EngagementForImageClassification

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
        with pytest.raises(OSError, match=r"config\.json and model\.safetensors") as caught:
            EngagementForImageClassification.from_encoder(model)
    assert not was_run(model.parent)
    return str(caught.value)


def _cut(to: Callable[[bytes], bytes]) -> Change:
    return lambda model: (model / WEIGHTS).write_bytes(to((model / WEIGHTS).read_bytes()))


def _vit(**sizes: object) -> Change:
    return edited(CONFIG, encoder_config={"model_type": "vit", **sizes})


# name: (what is changed, words of the line)
_BROKEN: dict[str, tuple[Change, tuple[str, ...]]] = {
    "pickled weights": (pickled, ("model.safetensors", "convert them to safetensors")),
    "no weights": (removed(WEIGHTS), ("model.safetensors",)),
    "labels as a list": (edited(CONFIG, id2label=["a", "b"]), ("id2label", "each index")),
    "labels with a hole": (edited(CONFIG, id2label={"0": "a", "2": "b"}), ("id2label", "each index")),
    "two labels of one name": (edited(CONFIG, id2label={"0": "a", "1": "a"}), ("id2label", "different names")),
    "fewer labels than weights": (edited(CONFIG, id2label={"0": "a", "1": "b"}), ("classifier", "(7,")),
    "an unknown timm name": (edited(CONFIG, "encoder_config", architecture="resnet_x"), ("resnet_x", "timm")),
    "a deep timm model": (edited(CONFIG, "encoder_config", model_args={"depth": 10**5}), ("depth", "1,000")),
    "a wide LSTM": (edited(CONFIG, temporal_hidden_size=10**6), ("temporal_hidden_size",)),
    "a large picture": (edited(CONFIG, image_size=10**6), ("image_size", "4,096")),
    "many frames": (edited(CONFIG, num_frames=10**9), ("num_frames",)),
    "a negative size": (edited(CONFIG, image_size=-44), ("image_size", "-44")),
    "a size as text": (edited(CONFIG, image_size="44"), ("image_size",)),
    "an encoder of 10^5 layers": (_vit(num_hidden_layers=10**5), ("num_hidden_layers",)),
    "an encoder of 40 terabytes": (
        _vit(hidden_size=10**6, num_hidden_layers=10),
        ("weights of 41,062,347,030,607 numbers", "1,176,367", "another model"),
    ),
    "an encoder that cannot be built": (_vit(patch_size=0), ("a model can be built from",)),
    "an encoder of text": (edited(CONFIG, encoder_config={"model_type": "bert"}), ("'bert'",)),
    "another encoder's weights": (edited(CONFIG, "encoder_config", architecture="face_vgg8"), ("shape", "config")),
    "weights cut short": (_cut(lambda file: file[: len(file) // 2]), ("model.safetensors", "copy the file again")),
    "a head that lies": (_cut(lambda file: struct.pack("<Q", 2**62) + file[8:]), ("model.safetensors", "header")),
    "an empty weights file": (_cut(lambda file: b""), ("model.safetensors",)),
    "weights of other shapes": (
        weights(lambda of: of.update({name: weight[:1] for name, weight in of.items() if weight.ndim > 1})),
        ("shape",),
    ),
    "whole numbers as weights": (
        weights(lambda of: of.update({name: weight.to(torch.int64) for name, weight in of.items()})), ("I64",)
    ),
    "nan as a weight": (weights(lambda of: first_weight(of).fill_(_NAN)), ("nan or infinity",)),
    "no JSON": (replaced(CONFIG, "{"), ("config.json",)),
    "a list as config": (replaced(CONFIG, "[]"), ("config.json",)),
    "an empty config": (replaced(CONFIG, ""), ("config.json",)),
    "a config in UTF-16": (replaced(CONFIG, "{}".encode("utf-16")), ("config.json",)),
    "a config without end": (replaced(CONFIG, "[" * 100_000), ("config.json",)),
    "no processor": (removed(PROCESSOR), ("model",)),
    "another processor": (edited(PROCESSOR, image_processor_type="ViTImageProcessor"), ("ViTImageProcessor",)),
    "a processor of other channels": (replaced(PROCESSOR, "{}"), ("channels",)),
    "an answer rule in pieces": (edited("answer_rule.json", clip_sec=1e-9), ("answer_rule.json", "clip_sec")),
}  # fmt: skip

# What of a processor's settings would make every score nan, or none.
_SETTINGS: dict[str, dict[str, object]] = {
    "a deviation of zero": {"image_std": [0.0]},
    "a deviation of nan": {"image_std": [_NAN]},
    "too many deviations": {"image_std": [0.2, 0.2, 0.2, 0.2]},
    "a mean of nan": {"image_mean": [_NAN]},
    "a mean as text": {"image_mean": "0.5"},
    "a factor of zero": {"rescale_factor": 0},
    "an infinite factor": {"rescale_factor": _INF},
    "a size of zero": {"size": {"height": 0, "width": 44}},
    "a negative side": {"size": {"height": 44, "width": -44}},
    "sides as text": {"size": {"height": "44", "width": "44"}},
    "a margin of nan": {"face_margin_ratio": _NAN},
    "a margin of -1": {"face_margin_ratio": -1},
    "a crop of zero": {"face_crop_size_px": 0},
    "a norm of infinity": {"picture_norm": _INF},
}


def _predicts_nothing(bench: Bench, model: Path) -> Said:
    said = bench.command(*_PREDICT(model))
    assert "nan" not in said.out
    return said


def _nan_scores(folder: Path) -> Predictor:
    """Broken only after it was loaded, which no look at the files can tell."""
    predictor = Predictor.from_pretrained(str(clips_model(folder)), device="cpu")
    torch.nn.init.constant_(predictor.model.classifier.bias, _NAN)
    return predictor


def _changed(folder: Path, change: Change) -> Path:
    return faces_model(folder, change)


ROWS = [
    *_HOSTILE_ROWS,
    *(
        Row(f"a model folder, {name}", partial(_changed, change=change), _predicts_nothing, Refused(words), kind=31)
        for name, (change, words) in _BROKEN.items()
    ),
    *(
        Row(
            f"a processor, {name}",
            partial(_changed, change=edited(PROCESSOR, **settings)),
            _predicts_nothing,
            Refused((next(iter(settings)), "config of")),
            kind=9,
        )
        for name, settings in _SETTINGS.items()
    ),
    Row(
        "no frames, in a clip's processor",
        lambda folder: clips_model(folder, edited("video_preprocessor_config.json", num_frames=0)),
        lambda bench, model: bench.command("predict", write_film(model.parent / "a.mp4"), "--model", model),
        Refused(("num_frames", "config of")),
        kind=9,
    ),
    Row(
        "a variance below zero",
        lambda folder: faces_model(
            folder, weights(lambda of: [of[name].fill_(-1) for name in of if name.endswith("running_var")])
        ),
        _predicts_nothing,
        Refused(("nan or infinity",)),
        kind=9,
    ),
    Row(
        "scores that become nan later",
        _nan_scores,
        lambda bench, predictor: predictor.score_clips([predictor.video_processor.prepare_clip(list(face_frames()))]),
        Refused(("nan or infinity",)),
        kind=9,
    ),
    Row(
        "a folder as it was written",
        clips_model,
        lambda bench, model: answering_yes(bench, "predict", write_film(model.parent / "a.mp4"), "--model", model),
        Comes(says=("a.mp4: ",)),
        kind=36,
    ),
    Row(
        "weights of half the bits",
        lambda folder: faces_model(
            folder, weights(lambda of: of.update({k: v.half() for k, v in of.items() if v.is_floating_point()}))
        ),
        lambda bench, model: bench.command(*_PREDICT(model)),
        Comes(says=("face.png: 1 face",)),
        kind=31,
    ),
]
