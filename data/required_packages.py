"""Which packages this one needs, and of which versions: what `setup.cfg` says, as pip wrote it down on installing.

Nothing is known, and so nothing is asked, where the code runs without having been installed, as in a Space.
"""

import importlib.metadata
from collections.abc import Collection, Iterable

from packaging.requirements import Requirement
from packaging.version import Version

from ..processor.input_errors import EngagementInputError

DISTRIBUTION = "engagement-recognition"
# What the code that is copied beside a model's weights imports.
OF_A_MODEL = (
    "av", "facenet-pytorch", "huggingface-hub", "numpy", "pillow", "timm", "torch", "torchvision", "transformers",
)  # fmt: skip


def required_packages(extra: str = "") -> list[Requirement]:
    """What is always needed, or what an extra adds to it."""
    try:
        requirements = [Requirement(line) for line in importlib.metadata.requires(DISTRIBUTION) or ()]
    except importlib.metadata.PackageNotFoundError:
        return []
    if not extra:
        return [needed for needed in requirements if needed.marker is None]
    return [needed for needed in requirements if needed.marker and needed.marker.evaluate({"extra": extra})]


def pip_lines(names: Collection[str]) -> list[str]:
    """What a `requirements.txt` of these packages holds, sorted by name."""
    return sorted(str(needed) for needed in required_packages() if needed.name in names)


def installed_version(name: str) -> str | None:
    """None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def lacks(needed: Requirement) -> bool:
    """Whether it is missing, or older than needed; a version newer than any that was tried passes."""
    version = installed_version(needed.name)
    lowest = [Version(part.version) for part in needed.specifier]
    return version is None or any(Version(version) < bound for bound in lowest)


def what_to_install(requirements: Iterable[Requirement]) -> str | None:
    """Which of them are missing or too old, and the command that mends it; None: all are there."""
    lacking = [needed for needed in requirements if lacks(needed)]
    if not lacking:
        return None
    found = ", ".join(f"{needed.name} {installed_version(needed.name) or 'none'}" for needed in lacking)
    wanted = [f"{needed.name}{needed.specifier}" for needed in lacking]
    return f"Expected {', '.join(wanted)}, got {found}; pip install {' '.join(map(repr, wanted))}"


def require_packages(names: Collection[str] | None = None) -> None:
    """Raises EngagementInputError where a package that is always needed, or one of those named, is missing or too old:
    of an installation for exports alone most are."""
    needed = [package for package in required_packages() if names is None or package.name in names]
    if problem := what_to_install(needed):
        raise EngagementInputError(f"{problem}.")


def require_extra(extra: str, names: Collection[str], instead: str = "") -> None:
    """Look for some of an extra's packages before they are imported.

    Args:
        names: those of the extra's packages that are about to be used.
        instead: what a user can do who does not want to install them.

    Raises:
        EngagementInputError: one of them is missing or too old.
    """
    if problem := what_to_install(needed for needed in required_packages(extra) if needed.name in names):
        raise EngagementInputError(f"{problem}{instead and f', or {instead}'}.")
