"""Find the user's own masks, labels and warps of an image: they always win.

Understood are BIDS derivatives (``sub-01_label-SC_mask``, ``sub-01_desc-cord_mask``, with the
image named in ``Sources`` or in ``desc``), the spine-generic names, which keep the suffix of the
image (``sub-01_T2w_label-SC_seg``, ``sub-01_T2w_label-discs_dlabel``) and the older
``sub-01_T2w_seg-manual``.  What could belong to two images is not used, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cordqa.errors import InputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.files import printable
from cordqa.records import Notice, Severity

__all__ = ["Role", "UserFiles", "file_role", "find_user_files"]


class Role(StrEnum):
    """What a file of the user says about an image."""

    CORD = "cord mask"
    GREY_MATTER = "grey matter mask"
    WHITE_MATTER = "white matter mask"
    CANAL = "canal mask"
    LESION = "lesion mask"
    DISCS = "disc labels"
    VERTEBRAE = "vertebral levels"
    ROOTLETS = "rootlets"
    PMJ = "pontomedullary junction"
    CENTRELINE = "centreline"
    WARP = "warp"


@dataclass(frozen=True, slots=True)
class UserFiles:
    """The files that belong to one image, one for each role; ``warps`` by (from, to)."""

    by_role: Mapping[Role, BidsFile]
    warps: Mapping[tuple[str, str], BidsFile]
    notices: tuple[Notice, ...]


_MASKS = frozenset({"mask", "seg", "softseg", "probseg", "dseg"})
_LABELS: Mapping[str, Role] = {
    "sc": Role.CORD,
    "cord": Role.CORD,
    "spinalcord": Role.CORD,
    "gm": Role.GREY_MATTER,
    "greymatter": Role.GREY_MATTER,
    "graymatter": Role.GREY_MATTER,
    "wm": Role.WHITE_MATTER,
    "whitematter": Role.WHITE_MATTER,
    "canal": Role.CANAL,
    "lesion": Role.LESION,
}
_POINTS: Mapping[str, Role] = {
    "disc": Role.DISCS,
    "discs": Role.DISCS,
    "vert": Role.VERTEBRAE,
    "vertebrae": Role.VERTEBRAE,
    "rootlets": Role.ROOTLETS,
    "pmj": Role.PMJ,
    "centerline": Role.CENTRELINE,
    "centreline": Role.CENTRELINE,
}
_OLD: Mapping[str, Role] = {
    "seg-manual": Role.CORD,
    "gmseg-manual": Role.GREY_MATTER,
    "lesion-manual": Role.LESION,
    "pmj-manual": Role.PMJ,
    "centerline-manual": Role.CENTRELINE,
    "rootlets-manual": Role.ROOTLETS,
    "labels-disc-manual": Role.DISCS,
    "labels-discs-manual": Role.DISCS,
    "label-disc-manual": Role.DISCS,
    "label-discs-manual": Role.DISCS,
    "labels-vert-manual": Role.VERTEBRAE,
    "label-vert-manual": Role.VERTEBRAE,
}
#: Entities that describe the label and not the image that it belongs to.
_OWN = frozenset({"label", "desc", "seg", "res", "den", "from", "to", "mode", "hemi", "param"})
#: A mask of the average diffusion image serves the series it was averaged from.
_LOOSE = frozenset({"rec"})
_WARP_FILES = (".h5", ".mat", ".txt")
_BY_HAND = ("manual", "handdrawn", "corrected")


def file_role(file: BidsFile) -> Role | None:
    """Return what a file of a derivative says about its image; ``None`` where it is no label."""
    if not file.is_image:
        return Role.WARP if file.suffix == "xfm" and file.extension in _WARP_FILES else None
    if file.suffix in _OLD:
        return _OLD[file.suffix]
    if file.suffix == "xfm":
        return Role.WARP
    label = file.entities.get("label", "").casefold()
    if label in _POINTS and file.suffix in (*_MASKS, "dlabel", "discs", "label", label):
        return _POINTS[label]
    if file.suffix not in _MASKS:
        return None
    if label:
        return _LABELS.get(label)
    # Without a label only a description can tell; a bare ``mask`` could be of the brain.
    return _LABELS.get(file.entities.get("desc", "").casefold())


def find_user_files(index: BidsIndex, image: BidsFile) -> UserFiles:
    """Find the masks, labels and warps that the user made for one image.

    Of several for one role, those drawn by hand win, then those of exactly the image's entities,
    binary ones before soft ones.

    Parameters
    ----------
    index : BidsIndex
    image : BidsFile
        An image of the raw data.
    """
    found: dict[Role, list[tuple[tuple[int, ...], BidsFile]]] = {}
    warps: dict[tuple[str, str], BidsFile] = {}
    doubtful: list[BidsFile] = []
    for file in index.find(subject=image.subject, derivative=None, extension=None):
        role = file_role(file) if file.derivative else None
        if role is None or not _same_image(file, image):
            continue
        belongs = _belongs(index, file, image)
        if belongs is None:
            doubtful.append(file)
        elif belongs and role is Role.WARP:
            warps.setdefault((file.entities.get("from", ""), file.entities.get("to", "")), file)
        elif belongs:
            found.setdefault(role, []).append((_rank(index, file, image), file))
    chosen = {
        role: min(items, key=lambda item: (item[0], item[1].relative))[1] for role, items in found.items()
    }
    return UserFiles(chosen, warps, tuple(_notices(found, chosen, doubtful)))


def _same_image(file: BidsFile, image: BidsFile) -> bool:
    """Compare the entities that say which image it is; another space is another image."""
    own = {k: v for k, v in file.entities.items() if k not in _OWN and k not in _LOOSE}
    wanted = {k: v for k, v in image.entities.items() if k not in _OWN and k not in _LOOSE}
    if "rec" in image.entities and file.entities.get("rec") != image.entities["rec"]:
        return False
    return own == wanted and file.datatype in ("", image.datatype)


def _belongs(index: BidsIndex, file: BidsFile, image: BidsFile) -> bool | None:
    """Tell whether a label belongs to an image of the same entities; ``None`` where that is open."""
    if file.source_suffix:
        return file.source_suffix == image.suffix
    description = file.entities.get("desc", "")
    rivals = _rivals(index, image)
    if description in rivals | {image.suffix}:
        return description == image.suffix
    named = _named_sources(index, file)
    if named:
        return image.name in named
    return None if rivals else True


def _rivals(index: BidsIndex, image: BidsFile) -> set[str]:
    """Return the suffixes of other images with the same entities."""
    others = index.find(subject=image.subject, datatype=image.datatype or None)
    return {o.suffix for o in others if o.entities == image.entities and o.suffix != image.suffix}


def _named_sources(index: BidsIndex, file: BidsFile) -> set[str]:
    """Return the file names in ``Sources`` and ``SpatialReference`` of a sidecar."""
    try:
        sidecar = index.sidecar(file)
    except InputError:
        return set()
    named: list[object] = []
    for key in ("Sources", "RawSources", "SpatialReference"):
        value = sidecar.get(key)
        named += value if isinstance(value, list) else [value]
    names = {text.rpartition("/")[2].rpartition(":")[2] for text in named if isinstance(text, str)}
    return {name for name in names if name.endswith((".nii", ".nii.gz"))}


def _rank(index: BidsIndex, file: BidsFile, image: BidsFile) -> tuple[int, ...]:
    """Return how good a candidate is; smaller is better."""
    return (
        int(not _is_by_hand(index, file)),
        int(file.entities.get("rec") != image.entities.get("rec")),
        int(file.suffix in ("softseg", "probseg") or "soft" in file.entities.get("desc", "")),
        int("warp" in file.entities.get("desc", "")),
        int(file.suffix.endswith("-manual")),
    )


def _is_by_hand(index: BidsIndex, file: BidsFile) -> bool:
    if file.suffix.endswith("-manual") or file.entities.get("desc", "").casefold() in _BY_HAND:
        return True
    try:
        makers = index.sidecar(file).get("GeneratedBy")
    except InputError:
        return False
    names = [m.get("Name") for m in makers if isinstance(m, dict)] if isinstance(makers, list) else []
    return any(isinstance(name, str) and name.casefold().startswith("manual") for name in names)


def _notices(
    found: Mapping[Role, list[tuple[tuple[int, ...], BidsFile]]],
    chosen: Mapping[Role, BidsFile],
    doubtful: list[BidsFile],
) -> list[Notice]:
    notices = []
    for role, items in found.items():
        if len(items) > 1:
            others = ", ".join(printable(f.relative, limit=120) for _, f in items if f is not chosen[role])
            message = f"several files give the {role}; {chosen[role].name} is used and not {others}"
            notices.append(Notice(severity=Severity.INFO, message=message, code="bids.several-labels"))
    for file in doubtful:
        message = (
            f"{printable(file.relative, limit=160)} could belong to several images and is not used; "
            "name the image under Sources in its sidecar"
        )
        notices.append(Notice(severity=Severity.WARNING, message=message, code="bids.doubtful-label"))
    return notices
