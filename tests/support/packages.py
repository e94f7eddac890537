"""Environments that lack a package."""

from __future__ import annotations

import importlib.util

import pytest


def without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if bitsandbytes were not installed."""
    original = importlib.util.find_spec

    def find_spec(name: str, *more: object) -> object:
        return None if name == "bitsandbytes" else original(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
