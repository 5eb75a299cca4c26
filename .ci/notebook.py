"""Executes docs/course.ipynb anew in an empty folder and writes it back with its outputs, without what tells of the
machine; `make notebook` does it.
"""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).parents[1] / "docs/course.ipynb"


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Every cell in turn, in this Python's environment, with `folder` as its working folder; outputs go into it.

    Raises:
        CellExecutionError: a cell raised.
    """
    places = {"metadata": {"path": str(folder)}}
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=places, coalesce_streams=True, record_timing=False
    ).execute()


def tidy(notebook: NotebookNode) -> None:
    """Plain lines of text, each picture once, ids by place, and nothing of times and versions."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02}", nbformat.from_dict({})
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = "\n".join(line.rstrip() for line in output.text.splitlines()) + "\n"
            else:
                output.data.pop("image/jpeg", None)  # Pillow shows a picture as PNG and, once more, as JPEG


if __name__ == "__main__":
    course = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        execute(course, Path(folder))
    tidy(course)
    nbformat.write(course, NOTEBOOK)
