"""The SVG writer: whatever goes in, valid and harmless markup comes out."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cordqa.report.svg import SHAPES, Canvas, coordinate, escape_markup, marker_icon, shorten, text_width

HOSTILE = "</text><script>alert(1)</script>\" onload='x' & ]]> \x00\x1b\u202e\ud800"


def test_every_text_and_attribute_is_escaped():
    canvas = Canvas(10, 10, label=HOSTILE, description=HOSTILE)
    canvas.text(1, 1, HOSTILE, HOSTILE, anchor=HOSTILE, name=HOSTILE)
    canvas.circle(1, 1, 1, HOSTILE, title=HOSTILE, name=HOSTILE)
    canvas.rect(1, 1, 2, 2, HOSTILE, title=HOSTILE, name=HOSTILE)
    canvas.mark("square", 1, 1, 1, HOSTILE, title=HOSTILE, name=HOSTILE)
    canvas.group(HOSTILE, HOSTILE)
    canvas.end()
    root = ET.fromstring(str(canvas.render(HOSTILE)))
    assert {node.tag for node in root.iter()} == {
        "svg",
        "desc",
        "text",
        "circle",
        "title",
        "rect",
        "path",
        "g",
    }
    assert all(set(node.attrib) <= {"class", "data-n", "d", "x", "y"} for node in root.iter("path"))
    # What can be shown is shown unchanged; what cannot is marked, not dropped silently.
    assert root.find("text").text.startswith("</text><script>alert(1)</script>\" onload='x' & ]]> ")
    assert "\N{REPLACEMENT CHARACTER}" in root.find("text").text


@given(st.text())
def test_any_text_survives_an_xml_parser(text):
    canvas = Canvas(10, 10, label=text)
    canvas.text(0, 0, text)
    root = ET.fromstring(str(canvas.render()))
    assert [node.tag for node in root.iter()] == ["svg", "text"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_coordinate_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="not finite"):
        coordinate(value)
    with pytest.raises(ValueError, match="not finite"):
        Canvas(10, 10).line((0, 0), (1, value), "x")


def test_coordinates_are_short():
    assert [coordinate(value) for value in (1, 1.04, 1.06, -2.25, 100.0)] == ["1", "1", "1.1", "-2.2", "100"]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_marker_shape_is_drawn_around_its_point(shape):
    canvas = Canvas(100, 100, label="x")
    canvas.mark(shape, 50, 50, 5, "point", title="tip", name="n")
    node = ET.fromstring(str(canvas.render()))[0]
    assert node.get("data-n") == "n"
    assert node.find("title").text == "tip"
    assert (node.tag == "circle") == (shape == "circle")


def test_a_picture_must_be_base64():
    with pytest.raises(ValueError, match="base64"):
        Canvas(10, 10).image((0, 0, 10, 10), 'AAAA" onload="alert(1)')


def test_an_icon_is_hidden_from_screen_readers():
    root = ET.fromstring(str(marker_icon(1)))
    assert root.get("aria-hidden") == "true"
    assert root.get("role") is None


@given(st.text(min_size=1), st.floats(5, 500))
def test_shortened_text_fits(text, width):
    short = shorten(text, width)
    assert short == text or (short.endswith("…") and (text_width(short) <= width or len(short) <= 2))


def test_escaping_covers_both_quotes():
    assert escape_markup("<a b='c' d=\"e\">&") == "&lt;a b=&#39;c&#39; d=&#34;e&#34;&gt;&amp;"
