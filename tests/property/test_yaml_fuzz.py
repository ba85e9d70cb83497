"""Thousands of damaged definition files: only a definition error comes out, and in time."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from cordqa.errors import DefinitionError
from cordqa.phantom.definition import load_phantom
from cordqa.phantom.tolerance import load_tolerances
from cordqa.resources import resource_path

BUDGET_S = 1.4
_TOKENS = (
    *b"null ~ true .nan -.inf 1e400 1.0e+400 -1 0 0x1F 1_000 +1 = yes schema sphere".split(),
    *b"[ ] { } [] {} <<: | > ' #".split(),
    *b"--- ... 2020-01-01 12:30:45 [[[[[[[[ {x:{x:{x:{x:1}}}} \\u0000 %YAML".split(),
    *(
        b": ",
        b"- ",
        b"? ",
        b"- - - - ",
        b"&a ",
        b"*a",
        b"!!python/name:os.system ",
        b"!!binary ",
        b'"',
        b"\n",
        b"\t",
    ),
    *(b"9" * 400, b"9" * 5000, b"a" * 5000, b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8"),
)


def _mutate(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(7)
        if kind == 0 and out:
            out[at % len(out)] = rng.randrange(256)
        elif kind == 1:
            out[at:at] = rng.choice(_TOKENS)
        elif kind == 2:
            del out[at : at + rng.choice((1, 2, 10, 100))]
        elif kind == 3:
            piece = out[at : at + rng.choice((5, 40, 200))]
            other = rng.randrange(len(out) + 1)
            out[other:other] = piece
        elif kind == 4:
            del out[at:]
        elif kind == 5:
            out[at : at + rng.choice((1, 4, 8))] = rng.choice(_TOKENS)
        else:
            lines = bytes(out).split(b"\n")
            rng.shuffle(lines) if rng.random() < 0.1 else lines.insert(
                rng.randrange(len(lines)), rng.choice(lines)
            )
            out = bytearray(b"\n".join(lines))
    return bytes(out)


@pytest.mark.parametrize(
    ("folder_name", "load", "least"),
    [
        ("caliber-diffusion.yaml", load_phantom, 100),
        ("caliber-system.yaml", load_phantom, 20),
        ("tolerances/default.yaml", load_tolerances, 100),
    ],
)
def test_damaged_definitions(tmp_path: Path, folder_name, load, least):
    original = resource_path("phantoms", folder_name).read_bytes()
    rng = random.Random(20261120)
    path = tmp_path / "damaged.yaml"
    start, slowest, runs, refused = time.process_time(), 0.0, 0, 0
    while time.process_time() - start < BUDGET_S:
        path.write_bytes(_mutate(rng, original))
        begin = time.process_time()
        try:
            load(path)
        except DefinitionError as error:
            refused += 1
            sentence = str(error)
            assert "\n" not in sentence
            assert "damaged.yaml" in sentence
            assert len(sentence) < 4000
        slowest = max(slowest, time.process_time() - begin)
        runs += 1
    assert runs >= least
    assert refused > runs // 2
    assert slowest < 1.0


_SMALL = b"""\
schema: 1
id: small
name: n
batches: [{id: "1", first_serial: 1}]
assumed_batch: "1"
sources: [{id: s, citation: c}]
plates:
- {id: A, name: a, quantities: [T1], plane_axes: [x, z], inner_diameter_mm: 15, outer_diameter_mm: 20,
   source: s, spheres: [[1, 0, 0, 0], [2, 30, 0, 0]]}
tables:
- {id: t, plate: A, batches: ["1"], field_strength_T: 3.0, temperature_C: 20, status: measured, source: s,
   units: {T1: ms}, columns: [sphere, T1, u_T1], rows: [[1, 100, 1], [2, 50, 1]],
   extra_uncertainty: [{name: x, why: y, percent: {T1: 1}}]}
"""


def test_thousands_of_damaged_small_definitions(tmp_path: Path):
    """A small file is damaged where it matters more often, and thousands fit into the time."""
    rng = random.Random(7)
    path = tmp_path / "damaged.yaml"
    accepted = runs = 0
    start = time.process_time()
    while runs < 2000 and time.process_time() - start < 4:
        runs += 1
        path.write_bytes(_mutate(rng, _SMALL))
        try:
            load_phantom(path)
            accepted += 1
        except DefinitionError as error:
            assert "\n" not in str(error)
    assert runs > 1000
    assert 0 < accepted < runs / 2


def test_random_bytes(tmp_path: Path):
    rng = random.Random(8)
    path = tmp_path / "noise.yaml"
    for _ in range(500):
        path.write_bytes(rng.randbytes(rng.randrange(200)))
        with pytest.raises(DefinitionError):
            load_phantom(path)
