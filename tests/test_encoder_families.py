"""Image encoders by family: what docs/encoders.md says of each is so, and what is none is refused in a line."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import transformers
from encoder_families import FAMILIES, QUICK, REFUSALS, VISION, Refusal
from encoder_trial import (
    YES,
    CleanProcess,
    build,
    clean_process,
    explain,
    read_tried,
    refuse,
    train_a_step,
    try_family,
)
from places import ROOT
from timm.layers import resample_abs_pos_embed
from tiny_models import draw_pixels
from transformers import TimmWrapperConfig, TimmWrapperModel

from engagement_recognition import EngagementForImageClassification, EngagementForVideoClassification
from engagement_recognition.face_encoders import repository_of

FOUND = read_tried()
ROWS = {row.name: row for row in FOUND.families}


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def clean() -> Iterator[CleanProcess]:
    with clean_process() as process:
        yield process


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_does_what_the_page_says(name: str, clean: CleanProcess, tmp_path: Path):
    assert try_family(FAMILIES[name], tmp_path, clean) == ROWS[name], (
        "python tests/helpers/encoder_trial.py, make readme"
    )


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_family_is_built_trained_explained_and_reloaded_exactly(name: str, tmp_path: Path):
    model = build(FAMILIES[name], "image", tmp_path / "source")
    assert train_a_step(model) == explain(model) == YES
    model.save_pretrained(tmp_path / "ours")
    again = EngagementForImageClassification.from_pretrained(tmp_path / "ours").eval()
    pixels = draw_pixels(model)
    with torch.no_grad():
        assert again(pixels).logits.equal(model(pixels).logits)


def test_the_record_holds_every_family_and_enough_of_them_do_everything():
    assert ROWS.keys() == FAMILIES.keys() and [row.title for row in FOUND.refusals] == [each.title for each in REFUSALS]
    assert all(row.trained == row.reloaded == YES for row in FOUND.families)
    steps = [row for row in FOUND.families if row.explained == row.stock == row.onnx == YES]
    whole = {package: sum(row.package == package for row in steps) for package in ("timm", "transformers")}
    assert whole["timm"] >= 12 and whole["transformers"] >= 10 and len(FOUND.families) >= 20 + sum(whole.values())
    of_timm = [row for row in FOUND.families if row.package == "timm"]
    assert sum(row.stock == YES for row in of_timm) / len(of_timm) >= 26 / 28


def test_the_page_is_what_the_record_says():
    script = runpy.run_path(str(ROOT / ".ci/encoders_doc.py"))
    assert (ROOT / "docs/encoders.md").read_text(encoding="utf-8") == script["page_of"](FOUND), "run make readme"


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.title)
def test_what_is_no_encoder_of_pictures_is_refused_in_a_line(refusal: Refusal, tmp_path: Path):
    line = refuse(refusal, tmp_path / "folder")
    assert "\n" not in line and len(line) < 450 and str(tmp_path) not in line
    if "model" in refusal.title:
        assert line.startswith("A model of type") and "not an image encoder" in line


def save_timm(folder: Path, architecture: str, **model_args: object) -> TimmWrapperModel:
    model = TimmWrapperModel(TimmWrapperConfig(architecture=architecture, model_args=model_args or None))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("said", "repository"),
    [
        ("mobilenetv3_small_050.lamb_in1k", "timm/mobilenetv3_small_050.lamb_in1k"),
        ("hf_hub:timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
        ("hf-hub:somebody/vit.for_faces", "somebody/vit.for_faces"),
        ("fastvit_mci0.apple_mclip", "apple/mobileclip_s0_timm"),
        ("google/vit-base-patch16-224", "google/vit-base-patch16-224"),
    ],
)
def test_a_name_with_a_tag_is_a_repository_of_the_hub(said: str, repository: str):
    assert repository_of(said) == repository


@pytest.mark.parametrize("said", ["mobilenetv3_small_050.lamb_in1k", "hf_hub:timm/mobilenetv3_small_050.lamb_in1k"])
def test_a_name_with_a_tag_means_those_weights(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stored = save_timm(tmp_path / "timm/mobilenetv3_small_050.lamb_in1k", "mobilenetv3_small_050")
    monkeypatch.chdir(tmp_path)  # transformers takes a folder of a repository's name for it, and asks no Hub
    model = EngagementForVideoClassification.from_encoder(said, image_size=64, num_frames=2)
    weights = model.encoder.model.state_dict()
    assert all(weight.equal(weights[name]) for name, weight in stored.state_dict().items())
    (tmp_path / "mobilenetv3_small_050.lamb_in1k").mkdir()
    assert repository_of("mobilenetv3_small_050.lamb_in1k") == "mobilenetv3_small_050.lamb_in1k"  # a folder is itself


def test_a_tag_that_timm_does_not_have_is_refused_by_a_line_with_those_that_it_has():
    with pytest.raises(OSError, match=r"tag 'no_such_tag' .*a1_in1k") as caught:
        EngagementForImageClassification.from_encoder("resnet18.no_such_tag")
    assert "\n" not in str(caught.value) and "resnet18 alone" in str(caught.value)
    assert timm.is_model("resnet18") and "resnet18.no_such_tag" not in timm.list_pretrained()


def test_a_timm_vit_s_positions_are_resampled_for_another_size(tmp_path: Path):
    stored = save_timm(tmp_path, "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1)
    model = EngagementForImageClassification.from_encoder(tmp_path, image_size=48).eval()
    positions = model.encoder.model.timm_model.pos_embed
    expected = resample_abs_pos_embed(stored.timm_model.pos_embed, new_size=[6, 6], num_prefix_tokens=1)
    assert positions.shape == (1, 1 + 6 * 6, 192)
    torch.testing.assert_close(positions, expected, rtol=0, atol=0)
    assert model(draw_pixels(model)).logits.shape == (2, 2)
    assert model.encoder.model.timm_model.patch_embed.proj.weight.equal(stored.timm_model.patch_embed.proj.weight)


def test_a_transformers_vit_interpolates_its_positions_at_another_size(tmp_path: Path):
    stored = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION)).eval()
    stored.save_pretrained(tmp_path)
    assert EngagementForImageClassification.from_encoder(tmp_path).config.image_size == 32
    model = EngagementForImageClassification.from_encoder(tmp_path, image_size=48).eval()
    pixels = draw_pixels(model)
    with torch.no_grad():
        expected = stored.vit(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
        assert model.encoder(pixels).pooler_output.equal(expected)


def test_weights_that_do_not_fit_another_size_are_refused_in_a_line(tmp_path: Path):
    # timm's Hiera is built for any size, and has no rule for the positions that it has learned.
    save_timm(tmp_path, "hiera_tiny_224", embed_dim=16, stages=(1, 1, 1, 1))
    with pytest.raises(OSError, match=r"pos_embed in shape .* image_size") as caught:
        EngagementForImageClassification.from_encoder(tmp_path, image_size=320)
    assert "\n" not in str(caught.value)
