"""Other versions of packages than those that are installed."""

import importlib.metadata

import pytest


def pretend(monkeypatch: pytest.MonkeyPatch, package: str, version: str | None) -> None:
    """As if this version, or none, were installed."""
    really = importlib.metadata.version

    def installed(name: str) -> str:
        if name == package and version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version if name == package else really(name)

    monkeypatch.setattr(importlib.metadata, "version", installed)
