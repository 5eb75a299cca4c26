"""One bench for all rows."""

import pytest
import torch
from bench import Bench
from tiny_models import tiny_model

from engagement_recognition import EngagementVideoProcessor


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("field") / "engagement"
    torch.manual_seed(0)
    model = tiny_model("resnet18", "lstm", num_frames=8)
    model.save_pretrained(folder)
    EngagementVideoProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return Bench(folder)
