"""Whatever the field hands in is answered, with what was done said, or refused in one line."""

from collections.abc import Iterator
from pathlib import Path

import archive_rows
import checkpoint_rows
import container_rows
import damage_rows
import fuzz
import media_rows
import model_rows
import option_rows
import picture_rows
import processor_rows
import pytest
import record_rows
import shown_rows
import soak
import table_rows
import time_rows
import torch
import training_rows
import video_rows
from bench import Bench
from kept_reader import one_reader
from rows import KINDS, Row
from tiny_models import tiny_model

from engagement_recognition import EngagementVideoProcessor

CLASSES = {
    "video": [*video_rows.ROWS, *damage_rows.ROWS, *container_rows.ROWS, *time_rows.ROWS, *shown_rows.ROWS],
    "picture": picture_rows.ROWS,
    "table": table_rows.ROWS,
    "media": media_rows.ROWS,
    "archive": archive_rows.ROWS,
    "model": [*model_rows.ROWS, *option_rows.ROWS, *processor_rows.ROWS, *record_rows.ROWS],
    "training": training_rows.ROWS,
    "checkpoint": checkpoint_rows.ROWS,
}
ROWS = [row for rows in CLASSES.values() for row in rows]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("field") / "engagement"
    torch.manual_seed(0)
    model = tiny_model("resnet18", "lstm", num_frames=8)
    model.save_pretrained(folder)
    EngagementVideoProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    with one_reader():
        yield Bench(folder)


@pytest.mark.parametrize("row", [row.as_param() for row in ROWS])
def test_row(row: Row, bench: Bench, tmp_path: Path):
    given = row.make(tmp_path)
    row.expect.check(lambda: row.run(bench, given))


def test_names_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_every_kind_is_held_by_a_row():
    assert set(KINDS) == {row.kind for row in ROWS} - {None}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fuzzing_finds_nothing():
    assert fuzz.main(["--minutes", "3", "--seed", "1"]) == 0


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_half_an_hour_of_everything():
    assert soak.main([]) == 0
