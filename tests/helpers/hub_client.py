"""This process as a client of `hub_server` and of no other Hub, and what tests of data put there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hub_server import WRITE_TOKEN, HubServer

from engagement_recognition.data.checksums import CHECKSUMS_FILE, write_checksums

# What somebody without this package does.
STRANGER = """
import json, sys
from datasets import load_dataset
data, stream = load_dataset("org/clips"), load_dataset("org/clips", streaming=True)
for split, rows in data.items():
    for row, streamed in zip(rows, stream[split], strict=True):
        assert [picture.tobytes() for picture in row["frames"]] == [picture.tobytes() for picture in streamed["frames"]]
pictures = [(picture.size, picture.mode) for picture in data["test"][0]["frames"]]
assert not [name for name in sys.modules if name.startswith("engagement_recognition")]
print(json.dumps({"rows": {split: len(rows) for split, rows in data.items()}, "pictures": pictures}))
"""


@contextmanager
def the_only_hub(server: HubServer, cache: Path) -> Iterator[None]:
    """huggingface_hub asks this server, with a token that may write, and keeps what it fetches in `cache`."""
    known = {"ENDPOINT": server.endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": False}
    known |= {"HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"}
    known |= {"HF_HUB_DISABLE_XET": True, "HF_HUB_DISABLE_TELEMETRY": True}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in known.items():
            patch.setattr(f"huggingface_hub.constants.{name}", value)
        patch.setenv("HF_TOKEN", WRITE_TOKEN)
        yield


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refill(hub: HubServer, repository: str, changes: dict[str, bytes], folder: Path, sums: bool = True) -> None:
    """A repository with the files of org/faces, some of them others, and checksums of all of it or the old ones."""
    contents = {**hub.files("datasets/org/faces"), **changes}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if sums:
        write_checksums(
            folder, [name for name in contents if name not in (CHECKSUMS_FILE, "README.md", ".gitattributes")]
        )
    del contents[".gitattributes"]
    hub.fill(f"datasets/{repository}", {name: (folder / name).read_bytes() for name in contents})
