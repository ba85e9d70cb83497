"""Coregistration of the contrasts of a participant; the work is done in :mod:`cordqa.cord`."""

from __future__ import annotations

from cordqa.cord.motion_coregister import Alignment, align_slices, on_grid

__all__ = ["Alignment", "align_slices", "on_grid"]
