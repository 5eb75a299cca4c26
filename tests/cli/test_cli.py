"""The command's own part: which errors are one line, which are a traceback, and what it exits with."""

import subprocess
import sys
from pathlib import Path

import pytest

from engagement_recognition.cli import main as cli

HELP = [sys.executable, "-c", "from engagement_recognition.cli.main import main; main()", "--help"]


PRINTING = """
import sys, typer
from engagement_recognition.cli import main as cli
cli.app = lambda: typer.echo("x" * int(sys.argv[1]))
cli.main()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without room")
@pytest.mark.parametrize(
    "command",
    [HELP, [sys.executable, "-c", PRINTING, "10"], [sys.executable, "-c", PRINTING, "100000"]],
    ids=["help", "short", "more than a buffer"],
)
def test_a_full_disk_behind_standard_output_is_one_line(command: list[str]):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ") and "No space left" in line


def test_a_reader_that_went_away_is_no_error():
    with subprocess.Popen(HELP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_errors_of_other_files_are_not_taken_for_standard_output_s(monkeypatch: pytest.MonkeyPatch):
    def write() -> None:
        Path("/no/such/folder/file").write_text("")

    monkeypatch.setattr(cli, "app", write)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back afterwards
    with pytest.raises(FileNotFoundError):
        cli.main()
