"""How scanners of three vendors write the weighting of diffusion images, and the type of their maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from cordqa.io.dicom_write_vendor import VendorStyle, ds_text
from cordqa.records import Acquisition

__all__ = ["add_diffusion", "add_diffusion_group"]

_WORDS = {"none": "NONE", "direction": "DIRECTIONAL", "trace": "ISOTROPIC"}
#: GE adds this to mark how the directions were chosen.
_GE_OFFSET = 1_000_000_000
_PHILIPS_LETTERS = {"none": "", "direction": "O", "trace": "I"}


def add_diffusion(
    dataset: Dataset, style: VendorStyle, acquisition: Acquisition, *, axes: NDArray[np.float64]
) -> None:
    """Add b-value and direction to a classic image as the vendor writes them.

    Parameters
    ----------
    dataset : Dataset
        Changed in place; without a b-value only the type of a map is set.
    style : VendorStyle
    acquisition : Acquisition
    axes : ndarray, shape (3, 3)
        Directions of increasing column, row and slice in LPS, one per row.
    """
    if acquisition.map_quantity:
        dataset.ImageType = _map_type(style, acquisition.map_quantity)
        return
    if not math.isfinite(acquisition.b_value_s_per_mm2):
        return
    add = {"Siemens": _siemens, "GE": _ge, "Philips": _philips}[style.vendor]
    add(dataset, acquisition, _along_axes(acquisition.diffusion_direction, axes))


def _map_type(style: VendorStyle, quantity: str) -> list[str]:
    if style.vendor == "Siemens":
        return ["DERIVED", "PRIMARY", "DIFFUSION", quantity, "ND"]
    return ["DERIVED", "PRIMARY", quantity, quantity, "UNSPECIFIED"]


def _along_axes(direction: Sequence[float], axes: NDArray[np.float64]) -> tuple[float, ...]:
    if not direction:
        return (0.0, 0.0, 0.0)
    return tuple(float(value) for value in axes @ np.array(direction))


def _siemens(dataset: Dataset, acquisition: Acquisition, _: tuple[float, ...]) -> None:
    trace = acquisition.diffusion_encoding == "trace"
    head = (
        ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]
        if trace
        else ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    )
    dataset.ImageType = [*head, "ND"]
    b = round(acquisition.b_value_s_per_mm2)
    dataset.SequenceName = f"*ep_b{b}{'t' if trace else ''}"
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", str(b))
    block.add_new(0x0D, "CS", _WORDS.get(acquisition.diffusion_encoding, "NONE"))
    if acquisition.diffusion_direction:
        block.add_new(0x0E, "FD", [float(d) for d in acquisition.diffusion_direction])


def _ge(dataset: Dataset, acquisition: Acquisition, along: tuple[float, ...]) -> None:
    b = round(acquisition.b_value_s_per_mm2)
    parameters = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    parameters.add_new(0x39, "IS", [str(b + _GE_OFFSET if b else 0), "8", "0", "0"])
    block = dataset.private_block(0x0019, "GEMS_ACQU_01", create=True)
    for element, value in zip((0xBB, 0xBC, 0xBD), along, strict=True):
        block.add_new(element, "DS", ds_text(value))


def _philips(dataset: Dataset, acquisition: Acquisition, _: tuple[float, ...]) -> None:
    direction = [float(d) for d in acquisition.diffusion_direction or (0.0, 0.0, 0.0)]
    dataset.DiffusionBValue = float(acquisition.b_value_s_per_mm2)
    dataset.DiffusionGradientOrientation = direction
    imaging = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True)
    imaging.add_new(0x03, "FL", float(acquisition.b_value_s_per_mm2))
    imaging.add_new(0x04, "CS", _PHILIPS_LETTERS.get(acquisition.diffusion_encoding, ""))
    block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    for element, value in zip((0xB0, 0xB1, 0xB2), direction, strict=True):
        block.add_new(element, "FL", value)


def add_diffusion_group(frame: Dataset, acquisition: Acquisition) -> None:
    """Add the MR Diffusion functional group to a frame of an Enhanced image, where there is a b-value."""
    if not math.isfinite(acquisition.b_value_s_per_mm2):
        return
    item = Dataset()
    item.DiffusionBValue = float(acquisition.b_value_s_per_mm2)
    item.DiffusionDirectionality = _WORDS.get(acquisition.diffusion_encoding, "NONE")
    if acquisition.diffusion_direction:
        direction: Any = Dataset()
        direction.DiffusionGradientOrientation = [float(d) for d in acquisition.diffusion_direction]
        item.DiffusionGradientDirectionSequence = DicomSequence([direction])
    frame.MRDiffusionSequence = DicomSequence([item])
