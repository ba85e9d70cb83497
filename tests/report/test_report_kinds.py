"""One contract for every kind of figure: register it and it is tested."""

from __future__ import annotations

import copy
import json
import math
import random
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from report import fixtures

from cordqa import figures
from cordqa.errors import InputError
from cordqa.figures import Agreement, Circle, ControlPanel, Curve, Estimate, Group, RocCurve, Series
from cordqa.records import Figure, Status
from cordqa.report import FIGURE_KINDS
from cordqa.report.charts import FigureDataError, draw_figure

HARD = {
    "empty": [],
    "one": [1.0],
    "same": [3.0, 3.0, 3.0],
    "zeros": [0.0, 0.0],
    "negative": [-5.0, -1.0, 2.0],
    "unknown": [math.nan, 1.0, math.inf, 2.0],
    "all unknown": [math.nan, math.nan],
    "huge": [1e-12, 1.0, 1e15],
    "wild": [1.0, 1.1, 0.9, 1.0, 1.05, 400.0],
}


def make_all(values: list[float]) -> list[Figure]:
    """One figure of every kind from the same numbers."""
    n = len(values)
    x = [float(k + 1) for k in range(n)]
    series = [
        Series(label=f"s{k}", x=x, y=values, low=values, high=values, slope=1.0, intercept=0.5)
        for k in range(8)
    ]
    estimates = [Estimate(label="r", value=v, low=v - 1, high=v + 1, series="a") for v in values]
    control = ControlPanel(
        label="c", when=[f"2024-01-{k + 1:02d}" for k in range(n)], values=values, ewma=values, baseline=n
    )
    f = figures
    return [
        f.plate(
            "n",
            "T",
            image=np.zeros((20, 30), np.uint8),
            circles=[Circle(x=v, y=v, radius=2, label="1") for v in values],
        ),
        f.identity("n", "T", series=series, tolerance_percent=(-5, 5)),
        f.identity("n", "T", series=series, tolerance_percent=[(1, -5, 5), (2, -9, 3)], log=False),
        f.curves(
            "n", "T", curves=[Curve(label="c", x=x, y=values, fit_x=x, fit_y=values)], x_label="x", x_log=True
        ),
        make_mosaic(values),
        f.inversion(
            "n",
            "T",
            panels=[
                f.InversionPanel(
                    label="p", time=x, lines={"a": values, "b": values}, used=v, best=v, flat=(v - 1, v + 1)
                )
                for v in values
            ],
            y_label="y",
        ),
        f.profiles(
            "n",
            "T",
            columns=[f"C{k}" for k in range(n)],
            groups=[
                f.ProfileGroup(
                    label="g", profiles=[f.Profile(name="p", values=values)] * 2, mean=values, count=[2] * n
                ),
                f.ProfileGroup(label="nobody", profiles=[], mean=[math.nan] * n, count=[0] * n),
            ],
            unit="mm2",
        ),
        f.linearity("n", "T", series=series, x_label="x", y_label="y", with_identity=True),
        f.scatter("n", "T", series=series, x_label="x", y_label="y", log=True),
        f.rate_linearity("n", "T", series=series, quantity="T1"),
        f.strip("n", "T", panels={"p": [Group(label="g", values=values, mean=1, sd=0.1)], "none": []}),
        f.bars("n", "T", panels={"p": estimates}, limit=1.0),
        f.forest("n", "T", panels={"p": estimates}, axis=(0, 1), marks={"good": 0.75, "better": 0.8}),
        f.forest("n", "T", panels={"p": estimates}),
        f.components("n", "T", rows={"r": {str(k): v for k, v in enumerate(values)}}),
        f.bland_altman("n", "T", panels=[Agreement(label="a", means=x, differences=values, bias=(0, -1, 1))]),
        f.heatmap(
            "n",
            "T",
            rows=["r"],
            columns=[str(k) for k in range(n)],
            values=[values] if n else np.zeros((1, 0)),
        ),
        make_status_map(values),
        f.coverage_bars(
            "n",
            "T",
            rows=[
                f.CoverageRow(label=str(k), group="g", n_pass=k, n_deviating=1, n_unknown=2 * k)
                for k in range(n)
            ],
        ),
        f.design("n", "T", rows=[str(k) for k in range(n)], columns=["s"], counts=np.reshape(values, (n, 1))),
        f.control_chart("n", "T", panels=[control]),
        f.roc(
            "n",
            "T",
            curves=[
                RocCurve(label="r", false_positive=[0, 0.5, 1], true_positive=[0, 0.7, 1], auc=v)
                for v in values
            ],
        ),
    ]


def make_status_map(values: list[float]) -> Figure:
    """One participant per number; what is not finite could not be checked."""
    codes = "".join("p" if math.isfinite(v) and v > 0 else "?" if math.isnan(v) else "x" for v in values)
    keys = [
        figures.StatusKey(code="x", label="out of range", look="fail", sign="×"),
        figures.StatusKey(code="?", label="not checkable", look="none"),
        figures.StatusKey(code="p", label="as asked", look="pass"),
    ]
    details = {codes.index("x"): "0.04 s"} if "x" in codes else {}
    rows = [
        figures.StatusRow(label=name, group=name[:1], codes=codes, details=details) for name in ("ab", "c")
    ]
    return figures.status_map("n", "T", columns=[str(k) for k in range(len(values))], rows=rows, keys=keys)


def make_mosaic(values: list[float]) -> Figure:
    """Tiles whose lines and areas come from the same numbers; what is not finite cannot be a line."""
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    picture = figures.Picture(image=image, left=-1, top=0, width=4, height=3)
    line = np.array([[v % 7, (2 * v) % 5] for v in values if math.isfinite(v)])
    tiles = [
        figures.Tile(
            width_mm=4,
            height_mm=3,
            pictures={"on": picture, "off": picture},
            lines={"cord": [line] if len(line) else []},
            label="C3",
            name=f"slice {k}",
            number=k,
            value=value,
            unit="mm2",
            reason="odd" if k == 0 else "",
        )
        for k, value in enumerate(values)
    ]
    side = figures.Tile(
        width_mm=4,
        height_mm=40,
        pictures={"on": picture},
        rules={"levels": [figures.Rule(y=2.0), figures.Rule(y=9.0, label="C3")]},
    )
    return figures.mosaic(
        "n",
        "T",
        tiles=tiles,
        pictures={"on": "", "off": "black 0, white 9"},
        overlays=["cord", "levels"],
        off=["levels"],
        side=side,
        image="sub-1_T2w",
        remark="All slices are shown.",
    )


def check_drawing(figure: Figure) -> list[ET.Element]:
    drawing = draw_figure(figure)
    roots = [ET.fromstring(str(panel)) for panel in drawing.panels]
    for root in roots:
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert root.find("desc") is not None
        assert not any("nan" in (node.text or "").lower().split() for node in root.iter("text"))
    for key in drawing.legend:
        ET.fromstring(str(key.icon))
    return roots


@pytest.mark.parametrize("name", HARD)
def test_hard_numbers_are_drawn_or_left_out(name):
    for figure in make_all(HARD[name]):
        check_drawing(figure)


def test_every_builder_makes_a_kind_that_is_drawn_and_every_kind_has_a_builder():
    made = {figure.kind for figure in make_all([1.0, 2.0])}
    assert made == set(FIGURE_KINDS)


@pytest.mark.parametrize("kind", FIGURE_KINDS)
def test_no_data_is_said_not_crashed(kind):
    figure = Figure(name="n", kind=kind, title="T", data={})
    try:
        check_drawing(figure)
    except FigureDataError as error:
        assert str(error)


@pytest.mark.parametrize("kind", FIGURE_KINDS)
def test_damaged_data_never_break_the_page(kind):
    """Data come from a file that anyone may have edited."""
    rng = random.Random(kind)
    figure = next(one for one in make_all([1.0, 2.0, 3.0]) if one.kind == kind)
    for _ in range(60):
        data = copy.deepcopy(json.loads(json.dumps(figure.data)))
        for _ in range(rng.randint(1, 3)):
            damage(data, rng)
        try:
            for panel in draw_figure(Figure(name="n", kind=kind, title="T", data=data)).panels:
                ET.fromstring(str(panel))
        except FigureDataError:
            pass


def damage(node, rng: random.Random) -> None:
    """Replace, drop or repeat one entry somewhere in a tree of JSON."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(node[key], (dict, list)) and rng.random() < 0.7:
        damage(node[key], rng)
    elif rng.random() < 0.3:
        del node[key]
    else:
        junk = [None, "x", "<script>", -1, 1e308, float("nan"), [], {}, [None], True, [[1, 2]], {"a": 1}]
        node[key] = copy.deepcopy(rng.choice(junk))


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(FigureDataError, match="identity"):
        draw_figure(Figure(name="n", kind="pie", title="T"))


def test_points_carry_names_and_values():
    series = Series(label="Alpha", x=[100, 1000], y=[104, 990], names=["sphere 1", "sphere 2"])
    measured, error = check_drawing(figures.identity("n", "T", series=[series], quantity="T1", unit="ms"))
    named = [node for node in measured.iter() if node.get("data-n") == "sphere 1"]
    assert [node.find("title").text for node in named] == [
        "sphere 1, Alpha, 104.0\u00a0ms, reference 100.0, error +4.0 %"
    ]
    assert any(node.get("data-n") == "sphere 2" for node in error.iter())
    assert measured.find("desc").text == "2 points; largest error +4.0 % (sphere 1)."


def test_points_lie_where_their_values_are():
    """Read the picture back: pixels between ticks give the value again."""
    values = [12.0, 55.0, 310.0, 900.0]
    (root,) = check_drawing(
        figures.scatter(
            "n", "T", series=[Series(label="s", x=values, y=values)], x_label="x", y_label="y", log=True
        )
    )
    ticks = {
        node.text: float(node.get("x")) for node in root.iter("text") if node.get("text-anchor") == "middle"
    }
    ten, thousand = ticks["10"], ticks["1000"]
    found = [float(node.get("cx")) for node in root.iter("circle")]
    back = [10 ** (1 + 2 * (x - ten) / (thousand - ten)) for x in found]
    assert back == pytest.approx(values, rel=0.01)


def test_a_wild_error_stands_at_the_edge_and_is_counted():
    series = Series(label="a", x=[10, 20, 30, 40, 50, 60, 70], y=[10, 20, 30, 40, 50, 60, 210])
    drawing = draw_figure(figures.identity("n", "T", series=[series], tolerance_percent=(-5, 5)))
    assert drawing.notes == ("1 error beyond the axis is drawn hollow at its edge.",)
    assert 'class="beyond s0"' in drawing.panels[1]


def test_a_tolerance_outside_the_axis_is_not_taken_for_another():
    """The band of a reference that was not measured must not be drawn over those that were."""
    series = Series(label="a", x=[100.0, 200.0], y=[100.0, 200.0])
    wide_far_away = [(1.0, -50, 50), (100.0, -5, 5), (200.0, -5, 5)]
    alone = [(100.0, -5, 5), (200.0, -5, 5)]

    def band(tolerance):
        root = check_drawing(figures.identity("n", "T", series=[series], tolerance_percent=tolerance))[1]
        path = next(node.get("d") for node in root.iter("path") if node.get("class") == "tolerance")
        return path.count("L")

    assert band(wide_far_away) == band(alone) + 2


def test_samples_that_were_not_used_are_crosses():
    curve = Curve(
        label="c",
        x=[1, 2, 3],
        y=[1, 2, 3],
        used=[True, False, True],
        status=Status.FAIL,
        value=12.34,
        uncertainty=0.5,
        unit="ms",
    )
    drawing = draw_figure(figures.curves("n", "T", curves=[curve], x_label="TI (ms)"))
    root = ET.fromstring(str(drawing.panels[0]))
    assert sum(node.get("class") == "cross" for node in root.iter("path")) == 1
    assert sum("point" in (node.get("class") or "") for node in root.iter("circle")) == 2
    assert "not used" in [key.label for key in drawing.legend]
    texts = [node.text for node in root.iter("text")]
    assert "12.34 ± 0.50\u00a0ms" in texts
    assert "✕" in texts


def test_statuses_differ_without_colour():
    drawing = draw_figure(fixtures.Bench(1, 5, 15).plate_figure())
    classes = {node.get("class") for node in ET.fromstring(str(drawing.panels[0])).iter("circle")}
    assert {"roi st-pass", "roi st-fail", "roi st-not-evaluated"} <= classes
    assert "✕" in str(drawing.panels[0])


def test_every_overlay_and_picture_of_a_mosaic_has_a_class_of_its_own():
    drawing = draw_figure(make_mosaic([1.0, 2.0, 4.0]))
    view = drawing.mosaic
    assert [(one.label, one.off) for one in view.overlays] == [("cord", False), ("levels", True)]
    assert [one.label for one in view.pictures] == ["on", "off"]
    assert [tile.name for tile in view.odd] == ["slice 0"]
    assert [tile.number for tile in view.tiles] == ["0", "1", "2"]
    root = ET.fromstring(str(view.tiles[1].drawing))
    assert [node.get("class") for node in root.iter("g")] == ["layer l0", "layer l1", "cover o0"]
    # The dark line lies below the bright one, which its dash and colour tell apart.
    assert [node.get("class") for node in root.iter("path")] == ["edge-halo", "edge e0"]
    side = ET.fromstring(str(view.side))
    assert [node.text for node in side.iter("text")] == ["C3"]


def test_pictures_of_a_mosaic_lie_where_their_millimetres_say():
    root = ET.fromstring(str(draw_figure(make_mosaic([1.0])).mosaic.tiles[0].drawing))
    (box, _) = root.iter("image")
    assert [float(box.get(key)) for key in ("x", "y", "width", "height")] == [-60, 0, 240, 180]
    assert (root.get("width"), root.get("height")) == ("240", "180")


def test_a_profile_shows_each_person_the_mean_and_the_number():
    group = figures.ProfileGroup(
        label="Acme",
        profiles=[
            figures.Profile(name="sub-1", values=[1.0, math.nan, 3.0]),
            figures.Profile(name="sub-2", values=[2.0, 2.0, 2.0]),
        ],
        mean=[1.5, 2.0, 2.5],
        count=[2, 1, 2],
    )
    figure = figures.profiles("n", "T", columns=["C2", "C3", "C4"], groups=[group], unit="mm2")
    (root,) = check_drawing(figure)
    tips = [node.find("title").text for node in root.iter("circle")]
    assert tips == [
        "sub-1, C2: 1.000\u00a0mm²",
        "sub-1, C4: 3.000\u00a0mm²",
        *(f"sub-2, C{k}: 2.000\u00a0mm²" for k in (2, 3, 4)),
    ]
    # No line bridges the level that the first person lacks.
    traces = [node.get("d") for node in root.iter("path") if node.get("class") == "trace"]
    assert [path.count("L") for path in traces] == [2]
    assert "C3 mean 2.000 (n 1)" in root.find("desc").text
    with pytest.raises(InputError, match="one value per column"):
        figures.profiles("n", "T", columns=["C2"], groups=[group])


def test_a_thousand_profiles_stay_small_and_keep_their_names():
    rng = np.random.default_rng(2)
    lines = [figures.Profile(name=f"sub-{k}", values=rng.normal(70, 8, 6)) for k in range(1000)]
    group = figures.ProfileGroup(label="Acme", profiles=lines, mean=[70] * 6, count=[1000] * 6)
    figure = figures.profiles("n", "T", columns=[f"C{k}" for k in range(2, 8)], groups=[group], unit="mm2")
    (root,) = check_drawing(figure)
    traces = [node for node in root.iter("path") if (node.get("class") or "").startswith("trace")]
    assert [node.get("data-n") for node in traces] == [f"sub-{k}" for k in range(1000)]
    assert len(draw_figure(figure).panels[0]) < 200_000


def test_bars_of_one_label_stand_together():
    estimates = [Estimate(label=label, series=series, value=1) for series in "ab" for label in ("C2", "C3")]
    root = ET.fromstring(str(draw_figure(figures.bars("n", "T", panels={"p": estimates})).panels[0]))
    bars = [node.find("title").text for node in root.iter("rect")]
    assert [text.split(", ")[:2] for text in bars] == [["C2", "a"], ["C2", "b"], ["C3", "a"], ["C3", "b"]]


def test_shares_of_variance_count_negative_estimates_as_zero_and_say_so():
    figure = figures.components("n", "T", rows={"FA": {"subject": 3.0, "scanner": -1.0, "residual": 1.0}})
    drawing = draw_figure(figure)
    assert "1 negative estimate drawn as zero." in drawing.notes
    assert "subject 75 %, scanner 0 %, residual 25 %" in drawing.panels[0]


def test_missing_cells_are_visible():
    figure = figures.design("n", "T", rows=["a", "b"], columns=["s", "t"], counts=[[1, 0], [2, -1]])
    root = ET.fromstring(str(draw_figure(figure).panels[0]))
    classes = [node.get("class") for node in root.iter("rect")]
    assert sorted(classes) == ["absent", "excluded", "present", "present"]
    assert root.find("desc").text == "2 of 4 cells measured, 1 missing, 1 excluded."


def test_the_same_data_give_the_same_picture():
    for figure in fixtures.summary_figures(np.random.default_rng(0)):
        again = Figure(
            name="n",
            kind=figure.kind,
            title=figure.title,
            alt=figure.alt,
            data=json.loads(json.dumps(figure.data)),
        )
        assert draw_figure(figure).panels == draw_figure(again).panels


def test_an_interval_near_one_is_not_cut_in_a_narrow_column():
    estimates = [Estimate(label="thalamus of the left side", value=0.9950, low=0.9866, high=0.9982)]
    page = str(draw_figure(figures.forest("n", "T", panels={"p": estimates}, axis=(0, 1))).panels[0])
    assert ">0.995 (0.987 to 0.998)<" in page
    estimates = [Estimate(label="thalamus", value=0.99995, low=0.9986, high=0.99999)]
    page = str(draw_figure(figures.forest("n", "T", panels={"p": estimates}, axis=(0, 1))).panels[0])
    assert ">1.0000 (0.9986 to 1.0000)<" in page
