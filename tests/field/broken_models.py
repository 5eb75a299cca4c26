"""Model folders as people and attackers hand them on: a good one, with one thing changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from bench import Bench
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model

from engagement_recognition import EngagementImageProcessor, EngagementVideoProcessor
from engagement_recognition.evaluation.results_file import write_results
from engagement_recognition.evaluation.results_schema import Results
from engagement_recognition.inference.shipped_model import shipped_expression_model

MARKER = "code_was_run"
CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
Change = Callable[[Path], object]


def faces_model(folder: Path, *changes: Change) -> Path:
    """The model in the box, changed."""
    model = folder / "model"
    model.mkdir()
    for path in shipped_expression_model().iterdir():
        if path.is_file():
            shutil.copyfile(path, model / path.name)  # not the modes, which may be read-only
    for change in changes:
        change(model)
    return model


def clips_model(folder: Path, *changes: Change, encoder: str = "resnet18", head: str = "lstm") -> Path:
    """A tiny model of clips (or, with the head "image", of faces) with random weights, changed."""
    model = folder / "model"
    torch.manual_seed(0)
    tiny_model(encoder, head, num_frames=4).save_pretrained(model)
    kind = EngagementImageProcessor if head == "image" else EngagementVideoProcessor
    kind(size={"height": 64, "width": 64}).save_pretrained(model)
    for change in changes:
        change(model)
    return model


def edited(name: str, *keys: str, **values: object) -> Change:
    """A JSON file with other values, under `keys` if they stand deeper."""

    def change(model: Path) -> None:
        content = json.loads((model / name).read_text(encoding="utf-8"))
        inner = content
        for key in keys:
            inner = inner[key]
        inner.update(values)
        (model / name).write_text(json.dumps(content), encoding="utf-8")

    return change


def replaced(name: str, content: bytes | str) -> Change:
    """A file with another content."""
    return lambda model: (model / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def removed(name: str) -> Change:
    return lambda model: (model / name).unlink()


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    """Other weights, in the same form."""

    def rewrite(model: Path) -> None:
        tensors = load_file(model / WEIGHTS)
        change(tensors)
        save_file(tensors, model / WEIGHTS, {"format": "pt"})

    return rewrite


def first_weight(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """One of floats, whichever comes first by name."""
    return next(tensors[name] for name in sorted(tensors) if tensors[name].is_floating_point())


def pickled(model: Path) -> None:
    """Weights in the old form, which may hold code."""
    torch.save(load_file(model / WEIGHTS), model / "pytorch_model.bin")
    (model / WEIGHTS).unlink()


class _Runs:
    """A pickle that writes the marker where it is loaded as one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def hostile_pickle(model: Path) -> None:
    torch.save({"encoder.weight": _Runs(model / MARKER)}, model / "pytorch_model.bin")
    (model / WEIGHTS).unlink()


def hostile_code(model: Path) -> None:
    """A file that says by a marker that it was run, under every name that anything might import."""
    touch = f"from pathlib import Path\nPath({str(model / MARKER)!r}).touch()\n"
    touch += "class Evil:\n    from_pretrained = from_config = classmethod(lambda *given, **named: None)\n"
    for name in ("evil.py", "handler.py", "pipeline.py", "custom_generate.py", "__init__.py"):
        (model / name).write_text(touch, encoding="utf-8")


def _map(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "evil.Evil")


_MODEL_MAP = _map(
    "AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoModelForVideoClassification",
    "AutoImageProcessor", "AutoVideoProcessor", "AutoProcessor", "AutoTokenizer",
)  # fmt: skip
# Each way in which a folder asks to have its code run; of a model of faces.
HOSTILE: dict[str, tuple[Change, ...]] = {
    "an unknown type": (edited(CONFIG, model_type="evil", auto_map=_MODEL_MAP),),
    "our type, other classes": (edited(CONFIG, auto_map=_MODEL_MAP),),
    "a map that is a list": (edited(CONFIG, auto_map=["evil.Evil"]),),
    "another repository's code": (edited(CONFIG, auto_map={"AutoConfig": "someone/else--evil.Evil"}),),
    "an encoder of its own": (edited(CONFIG, "encoder_config", model_type="evil", auto_map=_MODEL_MAP),),
    "an encoder without a model": (
        edited(CONFIG, encoder_config={"model_type": "clip_text_model", "auto_map": _MODEL_MAP, "name_or_path": "."}),
    ),
    "a processor of its own": (edited(PROCESSOR, image_processor_type="Evil", auto_map=_MODEL_MAP),),
    "a processor with a map": (edited(PROCESSOR, auto_map={"AutoImageProcessor": "evil.Evil"}),),
    "a pickle": (hostile_pickle,),
    "a kernel": (edited(CONFIG, attn_implementation="evil/kernel"),),
    "an adapter": (replaced("adapter_config.json", '{"base_model_name_or_path": "evil/base", "peft_type": "LORA"}'),),
    "timm from the Hub": (edited(CONFIG, "encoder_config", architecture="hf_hub:evil/net"),),
    "timm from a folder": (edited(CONFIG, "encoder_config", architecture="local-dir:."),),
    "timm's own pickle": (edited(CONFIG, "encoder_config", model_args={"checkpoint_path": "pytorch_model.bin"}),),
}


def hostile_folder(folder: Path, name: str) -> Path:
    return faces_model(folder, hostile_code, *HOSTILE[name])


def was_run(*folders: Path) -> bool:
    return any(True for folder in folders for _ in folder.rglob(MARKER))


def with_results(bench: Bench) -> Change:
    """Records of an import, which evaluate, report and the like ask for."""

    def change(model: Path) -> None:
        results = Results(stage="engagement", label_names=bench.expression.rule.label_names, started_from="other")
        write_results(model, results)

    return change
