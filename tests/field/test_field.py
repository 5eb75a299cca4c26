"""Whatever the field hands in is answered, with what was done said, or refused in one line."""

from pathlib import Path

import archive_rows
import checkpoint_rows
import model_rows
import picture_rows
import pytest
import table_rows
import training_rows
import video_rows
from bench import Bench
from rows import Row

CLASSES = {
    "video": video_rows.ROWS,
    "picture": picture_rows.ROWS,
    "table": table_rows.ROWS,
    "archive": archive_rows.ROWS,
    "model": model_rows.ROWS,
    "training": training_rows.ROWS,
    "checkpoint": checkpoint_rows.ROWS,
}
ROWS = [row for rows in CLASSES.values() for row in rows]


@pytest.mark.parametrize("row", [row.as_param() for row in ROWS])
def test_row(row: Row, bench: Bench, tmp_path: Path):
    given = row.make(tmp_path)
    row.expect.check(lambda: row.run(bench, given))


def test_names_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)
