"""Recipes: the three published studies to the letter, each row beside our own way, and what a recipe may say."""

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image as PictureFile
from stages import load

from engagement_recognition import train
from engagement_recognition.data.schema import BINARY, THREE_CLASSES
from engagement_recognition.processor.input_errors import RecipeError
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor
from engagement_recognition.studies.reproduce import read_study
from engagement_recognition.training.arguments import Recipe, StageRun, plan_stages, read_recipe
from engagement_recognition.training.augmentation import Augmentation
from engagement_recognition.training.losses import class_weights
from engagement_recognition.training.stage_data import load_stage_data, parse_json
from engagement_recognition.training.training_sets import FrameCollator

RECIPES = Path(train.__file__).parent / "recipes"
SHARED = ("protocol", "our_way", "study")  # files beside the rows
RESNET18, MOBILENETV3 = "timm/resnet18.tv_in1k", "timm/mobilenetv3_large_100.ra_in1k"

# --- The protocols, written out. Options of StageArguments and of TrainingArguments; the rows say what differs.

CNN_LSTM = {
    "model": "video", "encoder": RESNET18, "encoder_features": "map", "freeze_encoder": False, "image_size": 112,
    "face_crop": False, "face_crop_size_px": 112, "grayscale": False, "image_mean": None, "image_std": None,
    "sampling": "consecutive", "num_frames": 8, "window_stride_frames": 16, "subset": None, "label_scheme": "binary",
    "temporal": "lstm", "temporal_hidden_size": 256, "temporal_num_layers": 1, "dropout": 0.5,
    "loss": "cross_entropy", "class_weight_cap": 5, "label_smoothing": 0, "logit_adjustment": 0,
    "augmentation": {"flip": 0.5, "brightness": 0.2, "contrast": 0.2}, "oversample_to": None,
    "optimizer": "adam", "learning_rate": 1e-4, "weight_decay": 1e-4, "lr_scheduler_type": "constant",
    "lr_decay_factor": None, "warmup_steps": 0, "max_grad_norm": 0, "bf16": False,
    "per_device_train_batch_size": 16, "num_train_epochs": 15, "early_stopping_patience": 4,
    "metric_for_best_model": "macro_f1", "load_best_model_at_end": True,
}  # fmt: skip
ONE_FRAME = {
    "model": "image", "encoder": MOBILENETV3, "encoder_features": "pooled", "dropout": 0.2, "augmentation": {},
    "per_device_train_batch_size": 32, "num_train_epochs": 10, "early_stopping_patience": 3,
}  # fmt: skip
NEZAMI = {
    "model": "image", "grayscale": True, "image_size": 48, "picture_norm": 100, "image_mean": "train",
    "image_std": "train", "dropout": 0, "class_weight_cap": 1, "optimizer": "momentum", "learning_rate": 0.02,
    "lr_decay_factor": 0.8, "lr_decay_steps": 500, "max_grad_norm": 5, "num_train_epochs": 20, "bf16": False,
    "early_stopping_patience": None, "load_best_model_at_end": False, "label_smoothing": 0, "loss": "cross_entropy",
}  # fmt: skip
VGG = {
    "encoder": "nezami_vgg", "weight_decay": 1e-3, "per_device_train_batch_size": 32,
    "augmentation": {"flip": 0.5, "padding_px": 4, "rotation_deg": 16},
}  # fmt: skip
CNN = {
    "encoder": "nezami_cnn", "weight_decay": 0, "per_device_train_batch_size": 28,
    "augmentation": {"flip": 0.5, "padding_px": 4, "rotation_deg": 8},
}  # fmt: skip
BEIT = {
    "model": "image", "encoder": "microsoft/beit-base-patch16-224-pt22k-ft22k", "image_size": 224,
    "image_mean": "[0.5, 0.5, 0.5]", "image_std": "[0.5, 0.5, 0.5]", "dropout": 0, "class_weight_cap": 1,
    "augmentation": {"crop_area": 0.8, "flip": 0.5, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3,
                     "rotation_deg": 10},
    "optimizer": None, "learning_rate": 2e-5, "weight_decay": 0.01, "lr_scheduler_type": "linear", "warmup_steps": 0,
    "per_device_train_batch_size": 8, "num_train_epochs": 7, "metric_for_best_model": "weighted_f1", "bf16": False,
    "early_stopping_patience": None, "oversample_to": None,
}  # fmt: skip
SUBSET, BATCH_32 = {"subset": "stratified"}, {"per_device_train_batch_size": 32}
PUBLISHED = {  # study → row → stage → its options
    "cnn_lstm": {
        name: {"engagement": {**CNN_LSTM, **options}}
        for name, options in {
            "mobilenetv3_frame_subset": {**ONE_FRAME, **SUBSET},
            "mobilenetv3_lstm_subset": {"encoder": MOBILENETV3, **SUBSET},
            "resnet18_lstm_subset": SUBSET,
            "resnet18_lstm_frozen_subset": {**SUBSET, **BATCH_32, "freeze_encoder": True, "learning_rate": 1e-3,
                                            "early_stopping_patience": 5},
            "mobilenetv3_frame_full": {**ONE_FRAME, "per_device_train_batch_size": 64},
            "mobilenetv3_lstm_full": {"encoder": MOBILENETV3, **BATCH_32},
            "resnet18_lstm_full_cap5": BATCH_32,
            "resnet18_lstm_full_no_cap": {**BATCH_32, "class_weight_cap": 25},
            "resnet18_lstm_three_class_subset": {**SUBSET, **BATCH_32, "label_scheme": "three-class",
                                                 "class_weight_cap": 25},
        }.items()
    },
    "nezami": {
        "cnn": {"engagement": {**NEZAMI, **CNN}},
        "vgg": {"engagement": {**NEZAMI, **VGG}},
        "engagement_model": {"expression": {**NEZAMI, **VGG}, "engagement": {**NEZAMI, **VGG}},
    },
    "beit": {
        "expression": {"expression": BEIT},
        "four_states": {"expression": BEIT, "engagement": {**BEIT, "oversample_to": 150}},
    },
}  # fmt: skip
ROWS = [(study, row) for study, rows in PUBLISHED.items() for row in rows]
TRAINABLE_WEIGHTS = {
    "mobilenetv3_frame_subset": 4_204_594,
    "mobilenetv3_lstm_subset": 4_219_698,
    "resnet18_lstm_subset": 11_965_506,
    "resnet18_lstm_frozen_subset": 788_994,
}


def plan(recipe: Path | dict[str, object], **options: str) -> dict[str, StageRun]:
    """Both stages of a recipe, by name."""
    data = {"expression_data": "pictures", "engagement_data": "clips"}
    values = read_recipe(recipe) if isinstance(recipe, Path) else Recipe(recipe)
    return {run.name: run for run in plan_stages(values, {**data, **options})}


def option_of(run: StageRun, name: str) -> object:
    value = getattr(run.stage if hasattr(run.stage, name) else run.training, name)
    return json.loads(value) if name == "augmentation" else value


def studies() -> dict[str, dict]:
    found = {path.parent.name: yaml.safe_load(path.read_text()) for path in sorted(RECIPES.glob("*/study.yaml"))}
    return {name: study for name, study in found.items() if any("published" in row for row in study["rows"].values())}


# --- The published studies


@pytest.mark.parametrize(("study", "row"), ROWS)
def test_a_published_row_is_trained_as_published(study: str, row: str):
    runs = plan(RECIPES / study / f"{row}.yaml")
    for stage, protocol in PUBLISHED[study][row].items():
        assert {name: option_of(runs[stage], name) for name in protocol} == protocol


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.relative_to(RECIPES).as_posix())
def test_a_recipe_is_understood_and_says_what_it_is(path: Path):
    if path.stem in SHARED:
        return
    usage = f"#   python train.py recipes/{path.relative_to(RECIPES).as_posix()}"
    assert any(line.startswith(usage) for line in path.read_text().splitlines()[1:4])
    for run in plan(path).values():
        Augmentation.from_recipe(parse_json(run.stage.augmentation, "augmentation", dict))
        if path.parent != RECIPES:
            assert run.run_dir == Path("runs") / path.relative_to(RECIPES).with_suffix("")


def test_every_row_of_a_study_has_a_recipe_and_ours_beside_it():
    assert set(studies()) == set(PUBLISHED)
    for study, table in studies().items():
        rows = list(PUBLISHED[study])
        assert list(table["rows"]) == rows  # in the published table's order
        files = {path.stem for path in (RECIPES / study).glob("*.yaml")}
        assert files - set(SHARED) == {path.stem for path in (RECIPES / study / "improved").glob("*.yaml")} == set(rows)


@pytest.mark.parametrize("study", PUBLISHED)
def test_a_study_says_what_was_measured_on_what(study: str):
    table = studies()[study]
    assert table["data"] in ("daisee", "faces", "states")
    assert table["split"] == ("validation" if study == "beit" else "test")
    stages = {name: row.get("stages", ["engagement"]) for name, row in table["rows"].items()}
    assert stages == {name: list(options) for name, options in PUBLISHED[study].items()}
    assert table["needs_expression_data"] == any("expression" in names for names in stages.values())
    assert all(row.title != row.name for row in read_study(study).rows)


@pytest.mark.parametrize(("study", "row"), ROWS)
def test_our_way_has_the_same_task(study: str, row: str):
    published, ours = plan(RECIPES / study / f"{row}.yaml"), plan(RECIPES / study / "improved" / f"{row}.yaml")
    for stage in PUBLISHED[study][row]:
        for name in ("model", "label_scheme", "subset", "freeze_encoder", "temporal", "grayscale"):
            assert option_of(ours[stage], name) == option_of(published[stage], name)
    run = ours[list(PUBLISHED[study][row])[-1]]
    assert (run.training.lr_scheduler_type, run.training.warmup_steps, run.stage.optimizer) == ("cosine", 0.1, None)
    assert run.given["bf16"] == "auto" and run.stage.lr_decay_factor is None
    assert study != "cnn_lstm" or (run.stage.face_crop and run.training.load_best_model_at_end)


@pytest.mark.parametrize("row", TRAINABLE_WEIGHTS)
def test_a_model_has_the_published_number_of_weights(row: str):
    stage = plan(RECIPES / f"cnn_lstm/{row}.yaml", pretrained="false")["engagement"].stage
    data = SimpleNamespace(label_names=list(BINARY), processor=EngagementVideoProcessor(num_frames=8))
    weights = train.build_model(stage, data, None).parameters()
    assert sum(weight.numel() for weight in weights if weight.requires_grad) == TRAINABLE_WEIGHTS[row]


@pytest.mark.parametrize(
    ("row", "counts", "ratio"),
    [
        ("resnet18_lstm_full_no_cap", {"disengaged": 247, "engaged": 5111}, 20.69),
        ("resnet18_lstm_full_cap5", {"disengaged": 247, "engaged": 5111}, 5),
        ("resnet18_lstm_subset", {"disengaged": 235, "engaged": 705}, 3),
        ("resnet18_lstm_three_class_subset", {"engaged": 662, "bored": 150, "other": 95}, 6.97),
    ],
)
def test_classes_are_weighed_as_the_study_weighed_them(row: str, counts: dict[str, int], ratio: float):
    cap = plan(RECIPES / f"cnn_lstm/{row}.yaml")["engagement"].stage.class_weight_cap
    assert list(counts) == list(THREE_CLASSES if len(counts) == 3 else BINARY)
    label_ids = np.repeat(range(len(counts)), list(counts.values())).tolist()
    weights = class_weights(label_ids, len(counts), cap)
    assert weights.sum().item() == pytest.approx(len(counts))
    assert (weights.max() / weights.min()).item() == pytest.approx(ratio, abs=0.005)


# --- Bases


def write(folder: Path, **recipes: object) -> Path:
    """One file a recipe; the path of the first."""
    folder.mkdir(exist_ok=True)
    for name, recipe in recipes.items():
        (folder / f"{name}.yaml").write_text(recipe if isinstance(recipe, str) else json.dumps(recipe))
    return folder / f"{next(iter(recipes))}.yaml"


def test_a_recipe_lies_over_its_base(tmp_path: Path):
    write(tmp_path, root={"seed": 1, "augmentation": {"flip": 0.5}, "engagement": {"subset": "x", "dropout": 0.1}})
    write(tmp_path, sibling={"base": "root.yaml", "seed": 2, "engagement": {"dropout": 0.2}})
    top = {"base": "../sibling.yaml", "augmentation": {"zoom": 1}, "expression": {"a": 1}}
    assert read_recipe(write(tmp_path / "deep", top=top)).options == {
        "seed": 2,
        "augmentation": {"zoom": 1},  # replaced as a whole
        "engagement": {"subset": "x", "dropout": 0.2},  # merged key by key
        "expression": {"a": 1},
    }


def test_of_several_bases_the_last_counts_most_and_null_gives_a_default_back(tmp_path: Path):
    write(tmp_path, first={"seed": 1, "dropout": 0.1, "subset": "stratified"}, second={"seed": 2, "subset": None})
    recipe = read_recipe(write(tmp_path, row={"base": ["first.yaml", "second.yaml"]})).options
    assert recipe == {"seed": 2, "dropout": 0.1, "subset": None}
    assert plan(recipe)["engagement"].stage.subset is None


BAD_BASES = {
    "itself": ({"a": {"base": "a.yaml"}}, "a.yaml -> a.yaml"),
    "a circle": ({"a": {"base": "b.yaml"}, "b": {"base": "./a.yaml"}}, "a.yaml -> b.yaml -> a.yaml"),
    "missing": ({"a": {"base": "gone.yaml"}}, r"no recipe .*gone.yaml, the base of .*a.yaml"),
    "no recipe": ({"a": {"base": "b.yaml"}, "b": "- a list"}, r"in .*b.yaml, got list"),
    "no name": ({"a": {"base": 3}}, "under base: in .*a.yaml, got 3"),
    "a section that is no section": ({"a": {"base": "b.yaml", "engagement": 3}, "b": {"engagement": {}}}, "got 3"),
}


@pytest.mark.parametrize("name", BAD_BASES)
def test_a_bad_base_is_one_line(name: str, tmp_path: Path):
    recipes, told = BAD_BASES[name]
    with pytest.raises(RecipeError, match=told) as refused:
        read_recipe(write(tmp_path, **recipes))
    assert "\n" not in str(refused.value)


# --- Encoders without their weights


def test_an_encoder_can_do_without_its_weights(tmp_path: Path):
    def encoder(name: str, **options: str) -> str:
        return plan({"encoder": name}, pretrained="false", **options)["engagement"].stage.encoder

    assert encoder("timm/resnet18.tv_in1k") == encoder("timm/resnet18") == encoder("resnet18") == "resnet18"
    assert encoder(str(tmp_path)) == str(tmp_path)
    with pytest.raises(RecipeError, match=r"microsoft/beit.*pass --encoder with a local folder"):
        encoder("microsoft/beit-base")
    # Stage two begins with what stage one left, whatever its own encoder's name.
    assert encoder("microsoft/beit-base", expression_data="none", start_from=str(tmp_path)) == "microsoft/beit-base"
    assert plan({"encoder": RESNET18})["engagement"].stage.encoder == RESNET18


# --- Crops


def frames_of(num_clips: int = 6, num_frames: int = 3, size: int = 24) -> torch.Tensor:
    """Clips of one picture each, so that a frame that moves alone shows."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (num_clips, 1, 3, size, size), dtype=torch.uint8, generator=generator)
    return pictures.expand(-1, num_frames, -1, -1, -1)


def test_padding_shifts_a_clip_and_shows_its_mean_colour_behind():
    frames = frames_of()
    torch.manual_seed(0)
    moved = Augmentation(padding_px=4)(frames)
    assert torch.equal(moved, moved[:, :1].expand_as(moved))
    offsets = set()
    for before, after in zip(frames[:, 0], moved[:, 0], strict=True):
        mean = before.float().mean(dim=(1, 2)).round().to(torch.uint8)
        padded = mean[:, None, None].repeat(1, 32, 32)
        padded[:, 4:28, 4:28] = before
        offset = [(y, x) for y in range(9) for x in range(9) if torch.equal(padded[:, y : y + 24, x : x + 24], after)]
        assert len(offset) == 1
        offsets |= set(offset)
    assert len(offsets) > 3


def test_padding_leaves_the_norm_of_nezami_s_faces_alone():
    # They pad with zeros once the mean is gone; black instead of it would outweigh the face.
    processor = EngagementVideoProcessor(do_grayscale=True, picture_norm=100.0, image_mean=[0.0], image_std=[1.0],
                                         size={"height": 24, "width": 24})  # fmt: skip
    torch.manual_seed(0)
    pixels = processor.to_pixel_values(Augmentation(padding_px=4)(frames_of())[:, 0].permute(0, 2, 3, 1).numpy())
    corners = pixels[:, 0][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners.abs().min(dim=1).values < 0.25).sum() >= 5  # of six clips; a pixel is 4 off zero on average


def test_a_crop_keeps_its_share_of_the_area():
    ramp = torch.arange(64.0) * 2
    picture = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)]).to(torch.uint8)
    torch.manual_seed(0)
    cropped = Augmentation(crop_area=0.8)(picture.expand(40, 2, 3, 64, 64)).float()
    assert torch.equal(cropped[:, 0], cropped[:, 1])
    spans = cropped[:, 0].amax(dim=(2, 3)) - cropped[:, 0].amin(dim=(2, 3))  # columns and rows seen
    widths, heights = (spans[:, 0] / 2 + 1) / 64, (spans[:, 1] / 2 + 1) / 64
    areas = widths * heights
    assert 0.77 < areas.min() < 0.85 and areas.max() <= 1 and (widths - heights).abs().max() > 0.05
    assert (widths / heights).min() > 0.73 and (widths / heights).max() < 1.37


def test_crops_that_are_off_draw_nothing():
    frames = frames_of(16)
    torch.manual_seed(3)
    mirrored = torch.rand(16) < 0.5
    torch.manual_seed(3)
    changed = Augmentation(flip=0.5, padding_px=0, crop_area=0.0)(frames)
    assert torch.equal(changed, torch.where(mirrored[:, None, None, None, None], frames.flip(-1), frames))


# --- The training pictures' own mean and deviation


load_pictures = partial(load, stage="expression", subject_pattern=r"^\d+")
OWN = {"image_mean": "train", "image_std": "train"}


@pytest.mark.parametrize(
    "options", [{}, {"grayscale": True, "picture_norm": 100}, {"oversample_to": 12}], ids=["colour", "nezami", "more"]
)
def test_training_pixels_are_standardised(options: dict, drawn_expressions: Path, tiny_recipe: dict, tmp_path: Path):
    data = load_pictures(tiny_recipe, drawn_expressions, **OWN, **options)
    rows = {data.train.keys[row]: data.train[row] for row in range(len(data.train))}  # each picture once
    pixels = FrameCollator(data.processor, single_face=True)(list(rows.values()))["pixel_values"]
    assert pixels.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert (pixels.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3
    stored = data.description.train_pixels
    if "picture_norm" in options:
        assert (stored.mean, stored.std) == ([0.0], [pytest.approx(100 / 32, abs=1e-3)])  # pictures of 32x32
    data.processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (config["image_mean"], config["image_std"]) == (stored.mean, stored.std)


def test_a_mean_can_be_given_and_the_deviation_measured(drawn_expressions: Path, tiny_recipe: dict):
    given = load_pictures(tiny_recipe, drawn_expressions, image_mean=[0.5, 0.4, 0.3], image_std="train")
    measured = load_pictures(tiny_recipe, drawn_expressions, **OWN)
    assert list(given.processor.image_mean) == [0.5, 0.4, 0.3]
    assert given.processor.image_std == measured.processor.image_std
    assert load_pictures(tiny_recipe, drawn_expressions, image_mean=[0.5] * 3).description.train_pixels is None


def test_a_flat_picture_is_left_out_where_it_has_no_norm(drawn_expressions: Path, tiny_recipe: dict, tmp_path: Path):
    folder = shutil.copytree(drawn_expressions, tmp_path / "pictures")
    picture = min(folder.glob("train/happy/*.png"))
    PictureFile.new("RGB", (48, 48), (90, 90, 90)).save(picture)
    whole = load_pictures(tiny_recipe, folder)
    data = load_pictures(tiny_recipe, folder, picture_norm=100, grayscale=True, **OWN)
    assert data.description.flat_pictures_left_out == {"train": 1, "validation": 0, "test": 0}
    assert set(whole.train.keys) - set(data.train.keys) == {(f"train/happy/{picture.name}", 0)}
    assert data.description.examples["train"] == len(data.train.subject_ids) == len(whole.train) - 1


# --- Optimisers


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_adam_decays_everything_and_momentum_weights_alone(
    optimizer: str, drawn_expressions: Path, tiny_recipe: dict, tmp_path: Path
):
    recipe = {**tiny_recipe, "output_dir": str(tmp_path), "optimizer": optimizer, "weight_decay": 0.5, "engagement": {}}
    (run,) = plan_stages(Recipe(recipe), {})
    data = load_stage_data(run)
    with train.stage_trainer(run, data, None, None, None) as (trainer, _):
        model = trainer.model
    for weight in model.parameters():
        torch.nn.init.ones_(weight)
        weight.grad = torch.zeros_like(weight)
    trainer.create_optimizer().step()
    shrunk = {name for name, weight in model.named_parameters() if not torch.equal(weight, torch.ones_like(weight))}
    biases = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    assert "classifier.bias" in biases
    assert shrunk == {name for name, _ in model.named_parameters()} - (biases if optimizer == "momentum" else set())
