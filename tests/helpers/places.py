"""Where this checkout lies, and the real data beside it that some tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
