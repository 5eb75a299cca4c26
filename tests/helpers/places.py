"""Where this checkout lies, and the real data beside it that some tests read."""

import configparser
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REAL_DATA = Path(os.environ.get("ENGAGEMENT_REAL_DATA", ROOT.parent / "shared/data"))


def setup_cfg() -> configparser.ConfigParser:
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    return declared
