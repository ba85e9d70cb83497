"""Figures as data: pictures decode to themselves, data are JSON, shapes are checked."""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib

import numpy as np
import pytest

from cordqa import figures
from cordqa.errors import InputError
from cordqa.figures import Circle, Curve, Group, Series, encode_png, shrink_image, to_grey


def decode_png(data: bytes) -> np.ndarray:
    """Read an 8-bit grey PNG by the specification, one pixel at a time."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + body)
        chunks[name] = body
        at += 12 + length
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour) == (8, 0)
    raw = zlib.decompress(chunks[b"IDAT"])
    image = np.zeros((height + 1, width + 1), dtype=int)  # a margin of zeros above and to the left
    for row in range(height):
        kind, line = raw[row * (width + 1)], raw[row * (width + 1) + 1 : (row + 1) * (width + 1)]
        for column in range(width):
            a, b, c = (int(v) for v in (image[row + 1, column], image[row, column + 1], image[row, column]))
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            guess = (0, a, b, (a + b) // 2, nearest)[kind]
            image[row + 1, column + 1] = (line[column] + guess) % 256
    return image[1:, 1:].astype(np.uint8)


@pytest.mark.parametrize("kind", ["noise", "ramp", "constant", "disc", "single"])
def test_a_picture_decodes_to_itself(kind):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:33, :47]
    image = {
        "noise": rng.integers(0, 256, (33, 47)),
        "ramp": x * 5 + y,
        "constant": np.full((33, 47), 200),
        "disc": 255 * (np.hypot(x - 20, y - 15) < 10),
        "single": np.array([[7]]),
    }[kind].astype(np.uint8)
    assert np.array_equal(decode_png(encode_png(image)), image)


def test_filters_make_a_smooth_picture_smaller():
    y, x = np.mgrid[:128, :128]
    image = np.round(120 + 80 * np.sin(x / 17) * np.cos(y / 23)).astype(np.uint8)
    plain = zlib.compress(b"".join(b"\0" + row.tobytes() for row in image), 9)
    assert len(encode_png(image)) < 0.8 * len(plain)


@pytest.mark.parametrize(
    "image", [np.zeros((0, 4), np.uint8), np.zeros((2, 2)), np.zeros((2, 2, 2), np.uint8)]
)
def test_what_is_not_a_grey_picture_is_refused(image):
    with pytest.raises(InputError, match="grey picture"):
        encode_png(image)


@pytest.mark.parametrize("shape", [(300, 200), (257, 256), (1000, 3), (3, 1000)])
def test_shrinking_keeps_mean_and_proportions(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    small, factor = shrink_image(image, 256)
    assert max(small.shape) == 256
    assert small.shape == tuple(max(1, round(side / factor)) for side in shape)
    if min(shape) > 100:
        assert abs(small.mean() - image.mean()) < 1.0


def test_shrinking_by_a_whole_factor_is_a_block_mean():
    image = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    blocks = image.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    assert np.array_equal(shrink_image(image, 4)[0], np.round(blocks).astype(np.uint8))


def test_grey_levels_span_the_range_and_survive_nan():
    image = np.array([[math.nan, 0.0, 5.0], [10.0, math.inf, 1e300]])
    grey = to_grey(image, percentiles=(0, 100))
    assert grey.dtype == np.uint8
    assert grey[0, 0] == 0
    assert grey[1, 2] == 255
    assert not to_grey(np.full((3, 3), math.nan)).any()
    assert not to_grey(np.full((3, 3), 4.0)).any()


def test_circles_follow_a_picture_that_was_shrunk():
    image = np.zeros((512, 512), np.uint8)
    figure = figures.plate("p", "P", image=image, circles=[Circle(x=255.5, y=99.5, radius=8, label="1")])
    (circle,) = figure.data["circles"]
    assert (figure.data["width"], figure.data["height"]) == (256, 256)
    assert (circle["x"], circle["y"], circle["radius"]) == (128, 50, 4)
    assert decode_png(base64.b64decode(figure.data["png"])).shape == (256, 256)


def test_data_are_json_and_nan_is_null():
    figure = figures.identity(
        "i",
        "I",
        series=[Series(label="a", x=np.array([1.0, 2]), y=[math.nan, np.float32(2)])],
        tolerance_percent=(-5, 5),
    )
    assert json.loads(json.dumps(figure.data, allow_nan=False))["series"][0]["y"] == [None, 2.0]
    assert figure.data["band"] == [[None, -5.0, 5.0]]


def test_a_tolerance_may_change_with_the_reference():
    figure = figures.identity("i", "I", series=[], tolerance_percent=[(10, -8, 8), (1000, -3, 3)])
    assert figure.data["band"] == [[10.0, -8.0, 8.0], [1000.0, -3.0, 3.0]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: figures.identity("n", "N", series=[Series(label="s", x=[1, 2], y=[1])]),
        lambda: figures.curves(
            "n", "N", curves=[Curve(label="c", x=[1, 2], y=[1, 2], used=[True])], x_label="x"
        ),
        lambda: figures.strip("n", "N", panels={"p": [Group(label="g", values=[1, 2], names=["a"])]}),
        lambda: figures.heatmap("n", "N", rows=["a"], columns=["b", "c"], values=[[1]]),
        lambda: figures.control_chart(
            "n", "N", panels=[figures.ControlPanel(label="x", when=["2024-01-01"], values=[1, 2])]
        ),
    ],
)
def test_columns_of_different_length_are_named(make):
    with pytest.raises(InputError, match="found"):
        make()


def test_a_date_that_is_not_one_is_named():
    with pytest.raises(InputError, match="yesterday"):
        figures.control_chart(
            "n", "N", panels=[figures.ControlPanel(label="x", when=["yesterday"], values=[1])]
        )


def test_dates_become_days_from_the_first():
    panel = figures.ControlPanel(
        label="x", when=["2024-03-30", "2024-03-31T12:00:00"], values=[1, 2], events={"2024-03-29": "upgrade"}
    )
    (data,) = figures.control_chart("n", "N", panels=[panel]).data["panels"]
    assert data["days"] == [1.0, 2.5]
    assert data["events"] == [{"days": 0.0, "label": "upgrade"}]


def test_every_figure_says_what_it_shows():
    figure = figures.design("d", "Who was where", rows=["a", "b"], columns=["s"], counts=[[1], [0]])
    assert figure.alt == "Who was where: 2 rows by 1 columns, 1 missing, 0 excluded"
    assert figure.caption
