"""A program for a process without this package: what a stranger's machine says of published models."""

ELSEWHERE = """
import json, sys

MISSING = {"engagement_recognition", "datasets", "evaluate", "cv2", "rich", "typer", "sklearn", "matplotlib",
           "accelerate", "pandas", "conftest"}


class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *where):
        return None if name.partition(".")[0] in MISSING else self.finder.find_spec(name, *where)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
try:
    import engagement_recognition
    sys.exit("the package is still there")
except ModuleNotFoundError:
    pass

import torch
from transformers import (AutoImageProcessor, AutoModelForImageClassification, AutoModelForVideoClassification,
                          AutoVideoProcessor, pipeline)

video, picture, video_model, image_model, grey_model = sys.argv[1:]
trusted = {"trust_remote_code": True}
said = {}


def logits(kind, processor, model, source):
    inputs = processor.from_pretrained(model, **trusted)(source)
    with torch.inference_mode():
        return kind.from_pretrained(model, **trusted).eval()(**inputs).logits[0].tolist()


for name in (video_model, "org/engagement"):
    said[name] = logits(AutoModelForVideoClassification, AutoVideoProcessor, name, video)
    said[name + " pipeline"] = pipeline("video-classification", model=name, **trusted)(video)
for name in (image_model, grey_model, grey_model):
    said[name] = logits(AutoModelForImageClassification, AutoImageProcessor, name, picture)
    said[name + " pipeline"] = pipeline("image-classification", model=name, top_k=7, **trusted)(picture)
print(json.dumps(said))
"""
