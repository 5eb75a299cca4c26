"""What somebody writes who knows transformers' docs alone works here, or one line says why it does not."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TrainedStages
from huggingface_hub import ModelCard
from places import ROOT
from saved_models import needs_onnx, save_ours
from tiny_models import draw_pixels, tiny_model
from torch import nn
from torch.export import Dim
from transformers import AutoModel, AutoModelForImageClassification, AutoVideoProcessor, pipeline
from transformers.image_utils import ChannelDimension

from engagement_recognition import (
    EngagementFrameEncoder,
    EngagementImageProcessor,
    EngagementVideoProcessor,
    register_auto_classes,
)
from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_subject
from engagement_recognition.processor.call_settings import arguments_of
from engagement_recognition.processor.input_errors import EngagementInputError

register_auto_classes()
SMALL = {"size": {"height": 32, "width": 32}, "face_crop_size_px": 64}
NO_LAYERS = ("face_vgg8_050",)  # which timm cannot tell apart
WITH_ATTENTION = ("beit", "vit", "swin")


# --- Models


@pytest.mark.parametrize("head", ["image", "lstm"])
def test_auto_model_is_the_frame_encoder(head: str, tmp_path: Path):
    model = tiny_model("beit", head).eval()
    model.save_pretrained(tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path)
    assert type(encoder) is EngagementFrameEncoder
    named = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert named["AutoModel"] == "modeling_engagement.EngagementFrameEncoder" and len(named) == 3
    faces = draw_pixels(model).flatten(0, -4)
    with torch.no_grad():
        outputs, expected = encoder(faces), model.encoder(faces)
    assert outputs.pooler_output.shape == (len(faces), 32) and outputs.last_hidden_state.shape == (len(faces), 32, 4, 4)
    assert torch.equal(outputs.pooler_output, expected.pooler_output)


@pytest.mark.parametrize("head", ["image", "mean"])
@pytest.mark.parametrize("encoder", ["resnet18", "timm_vit", "convnext", "resnet", *NO_LAYERS, *WITH_ATTENTION])
def test_layers_of_an_encoder_come_back_or_are_refused(encoder: str, head: str):
    torch.manual_seed(0)
    model = tiny_model(encoder, head).eval()
    model.set_attn_implementation("eager")
    pixels = draw_pixels(model, batch_size=3)
    with torch.no_grad():
        plain = model(pixels)
        assert plain.hidden_states is None and plain.attentions is None
        (logits,) = model(pixels, return_dict=False)
        assert torch.equal(logits, plain.logits)
        given = {"hidden_states": encoder not in NO_LAYERS, "attentions": encoder in WITH_ATTENTION}
        for name, is_there in given.items():
            if not is_there:
                with pytest.raises(ValueError, match=r"attentions|output_hidden_states") as refused:
                    model(pixels, **{f"output_{name}": True})
                assert "\n" not in str(refused.value)
                continue
            outputs = model(pixels, **{f"output_{name}": True})
            assert torch.equal(outputs.logits, plain.logits) and len(outputs[name]) >= 2
            frames = model.config.num_frames
            for state in outputs[name]:
                if head == "image":
                    assert state.shape[0] % 3 == 0  # Swin's attentions are of windows
                else:
                    assert state.shape[0] == 3 and state.shape[1] % frames == 0
    first = model.get_input_embeddings()
    assert isinstance(first, nn.Conv2d) and first.in_channels == model.config.num_channels


def test_hidden_states_of_clips_are_those_of_their_frames(tmp_path: Path):
    model = tiny_model("vit", "lstm").eval()
    clips = draw_pixels(model, batch_size=2, num_frames=3)
    with torch.no_grad():
        of_clips = model(clips, output_hidden_states=True).hidden_states
        of_frames = model.encoder(clips[1], output_hidden_states=True).hidden_states
    assert [state.shape for state in of_clips] == [(2, 3, 17, 32)] * 3
    assert all(torch.allclose(ours[1], theirs, atol=1e-5) for ours, theirs in zip(of_clips, of_frames, strict=True))
    model.save_pretrained(tmp_path)
    asked_once = type(model).from_pretrained(tmp_path, output_hidden_states=True, return_dict=False)
    logits, hidden = asked_once(clips)
    assert logits.shape == (2, 3) and len(hidden) == 3


@pytest.mark.parametrize("head", ["transformer", "mean", "last"])
def test_torch_export_takes_any_number_of_frames(head: str):
    model = tiny_model("resnet", head, normalize_features=head == "mean").eval()
    axes = ({0: Dim("batch"), 1: Dim("frames")},)
    exported = torch.export.export(model, (draw_pixels(model, 2, 3),), dynamic_shapes=axes).module()
    for batch_size, num_frames in ((1, 1), (3, 5)):
        clips = draw_pixels(model, batch_size, num_frames)
        torch.testing.assert_close(exported(clips).logits, model(clips).logits, rtol=0, atol=1e-6)


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("head", ["lstm", "transformer", "mean", "last"])
def test_onnx_takes_any_number_of_frames(head: str, tmp_path: Path):
    import onnxruntime

    from engagement_recognition.conversion.export_onnx import export_onnx

    model = save_ours(tmp_path / "ours", "resnet", head)
    export_onnx(tmp_path / "ours", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", "frames", 3, 32, 32]
    for batch_size, num_frames in ((1, 1), (3, 7)):
        clips = draw_pixels(model, batch_size, num_frames)
        (logits,) = session.run(None, {"pixel_values": clips.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(clips).logits.numpy(), atol=1e-4)


# --- Processors


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """(6, 240, 320, 3): a face that turns."""
    return np.stack([draw_frame(draw_subject(3), FacePose(yaw_deg=3.0 * i), 320, 240) for i in range(6)])


PROCESSORS = {"video": (EngagementVideoProcessor, slice(None)), "image": (EngagementImageProcessor, 0)}
# What a call says, and what its last three axes and its values are then; None: as without it.
CALLS = [
    ({"size": 24}, (3, 24, 24), None),
    ({"size": {"height": 24, "width": 40}}, (3, 24, 40), None),
    ({"device": "cpu"}, (3, 32, 32), True),
    ({"do_resize": False}, (3, 64, 64), None),
    ({"do_rescale": False, "do_normalize": False}, (3, 32, 32), lambda pixels: pixels.max() > 1),
    ({"do_normalize": False}, (3, 32, 32), lambda pixels: pixels.min() >= 0 and pixels.max() <= 1),
    ({"rescale_factor": 1 / 510, "do_normalize": False}, (3, 32, 32), lambda pixels: pixels.max() <= 0.5),
    ({"image_mean": np.array([0.5] * 3), "image_std": 0.25}, (3, 32, 32), False),
    ({"data_format": ChannelDimension.LAST}, (32, 32, 3), None),
    ({"input_data_format": "channels_last"}, (3, 32, 32), True),
    ({"do_convert_rgb": True, "resample": 2, "do_center_crop": False}, (3, 32, 32), True),
    ({"face_margin_ratio": 0.5}, (3, 32, 32), False),
    ({"face_crop": False}, (3, 32, 32), False),
    ({"do_grayscale": True}, (1, 32, 32), None),
    ({"as_played": True}, (3, 32, 32), True),
]


@pytest.mark.parametrize("kind", PROCESSORS)
def test_a_call_takes_what_stock_processors_declare(kind: str, clip: np.ndarray):
    build, taken = PROCESSORS[kind]
    processor, given = build(**SMALL), clip[taken]
    before = processor.to_dict()
    plain = processor(given)["pixel_values"]
    for arguments, shape, values in CALLS:
        pixels = processor(given, **arguments)["pixel_values"]
        assert tuple(pixels.shape[-3:]) == shape, arguments
        if isinstance(values, bool):
            assert torch.equal(pixels, plain) == values, arguments
        elif values is not None:
            assert values(pixels), arguments
    assert processor.to_dict() == before and torch.equal(processor(given)["pixel_values"], plain)


@pytest.mark.parametrize("kind", PROCESSORS)
def test_what_a_call_cannot_honour_is_refused_by_name(kind: str, clip: np.ndarray):
    build, taken = PROCESSORS[kind]
    processor, given = build(**SMALL), clip[taken]
    for name, value in {"fps": 2, "do_center_crop": True, "crop_size": 20, "do_pad": True, "resample": 3}.items():
        with pytest.raises(EngagementInputError, match=f"^{name}=") as refused:
            processor(given, **{name: value})
        assert "\n" not in str(refused.value)
    for name, value in {"do_resizee": False, "reader": None, "interpolation": 2}.items():
        with pytest.raises(TypeError, match=f"'{name}'; .*face_crop") as unknown:
            processor(given, **{name: value})
        assert "\n" not in str(unknown.value)
    listed = arguments_of(build)
    assert {"size", "device", "image_mean", "data_format", "face_margin_ratio"} <= set(listed)
    assert "fps" not in listed and ("num_frames" in listed) == (kind == "video")


def test_metadata_says_which_frames_were_taken(clip: np.ndarray, drawn_daisee: Path):
    processor = EngagementVideoProcessor(**SMALL, num_frames=3)
    path = next(path for path in sorted(drawn_daisee.glob("DataSet/Test/*/*/*")))
    batch = processor([path, clip], return_metadata=True)
    of_file, of_array = batch["video_metadata"]
    assert batch["pixel_values"].shape == (2, 3, 3, 32, 32)
    assert (of_file.total_num_frames, of_file.fps, of_file.duration) == (8, pytest.approx(4), pytest.approx(2))
    assert (of_file.width, of_file.height, of_file.frames_indices) == (320, 240, [1, 4, 6])
    assert (of_array.total_num_frames, of_array.frames_indices, of_array.fps) == (6, [1, 3, 5], None)
    assert torch.equal(batch["pixel_values"][0], processor(path)["pixel_values"][0])
    assert "video_metadata" not in processor(path)


# --- Folders


def test_a_single_face_model_scores_a_clip_frame_by_frame(trained: TrainedStages, clip: np.ndarray, tmp_path: Path):
    processor = AutoVideoProcessor.from_pretrained(trained.expression, num_frames=4)
    assert type(processor) is EngagementVideoProcessor and processor.face_crop
    pixels = processor(clip)["pixel_values"]
    model = AutoModelForImageClassification.from_pretrained(trained.expression)
    with torch.no_grad():
        scores = model(pixels.flatten(0, 1)).logits.softmax(-1)
    assert scores.shape == (4, len(model.config.id2label))
    own = EngagementImageProcessor.from_pretrained(trained.expression)
    assert (processor.size, processor.image_mean, processor.num_frames) == (own.size, own.image_mean, 4)
    processor.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert list(stored["auto_map"]) == ["AutoVideoProcessor"] and "pictures_are_frames" not in stored
    frames_model = EngagementImageProcessor(**SMALL, face_crop=False, pictures_are_frames=True)
    frames_model.save_pretrained(tmp_path / "frames")
    assert not EngagementVideoProcessor.from_pretrained(tmp_path / "frames").face_crop


def test_the_card_s_line_makes_the_video_pipeline_take_batches(trained: TrainedStages, drawn_daisee: Path):
    card = ModelCard.load(trained.engagement / "README.md").text
    (block,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    (line,) = re.findall(r"^classify\.image_processor = .*?$", block, flags=re.M)
    assert line.split("  #")[0] in (ROOT / "docs/python.md").read_text()
    clips = [str(path) for path in sorted(drawn_daisee.glob("DataSet/Test/*/*/*"))[:3]]
    classify = pipeline("video-classification", model=str(trained.engagement))
    singly = [classify(path) for path in clips]
    sizes = []
    classify.model.register_forward_pre_hook(
        lambda module, given, named: sizes.append(len(named["pixel_values"])), with_kwargs=True
    )
    exec(line, {"classify": classify})
    together = classify(clips, batch_size=2)
    assert sizes == [2, 1]
    for one, other in zip(singly, together, strict=True):
        assert {row["label"]: row["score"] for row in one} == pytest.approx(
            {row["label"]: row["score"] for row in other}, abs=1e-5
        )


ELSEWHERE = """
import sys

sys.path[:] = [path for path in sys.path if "engagement" not in path]
from transformers import AutoModel, AutoVideoProcessor
video_model, image_model, video = sys.argv[1:]
trusted = {"trust_remote_code": True}
processor = AutoVideoProcessor.from_pretrained(image_model, **trusted)
frames = processor(video, num_frames=3)["pixel_values"].flatten(0, 1)
for folder in (video_model, image_model):
    outputs = AutoModel.from_pretrained(folder, **trusted)(frames)
    print(type(outputs).__name__, tuple(outputs.pooler_output.shape), outputs.last_hidden_state.ndim)
print(type(processor).__module__.startswith("transformers_modules"), "engagement_recognition" in sys.modules)
"""


@pytest.mark.slow
def test_a_folder_gives_both_without_this_package(trained: TrainedStages, drawn_daisee: Path, tmp_path: Path):
    video = next(path for path in sorted(drawn_daisee.glob("DataSet/Test/*/*/*")))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment.pop("PYTHONPATH", None)
    arguments = [str(trained.engagement), str(trained.expression), str(video)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", ELSEWHERE, *arguments],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    encoder, other, where = done.stdout.splitlines()[-3:]
    assert encoder.startswith("BaseModelOutputWithPooling (3, ") and encoder.endswith(" 4") and other == encoder
    assert where == "True False"
