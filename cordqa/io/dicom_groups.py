"""Frames of an Enhanced multi-frame object: which functional groups describe each of them."""

from __future__ import annotations

from pydicom.dataset import Dataset

from cordqa.errors import UnreadableFileError
from cordqa.io.dicom_header import Header, sequence_items, tag_of
from cordqa.io.vendors import philips_items

__all__ = ["frame_headers"]


def frame_headers(dataset: Dataset, count: int) -> list[Header]:
    """Return one header per frame; functional groups go before what stands at the top."""
    top = Header([dataset])
    per_frame = top.items("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if count > 1:
            raise UnreadableFileError(
                "has several frames but no description of each",
                expected="PerFrameFunctionalGroupsSequence (5200,9230)",
                todo="export as classic or Enhanced MR",
            )
        return [Header([dataset, *_extras(dataset)])]
    if len(per_frame) != count:
        raise UnreadableFileError(
            "the number of frames contradicts NumberOfFrames (0028,0008)",
            found=str(len(per_frame)),
            expected=str(count),
            todo="export the file again",
        )
    common = top.items("SharedFunctionalGroupsSequence")[:1]
    shared = [group for item in common for group in _groups(item)]
    last = [*_extras(dataset), *(extra for item in common for extra in _extras(item))]
    return [Header([*_groups(item), *shared, dataset, *_extras(item), *last]) for item in per_frame]


def _groups(item: Dataset) -> list[Dataset]:
    """Return the first item of every functional group of one frame."""
    header = Header([item])
    groups = []
    for tag in list(item.keys()):
        # Philips' private sequence repeats classic elements, half a voxel off: it goes last.
        group = sequence_items(header.raw(tag)) if tag >> 16 != 0x2005 else []
        if len(group) == 1 or tag != tag_of("RealWorldValueMappingSequence"):
            groups += group[:1]
    return groups


def _extras(dataset: Dataset) -> list[Dataset]:
    """Return nested places where classic files keep further elements."""
    header = Header([dataset])
    mappings = header.items("RealWorldValueMappingSequence")
    # Several mappings mean a piecewise or a multi-unit scale, which one slope cannot describe.
    return [*(mappings if len(mappings) == 1 else []), *philips_items(header)[:1]]
