"""Prints the newest Python of this machine, other than the one that runs this, that setup.cfg names; or nothing."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

WITH_PIP = "import sys, venv, ensurepip; print(*sys.version_info[:2])"


def supported_versions(setup_cfg: Path) -> list[tuple[int, int]]:
    """(major, minor) of the classifiers, newest first."""
    parser = configparser.ConfigParser()
    parser.read(setup_cfg, encoding="utf-8")
    found = re.findall(r":: (\d+)\.(\d+)$", parser["metadata"]["classifiers"], re.MULTILINE)
    return sorted(((int(major), int(minor)) for major, minor in found), reverse=True)


def candidates(major: int, minor: int) -> list[str]:
    """Programs that may be this Python: what the search path has, and what pyenv installed."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(pyenv.glob(f"{major}.{minor}.*/bin/python"))
    on_path = shutil.which(f"python{major}.{minor}")
    return [*map(str, installed), *([on_path] if on_path else [])]


def makes_environments(program: str, version: tuple[int, int]) -> bool:
    """Whether it starts, is what its name says, and has what `python -m venv` needs."""
    done = subprocess.run([program, "-c", WITH_PIP], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.split() == [str(part) for part in version]


if __name__ == "__main__":
    for version in supported_versions(Path(__file__).parents[1] / "setup.cfg"):
        programs = [program for program in candidates(*version) if makes_environments(program, version)]
        if version != sys.version_info[:2] and programs:
            print(programs[0])
            break
