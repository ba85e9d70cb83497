"""Mutations of small valid files, the same for the same seed."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from helpers_dicom import (
    SECRETS,
    add_philips_scale,
    enhanced_image,
    mr_image,
    picture,
    set_pixels,
    uid,
    write,
)
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from cordqa.errors import CordqaError
from cordqa.io.folder import read_folder
from cordqa.io.limits import ReadLimits

#: Small enough that a mutation which reaches them is seen in the memory of the process.
LIMITS = ReadLimits(
    max_pixels_per_file=4 * 1024 * 1024,
    max_total_bytes=64 * 1024 * 1024,
    max_inflated_bytes=8 * 1024 * 1024,
)
SIDECAR = {
    "Manufacturer": "Siemens",
    "MagneticFieldStrength": 3,
    "ScanningSequence": "SE",
    "RepetitionTime": 2.5,
    "EchoTime": [0.01, 0.02],
    "FlipAngle": 90,
    "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    "PhantomTemperature": 20.5,
}
_LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


def dicom_seeds(folder: Path) -> list[bytes]:
    """Valid DICOM files of every kind that is read."""
    native = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
    seeds = [
        write(folder / "seed", _twelve_bits(), syntax).read_bytes()
        for syntax in (*native, DeflatedExplicitVRLittleEndian)
    ]
    for syntax in (RLELossless, JPEG2000Lossless):
        ds = _twelve_bits(32, 40)  # the wavelet transform needs some room
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.compress(syntax, generate_instance_uid=False)
        seeds.append(write(folder / "seed", ds, syntax).read_bytes())
    philips = add_philips_scale(_twelve_bits(), slope=0.5)
    philips.Manufacturer, philips.RescaleSlope = "Philips", 2
    seeds.append(write(folder / "seed", philips).read_bytes())
    seeds.append(write(folder / "seed", _twelve_bits(), preamble=False).read_bytes())
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        frames = [{"te": te, "ti": 50, "scale": 2.0} for te in (10, 20, 30)]
        ds = enhanced_image(np.stack([picture(s) for s in range(3)]), frames)
        ds.SOPInstanceUID = uid("seed")
        seeds.append(write(folder / "seed", ds, syntax).read_bytes())
    return seeds + _foreign_codecs(folder)


def _foreign_codecs(folder: Path) -> list[bytes]:
    """Streams that no encoder here can make, from the files that come with pydicom."""
    seeds = []
    for name in ("MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_08.dcm", "JPGExtended.dcm"):
        path = get_testdata_file(name, download=False)
        if path is None:
            continue
        source = dcmread(str(path))
        ds = mr_image(np.zeros((2, 2), np.uint16), SOPInstanceUID=uid("seed"))
        for element in source:
            if element.tag.group in (0x0028, 0x7FE0):
                ds[element.tag] = element
        ds.PixelSpacing = [1, 1]
        ds.pop("NumberOfFrames", None)
        seeds.append(write(folder / "seed", ds, source.file_meta.TransferSyntaxUID).read_bytes())
    return seeds


def _twelve_bits(rows: int = 16, columns: int = 12) -> Dataset:
    pixels = picture(1, rows=rows, columns=columns)
    ds = mr_image(pixels, SOPInstanceUID=uid("seed"))
    set_pixels(ds, pixels, bits_stored=12)
    return ds


def nifti_seeds(folder: Path) -> list[bytes]:
    """Valid NIfTI files: both versions, integers and floats."""
    data = np.random.default_rng(0).integers(1, 900, (6, 5, 2, 2))
    affine = np.diag([2.0, 1.5, 5.0, 1.0])
    images = (
        nib.Nifti1Image(data.astype(np.int16), affine),
        nib.Nifti1Image(data.astype(np.float32), affine),
        nib.Nifti2Image(data.astype(np.uint8), affine),
    )
    seeds = []
    for image in images:
        nib.save(image, folder / "seed.nii")
        seeds.append((folder / "seed.nii").read_bytes())
    return seeds


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Damage a file in one to three ways."""
    result = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        if result:
            rng.choice(_MUTATIONS)(result, rng)
    return bytes(result)


def _flip(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)


def _truncate(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _delete(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.randint(1, 64)]


def _insert(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    content[start:start] = rng.randbytes(rng.randint(1, 32))


def _length(content: bytearray, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4))
    start = rng.randrange(len(content))
    value = rng.choice(_LENGTHS) & (256**size - 1)
    content[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _repeat(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    piece = content[start : start + rng.randint(1, 200)]
    content[start:start] = piece * rng.randint(1, 20)


def _swap_words(content: bytearray, rng: random.Random) -> None:
    """Replace one value representation by another, or one tag by another."""
    words = (
        b"SQ",
        b"UN",
        b"OB",
        b"DS",
        b"IS",
        b"US",
        b"FD",
        b"AT",
        b"PN",
        b"\xfe\xff\x00\xe0",
        b"\xfe\xff\xdd\xe0",
    )
    old, new = rng.choice(words[:9]), rng.choice(words)
    places = [i for i in range(len(content) - 1) if content[i : i + 2] == old]
    if places:
        start = rng.choice(places)
        content[start : start + len(new)] = new


_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _truncate, _delete, _insert, _length, _length, _repeat, _swap_words, _swap_words),
)


def run_dicom(folder: Path, seeds: list[bytes], rng: random.Random, count: int) -> int:
    """Read ``count`` mutated files in one folder; return how many ended in a set."""
    _empty(folder)
    for number in range(count):
        (folder / f"{number:04d}").write_bytes(mutate(rng.choice(seeds), rng))
    return _read(folder)


def run_nifti(folder: Path, seeds: list[bytes], rng: random.Random, count: int) -> int:
    """The same for NIfTI files, some compressed, and their sidecars."""
    _empty(folder)
    sidecar = json.dumps(SIDECAR).encode()
    for number in range(count):
        content = rng.choice(seeds)
        damaged = mutate(content, rng) if rng.random() < 0.7 else content
        name, packed = f"{number:04d}.nii", rng.random() < 0.3
        if packed:
            buffer = BytesIO()
            with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
                file.write(damaged)
            damaged, name = buffer.getvalue(), f"{name}.gz"
            damaged = mutate(damaged, rng) if rng.random() < 0.5 else damaged
        (folder / name).write_bytes(damaged)
        text = mutate(sidecar, rng) if rng.random() < 0.5 else sidecar
        (folder / f"{number:04d}.json").write_bytes(text)
    (folder / "phantom.yaml").write_bytes(mutate(b"serial_number: '42'\ntemperature_C: 21.0\n", rng))
    return _read(folder)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _read(folder: Path) -> int:
    """Read; only errors of this project may come out, in one line that shows no identity."""
    try:
        reading = read_folder(folder, limits=LIMITS)
    except CordqaError as error:
        _check_text(str(error))
        return 0
    for images in reading.sets:
        if images.data.shape[0] != len(images.acquisitions) or not np.isfinite(images.affine).all():
            raise AssertionError("an image set is not consistent")
        # Vendor and model are what the damaged header calls so, whatever that has become.
        _check_text(images.label, secrets=())
        for notice in images.notices:
            _check_text(notice.message)
    for outcome in reading.outcomes:
        _check_text(outcome.reason)
    return len({source for images in reading.sets for source in images.sources})


def _check_text(text: str, *, secrets: tuple[str, ...] = SECRETS) -> None:
    if not text.isprintable() or any(secret in text for secret in secrets):
        raise AssertionError(f"not fit to show: {text[:200]!r}")
