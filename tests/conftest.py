"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real scans beside a development checkout; skip only where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is absent")
    return SHARED
