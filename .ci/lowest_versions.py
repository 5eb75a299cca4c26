"""Prints, as constraints for pip, the lower bound of every package in setup.cfg, extras included."""

import configparser
import re
from pathlib import Path


def lowest_versions(setup_cfg: Path) -> list[str]:
    """`name==version` for each requirement, sorted; a package named twice has one bound."""
    parser = configparser.ConfigParser()
    parser.read(setup_cfg, encoding="utf-8")
    lists = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    lines = [line for text in lists for line in text.splitlines() if line and not line.startswith("#")]
    return sorted({re.sub(r"[>=]=", "==", line) for line in lines})


if __name__ == "__main__":
    print("\n".join(lowest_versions(Path(__file__).parents[1] / "setup.cfg")))
