"""Each of the eight points is met, or the reason why not is written."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from cordqa.models.susceptibility.consensus import Processing, check_consensus, reporting_table
from cordqa.models.susceptibility.total_field import BACKGROUNDS, INVERSIONS

GOOD = Processing(
    version="1",
    echo_times_s=(0.004, 0.008, 0.012, 0.016),
    field_strength_t=3.0,
    voxel_size_mm=(1.0, 1.0, 1.0),
    b0_direction=(0.0, 0.0, 1.0),
    readout="monopolar",
    mask="given",
    quality_excluded=3,
    background="alternating",
    inversion="tv",
    reference="whole mask",
    reference_mean_ppm=0.0,
    reference_sd_ppm=0.05,
)


def unmet(done: Processing) -> set[int]:
    return {point.number for point in check_consensus(done) if point.met is False}


def test_the_default_chain_meets_what_images_can_show():
    points = check_consensus(GOOD)
    assert [point.number for point in points] == list(range(1, 9))
    assert unmet(GOOD) == set()
    # Images cannot show that an acquisition was 3D and its phase unfiltered.
    assert points[0].met is None
    assert all(point.how for point in points)
    # A sidecar can show the first.
    solid = check_consensus(replace(GOOD, encoding="3D"))[0]
    assert solid.met is True and "3D by its sidecar" in solid.how and "unfiltered" in solid.how
    assert check_consensus(replace(GOOD, encoding="3D", readout=""))[0].met is None


@pytest.mark.parametrize(
    ("change", "points"),
    [
        ({"echo_times_s": (0.02,)}, {1, 3}),
        ({"echo_times_s": (0.01, 0.02)}, {1}),
        ({"readout": "bipolar"}, {1}),
        ({"encoding": "2D"}, {1}),
        ({"encoding": "3D", "readout": "bipolar"}, {1}),
        ({"mask": "quality"}, {4}),
        ({"mask": "widened"}, set()),
        ({"background": "lbv"}, {5}),
        ({"background": "none"}, {5}),
        ({"inversion": "tkd"}, {6}),
        ({"inversion": "l2"}, {6}),
        ({"reference": "CSF", "reference_mean_ppm": math.nan}, {7}),
        ({"reference": "CSF", "reference_mean_ppm": 0.012}, set()),
    ],
)
def test_what_is_not_met_is_named(change, points):
    assert unmet(replace(GOOD, **change)) == points


def test_every_method_has_a_verdict():
    for background in BACKGROUNDS:
        for inversion in INVERSIONS:
            points = check_consensus(replace(GOOD, background=background, inversion=inversion))
            assert isinstance(points[4].met, bool)
            assert isinstance(points[5].met, bool)


def test_the_table_is_plain_data_with_all_that_must_be_reported():
    done = replace(GOOD, reference="CSF", reference_mean_ppm=0.0123, reference_sd_ppm=0.004)
    table = json.loads(json.dumps(reporting_table(done, ("One.", "Two."), {"streak": 1.1})))
    report = table["reporting"]
    assert report["toolbox"] == {"name": "cordqa", "version": "1"}
    assert report["referencing"]["mean_relative_to_whole_mask_ppm"] == 0.0123
    assert report["referencing"]["unit"] == "ppm"
    assert table["methods"] == "One. Two."
    assert table["quality"]["streak"] == 1.1
    assert "brain" in table["scope"]
