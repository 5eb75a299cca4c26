"""Results files → one Markdown table and one HTML page; every number is read from `results.json`.

One row per model and data set, with baselines that need no model. The page's imports are late, so that the table takes
only a moment.
"""

from collections.abc import Sequence
from pathlib import Path

from ..processor.input_errors import DataError
from .markdown import escape_markdown, markdown_table
from .report_table import COLUMNS, DO_NOT_COMPARE, DRAWN_NOTES, LIMITS, Run, group_runs, short_names
from .results_file import read_results

PAGE_FILE, TABLE_FILE = "report.html", "report.md"


def results_table(folders: Sequence[Path]) -> str:
    """Scores on test as Markdown: one row per model, one table per data set and labels, with notes below.

    Raises:
        ModelLoadError: a folder has no results.
    """
    tables = group_runs(_read_runs(folders))
    parts = [DO_NOT_COMPARE] if len(tables) > 1 else []
    for table in tables:
        parts += [f"**{escape_markdown(table.title)}**", markdown_table(COLUMNS, table.rows)]
        parts.append("\n".join(f"- {escape_markdown(f'{name}: {_emphasised(note)}')}" for name, note in table.notes))
    return "\n\n".join(part for part in parts if part)


def write_report(folders: Sequence[Path], output: Path, training_logs: Sequence[Path] = ()) -> list[Path]:
    """The table as `report.md`; with a section per model, and all figures, as `report.html`.

    Args:
        output: a folder; created if it does not exist.
        training_logs: CSV logs in the format of `training_log.read_training_log`, drawn as curves.

    Returns:
        The two files. The same results give the same bytes.

    Raises:
        ModelLoadError: a folder has no results.
        DataError: a file that is not a log, or an output that cannot be written.
    """
    from .report_page import render_page

    page = render_page(_read_runs(folders), training_logs)
    table = f"# Measured results\n\n{LIMITS}\n\n{results_table(folders)}\n"
    files = {output / PAGE_FILE: page, output / TABLE_FILE: table}
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"The report could not be written to {output} ({error}).") from error
    return list(files)


def _read_runs(folders: Sequence[Path]) -> list[Run]:
    folders = list({folder.resolve(): folder for folder in folders}.values())
    return [Run(name, read_results(folder)) for name, folder in zip(short_names(folders, 2), folders, strict=True)]


def _emphasised(note: str) -> str:
    return f"**{note}**" if note in DRAWN_NOTES else note
