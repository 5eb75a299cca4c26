"""A stranger's machine: a process without this package that uses what we hand on, as cards and READMEs say.

Run as a program it answers one question, a JSON file; `ask` starts it. One process answers for all that we hand on,
since importing torch and transformers takes seconds.
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

# What only this package needs, and the tests.
MISSING = {"engagement_recognition", "datasets", "evaluate", "cv2", "rich", "typer", "sklearn", "matplotlib",
           "accelerate", "pandas", "conftest"}  # fmt: skip
SPACE_BEGINS = "--- the Space ---"  # on stderr
TRUSTED = {"trust_remote_code": True}


def ask(question: dict[str, object], home: Path, environment: dict[str, str]) -> dict:
    """What it says, and under "stderr" what it wrote there before it came to the Space."""
    (home / "question.json").write_text(json.dumps(question))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-P", __file__, str(home / "question.json")],
        env={**inherited, **environment}, cwd=home, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "stderr": done.stderr.partition(SPACE_BEGINS)[0]}


class Without:
    """A finder that finds nothing of what is missing."""

    def __init__(self, finder: object) -> None:
        self.finder = finder

    def find_spec(self, name: str, *where: object) -> object:
        return None if name.partition(".")[0] in MISSING else self.finder.find_spec(name, *where)

    def __getattr__(self, name: str) -> object:
        return getattr(self.finder, name)


def run_three_lines(repository: str, video: str) -> dict[str, object]:
    """Of a private model on the Hub, and what the Hub says to somebody without a token."""
    from transformers import pipeline

    classifier = pipeline("video-classification", model=repository, **TRUSTED)
    scores = classifier(video)

    import torch
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError
    from transformers import AutoVideoProcessor

    with torch.inference_mode():
        inputs = AutoVideoProcessor.from_pretrained(repository, **TRUSTED)(video)
        logits = classifier.model(**inputs).logits[0].tolist()
    try:
        hf_hub_download(repository, "README.md", token=False)
        anyone = "reads it"
    except RepositoryNotFoundError:
        anyone = "finds none"
    return {"scores": scores, "logits": logits, "anyone": anyone}


def load_folder(folder: str, source: str) -> dict[str, object]:
    """What a model's folder says of a video or a picture, through the Auto classes and through the pipeline."""
    import torch
    import transformers as hf

    kind, model, processor = "video", hf.AutoModelForVideoClassification, hf.AutoVideoProcessor
    if not source.endswith((".mp4", ".avi")):
        kind, model, processor = "image", hf.AutoModelForImageClassification, hf.AutoImageProcessor
    with torch.inference_mode():
        inputs = processor.from_pretrained(folder, **TRUSTED)(source)
        logits = model.from_pretrained(folder, **TRUSTED).eval()(**inputs).logits[0].tolist()
    return {"logits": logits, "scores": hf.pipeline(f"{kind}-classification", model=folder, **TRUSTED)(source, top_k=7)}


def load_endpoint(folder: Path) -> Callable[[object], dict]:
    """As huggingface-inference-toolkit does."""
    spec = spec_from_file_location("handler", folder / "handler.py")
    module = module_from_spec(spec)
    sys.modules["handler"] = module
    spec.loader.exec_module(module)
    return module.EndpointHandler(str(folder))


def make_inputs(kind: str, value: object) -> object:
    """A request of this kind; the value is what is sent, or the path of a file."""
    from PIL import Image

    if kind == "json":
        return value
    if kind == "blank":
        return {"inputs": Image.new("RGB", value)}
    if kind in ("picture", "lazy"):  # lazy: nothing decoded yet
        picture = Image.open(value)
        return {"inputs": picture.convert("RGB") if kind == "picture" else picture}
    content = Path(value).read_bytes()
    if kind == "bytes":
        return {"inputs": content}
    if kind == "lines":
        return {"inputs": base64.encodebytes(content).decode()}
    heads = {"base64": "", "data": "data:video/mp4;base64,", "DATA": "DATA:video/mp4;BASE64,"}
    heads["quoted"] = 'data:video/mp4;codecs="avc1.42, mp4a";base64,'
    return {"inputs": heads[kind] + base64.b64encode(content).decode()}


def ask_endpoints(folder: Path, requests: dict[str, list]) -> dict[str, dict]:
    """Requests are [model, kind of input, value, limits]; each model's folder has handler.py in it."""
    handlers = {place.name: load_endpoint(place) for place in sorted(folder.iterdir())}
    limits = next(iter(handlers.values())).limits
    said = {}
    for name, (model, kind, value, changed) in requests.items():
        handler = handlers[model]
        handler.limits = replace(limits, **changed)
        started = time.perf_counter()
        said[name] = handler(make_inputs(kind, value))
        said[name]["seconds"] = time.perf_counter() - started
    return said


def open_space(folder: str) -> dict[str, object]:
    """The page of a Space, whose machine has what its requirements name, and where the modules of its code lie."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    import app

    page = app.build()
    modules = [module.__file__ for name, module in sys.modules.items() if name.startswith("engagement_recognition")]
    return {"title": page.title, "analytics_enabled": page.analytics_enabled, "modules": modules}


def answer(question: dict) -> dict[str, object]:
    finders = list(sys.meta_path)
    sys.meta_path[:] = [Without(finder) for finder in finders]
    try:
        import engagement_recognition  # noqa: F401

        sys.exit("the package is still there")
    except ModuleNotFoundError:
        pass
    said = {"hub": run_three_lines(question["repository"], question["video"])}
    said["folders"] = {folder: load_folder(folder, source) for folder, source in question["folders"]}
    said["endpoints"] = ask_endpoints(Path(question["endpoints"]), question["requests"])
    print(SPACE_BEGINS, file=sys.stderr)
    if question["space"]:
        sys.meta_path[:] = [finder for finder in finders if "editable" not in repr(finder).lower()]
        said["space"] = open_space(question["space"])
    return said


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(Path(sys.argv[1]).read_text()))))
