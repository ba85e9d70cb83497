"""Mosaics of the cord: tiles lie where the cord is, outlines where the masks end."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers_cord import cylinder, reoriented

from cordqa.cord.axes import orient
from cordqa.cord.levels import LevelMap
from cordqa.cord.morphometry import measure_morphometry
from cordqa.errors import InputError
from cordqa.io.bids_index import BidsFile
from cordqa.records import Entities, Figure, Volume
from cordqa.workflow.cord_figures import draw_unit
from cordqa.workflow.cord_mosaic import LEVELS, LOOK, Layer, choose_slices, draw_step
from cordqa.workflow.cord_records import CordImage, Levels, Mask, Unit

SPACING = (0.8, 0.8, 2.0)


def make_image(mask: Volume, *, outliers: dict[int, str] | None = None, levels: bool = True) -> CordImage:
    """A bright cord on a dark ground, brighter on the person's right and in front."""
    laid = orient(mask)
    right, front, _ = (np.arange(n) - n / 2 for n in laid.data.shape)
    ground = 10 + right[:, None, None] + 2 * front[None, :, None]
    picture = Volume(
        data=mask.data * 500 + laid.restore(np.broadcast_to(ground, laid.data.shape).copy()),
        affine=mask.affine,
        source="picture",
    )
    table = measure_morphometry(mask)
    n = laid.n_slices
    edges = np.linspace(5.2, 3.0, n + 1)
    found = LevelMap(
        coordinate=(edges[1:] + edges[:-1]) / 2,
        edges=edges,
        stretch=1.0,
        standard_uncertainty_mm=np.zeros(n),
    )
    return CordImage(
        file=BidsFile(
            root=Path("bids"),
            relative="sub-1/anat/sub-1_T2w.nii.gz",
            entities={"sub": "1"},
            suffix="T2w",
            source_suffix="",
            extension=".nii.gz",
            datatype="anat",
            derivative="",
        ),
        volume=picture,
        entities=Entities(acquisition="T2w"),
        mask=Mask(volume=mask, engine="builtin", version="1", method="test"),
        table=table,
        levels=Levels(map=found, how="test") if levels else None,
        outliers=outliers or {},
    )


def draw(image: CordImage, **keys) -> Figure:
    layers = keys.pop("layers", {"T2w": Layer(volume=image.volume)})
    outlines = keys.pop("outlines", {"cord": orient(image.mask.volume).data})
    return draw_step(image, name="n", title="T", layers=layers, outlines=outlines, **keys)


def polygon(points: list[int]) -> np.ndarray:
    return np.reshape(points, (-1, 2)) / 100


def area(line: np.ndarray) -> float:
    x, y = line.T
    return 0.5 * abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))))


def decode(picture: dict) -> np.ndarray:
    # The reader of the report's tests, which follows the specification.
    from report.test_report_figures import decode_png

    return decode_png(base64.b64decode(picture["png"]))


@pytest.mark.parametrize(
    ("order", "flips"), [((0, 1, 2), ()), ((2, 0, 1), (0,)), ((1, 2, 0), (1, 2)), ((0, 1, 2), (0, 1, 2))]
)
def test_the_outline_has_the_area_and_place_of_the_mask_in_any_orientation(order, flips):
    mask = cylinder(shape=(50, 50, 12), spacing=SPACING, centre=(3.0, -2.0))
    data = draw(make_image(reoriented(mask, order, flips))).data
    for tile in data["tiles"]:
        (line,) = (polygon(one["points"]) for one in tile["lines"])
        assert area(line) == pytest.approx(math.pi * 6.5 * 4.0, rel=0.02)
        # The tile is centred on the cord, wider than deep.
        assert line.mean(axis=0) == pytest.approx([15, 15], abs=0.3)
        assert np.ptp(line, axis=0) == pytest.approx([13, 8], abs=0.3)


@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), ()), ((2, 1, 0), (1,))])
def test_the_persons_right_is_left_and_anterior_is_up(order, flips):
    mask = cylinder(shape=(60, 60, 8), spacing=SPACING)
    tile = draw(make_image(reoriented(mask, order, flips))).data["tiles"][0]
    grey = decode(tile["pictures"][0]).astype(int)
    assert grey[2, 2] > grey[2, -3]
    assert grey[2, 2] > grey[-3, 2]


def test_pictures_and_outlines_agree_in_millimetres():
    mask = cylinder(shape=(60, 50, 8), spacing=(0.7, 1.1, 3.0), centre=(2.3, 1.7), soft=False)
    image = make_image(mask)
    tile = draw(image, layers={"mask": Layer(volume=mask)}).data["tiles"][3]
    grey = decode(tile["pictures"][0])
    left, top, width, height = tile["pictures"][0]["box"]
    assert (width / grey.shape[1], height / grey.shape[0]) == pytest.approx((0.7, 1.1))
    rows, columns = np.nonzero(grey > 127)
    centre = (left + (columns.mean() + 0.5) * 0.7, top + (rows.mean() + 0.5) * 1.1)
    (line,) = (polygon(one["points"]) for one in tile["lines"])
    middle = (line.min(axis=0) + line.max(axis=0)) / 2
    assert centre == pytest.approx(tuple(middle), abs=0.3)


def test_slices_that_need_a_look_come_first_with_their_reason():
    mask = cylinder(shape=(50, 50, 40), spacing=SPACING)
    image = make_image(mask, outliers={7: "low confidence", 30: "area unlike its neighbours'"})
    image = replace(image, left_out={12: "marked 'fail'"})
    data = draw(image, count=10).data
    numbers = [tile["number"] for tile in data["tiles"]]
    assert numbers[:3] == [30, 12, 7]
    assert numbers[3:] == sorted(numbers[3:], reverse=True)
    assert len(set(numbers)) == 10
    assert data["tiles"][1]["reason"] == "marked 'fail'"
    assert data["remark"] == "10 of 40 slices are shown."
    assert [tile["label"] for tile in data["tiles"]][3:5] == ["C3", "C3"]
    assert [rule["label"] for rule in data["side"]["rules"] if rule["label"].startswith("▲")] == [
        "▲ 30",
        "▲ 7",
    ]


def test_more_unusual_slices_than_tiles():
    image = make_image(
        cylinder(shape=(50, 50, 30), spacing=SPACING), outliers=dict.fromkeys(range(30), "odd")
    )
    assert len(choose_slices(image, 5)) == 5


def test_levels_stand_at_their_heights_from_the_side():
    mask = cylinder(shape=(50, 50, 22), spacing=SPACING)
    side = draw(make_image(mask)).data["side"]
    assert side["size"] == [54.0, 44.0]
    words = {rule["label"]: rule["y"] for rule in side["rules"] if rule["label"]}
    borders = [rule["y"] for rule in side["rules"] if not rule["label"]]
    # C3 is coordinate 3 to 4: the upper ten of 22 slices of 2 mm; and so on.
    assert words == pytest.approx({"C3": 10.0, "C4": 30.0, "C5": 42.0})
    assert sorted(set(borders)) == pytest.approx([20.0, 40.0])


def test_an_outline_from_the_side_is_as_deep_as_the_cord():
    mask = cylinder(shape=(50, 50, 22), spacing=SPACING, tilt_deg=(0.0, 15.0))
    data = draw(make_image(mask)).data
    (line,) = (polygon(one["points"]) for one in data["side"]["lines"])
    # Straightened along its own curve, a tilted cord stands upright, 4 mm to either side of 32 mm.
    inner = line[(line[:, 1] > 6) & (line[:, 1] < 38)]
    front, back = inner[inner[:, 0] < 32], inner[inner[:, 0] > 32]
    assert front[:, 0].mean() == pytest.approx(32 - 4 / math.cos(math.radians(15)), abs=0.3)
    assert back[:, 0].mean() == pytest.approx(32 + 4 / math.cos(math.radians(15)), abs=0.3)


def test_no_levels_and_nothing_unusual_leave_only_the_outlines():
    data = draw(make_image(cylinder(spacing=SPACING), levels=False)).data
    assert [one["label"] for one in data["overlays"]] == ["cord"]
    assert {tile.get("label", "") for tile in data["tiles"]} == {""}


def test_a_map_has_one_window_for_all_slices_and_says_it():
    image = make_image(cylinder(shape=(50, 50, 12), spacing=SPACING))
    values = orient(image.mask.volume).data * 30.0
    values[..., 3] *= 1.2
    values[0, 0, 0] = 1e9  # one absurd voxel outside the cord
    values[1, 1, 1] = np.nan
    layers = {
        "T2w": Layer(volume=image.volume),
        "MTR": Layer(volume=Volume(data=values, affine=image.volume.affine), is_map=True, unit="%"),
    }
    data = draw(image, layers=layers).data
    note = data["pictures"][1]["note"]
    low, high = (float(word.split()[1]) for word in note.split(", "))
    assert 0 <= low < 30
    assert 36 <= high < 60
    middles = [decode(tile["pictures"][1])[19, 19] for tile in data["tiles"]]
    assert len(set(middles)) == 2  # the same window: the brighter slice is seen to be brighter


def test_pictures_that_differ_in_grid_are_refused():
    image = make_image(cylinder(spacing=SPACING))
    with pytest.raises(InputError, match="grid"):
        draw(image, layers={"x": Layer(volume=Volume(data=np.zeros((3, 3, 3)), affine=np.eye(4)))})


def test_a_picture_that_cannot_be_made_costs_no_other():
    image = make_image(cylinder(shape=(50, 50, 8), spacing=SPACING))
    bad = replace(image, volume=Volume(data=np.zeros((3, 3, 3)), affine=np.eye(4)))
    unit = Unit(name="sub-1", segment=lambda _file, _volume: (image.mask, ()), images=[bad, image])
    first, second, *_ = draw_unit(unit, ())
    assert (first.data, second.kind) == ({}, "mosaic")
    assert "grid" in first.caption
    assert len(second.data["tiles"]) == 8


def test_nothing_but_nan_in_a_map_or_zeros_in_an_image_is_black():
    image = make_image(cylinder(shape=(50, 50, 8), spacing=SPACING))
    empty = Volume(data=np.full(image.volume.data.shape, np.nan), affine=image.volume.affine)
    data = draw(image, layers={"a": Layer(volume=empty), "b": Layer(volume=empty, is_map=True)}).data
    assert data["pictures"][1]["note"] == "no value inside the cord"
    assert not any(decode(picture).any() for tile in data["tiles"] for picture in tile["pictures"])


def test_several_parts_of_one_overlay_keep_their_border():
    image = make_image(cylinder(shape=(50, 50, 8), spacing=SPACING))
    cord = orient(image.mask.volume).data
    half = np.arange(50)[:, None, None] < 25
    data = draw(image, outlines={"cord": cord, "columns": [cord * half, cord * ~half]}, off=["columns"]).data
    assert [(one["label"], one["off"]) for one in data["overlays"]] == [
        ("cord", False),
        (LEVELS, False),
        ("columns", True),
    ]
    assert [one["overlay"] for one in data["tiles"][0]["lines"]] == [0, 2, 2]
    assert LOOK not in [one["label"] for one in data["overlays"]]


def test_a_cord_at_the_border_of_the_image_is_still_drawn():
    mask = cylinder(shape=(24, 20, 8), spacing=SPACING, centre=(4.0, 3.5))
    for tile in draw(make_image(mask)).data["tiles"]:
        assert decode(tile["pictures"][0]).size > 100
        assert tile["lines"]


def test_three_contrasts_of_a_whole_spine_stay_within_the_weight_of_a_page():
    mask = cylinder(shape=(64, 64, 200), spacing=(0.5, 0.5, 1.0), fine=2)
    rng = np.random.default_rng(1)
    image = make_image(mask)
    noisy = Volume(data=image.volume.data + rng.normal(0, 40, mask.data.shape), affine=mask.affine)
    outlines = {name: orient(mask).data for name in ("cord", "grey matter", "white matter")}
    data = draw(image, layers={"a": Layer(volume=noisy)}, outlines=outlines).data
    from cordqa.report.charts import draw_figure

    panels = draw_figure(Figure(name="n", kind="mosaic", title="T", data=data)).panels
    assert len(data["tiles"]) == 48
    assert sum(len(panel) for panel in panels) < 1_000_000


def test_a_single_slice_has_tiles_and_no_view_from_the_side():
    image = make_image(cylinder(shape=(50, 50, 1), spacing=SPACING), levels=False)
    data = draw(image).data
    assert len(data["tiles"]) == 1
    assert data["side"] is None
