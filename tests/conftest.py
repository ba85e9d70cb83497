"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

# The tests share the cores already; threads of linear algebra on top of them only wait for each other.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real scans beside a development checkout; skip only where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is absent")
    return SHARED
