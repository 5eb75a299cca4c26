"""The packages and versions that this one needs: the content of `setup.cfg`, from the metadata that pip installed.

Where the code runs without being installed, as in a Space, the requirements are unknown and nothing is checked.
"""

import importlib.metadata
from collections.abc import Collection, Iterable

from packaging.requirements import Requirement
from packaging.version import Version

from ..processor.input_errors import EngagementInputError

DISTRIBUTION = "engagement-recognition"
# Imported by the code that is stored with a model's weights.
OF_A_MODEL = (
    "av", "facenet-pytorch", "huggingface-hub", "numpy", "pillow", "timm", "torch", "torchvision", "transformers",
)  # fmt: skip


def required_packages(extra: str = "") -> list[Requirement]:
    """The requirements of the package, or those that an extra adds."""
    try:
        requirements = [Requirement(line) for line in importlib.metadata.requires(DISTRIBUTION) or ()]
    except importlib.metadata.PackageNotFoundError:
        return []
    if not extra:
        return [needed for needed in requirements if needed.marker is None]
    return [needed for needed in requirements if needed.marker and needed.marker.evaluate({"extra": extra})]


def pip_lines(names: Collection[str]) -> list[str]:
    """Lines of a `requirements.txt` for these packages, sorted by name."""
    return sorted(str(needed) for needed in required_packages() if needed.name in names)


def installed_version(name: str) -> str | None:
    """The installed version; None if the package is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def lacks(needed: Requirement) -> bool:
    """Whether the package is missing or too old; a version newer than any tested one is accepted."""
    version = installed_version(needed.name)
    lowest = [Version(part.version) for part in needed.specifier]
    return version is None or any(Version(version) < bound for bound in lowest)


def what_to_install(requirements: Iterable[Requirement]) -> str | None:
    """Which requirements are missing or too old, and the command that installs them; None: all are met."""
    lacking = [needed for needed in requirements if lacks(needed)]
    if not lacking:
        return None
    found = ", ".join(f"{needed.name} {installed_version(needed.name) or 'none'}" for needed in lacking)
    wanted = [f"{needed.name}{needed.specifier}" for needed in lacking]
    return f"Expected {', '.join(wanted)}, got {found}; pip install {' '.join(map(repr, wanted))}"


def require_packages(names: Collection[str] | None = None) -> None:
    """Raises EngagementInputError if a required package (one of `names`, or any) is missing or too old; in an
    installation for exports alone most are missing."""
    needed = [package for package in required_packages() if names is None or package.name in names]
    if problem := what_to_install(needed):
        raise EngagementInputError(f"{problem}.")


def require_extra(extra: str, names: Collection[str], instead: str = "") -> None:
    """Check for some of an extra's packages before they are imported.

    Args:
        names: the extra's packages that are about to be used.
        instead: alternative for a user who does not want to install them.

    Raises:
        EngagementInputError: one of them is missing or too old.
    """
    if problem := what_to_install(needed for needed in required_packages(extra) if needed.name in names):
        raise EngagementInputError(f"{problem}{instead and f', or {instead}'}.")
