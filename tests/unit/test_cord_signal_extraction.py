"""Quantities from the signals of a region: no bias from mixed voxels, and an uncertainty that holds."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from helpers_cord import cylinder

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.atlas_shapes import analytical_sections
from cordqa.cord.estimators import LINEAR, estimate_region, estimate_signals
from cordqa.cord.extraction import extract_regions
from cordqa.cord.signal_extraction import extract_modelled
from cordqa.cord.template import lay_atlas
from cordqa.errors import InputError
from cordqa.models.magnetization_transfer.saturation import SpoiledEcho, mt_saturation_signal
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.records import Volume
from cordqa.workflow.cord_transfer import TransferModel

ECHO = SpoiledEcho(repetition_time_s=0.035, flip_angle_deg=9.0)
T1_ECHO = SpoiledEcho(repetition_time_s=0.011, flip_angle_deg=15.0)
MODEL = TransferModel(echoes={"on": ECHO, "off": ECHO, "T1w": T1_ECHO})
QUANTITIES = ("MTR", "MTsat", "T1")
#: Fully relaxed signal, T1 (s), saturation.
TISSUES = {"WM": (0.68, 1.05, 0.02), "GM": (0.76, 1.2, 0.015), "CSF": (1.0, 3.8, 0.0)}


@lru_cache(maxsize=1)
def phantom() -> tuple[Volume, AtlasImage]:
    mask = cylinder(shape=(34, 30, 8), spacing=(0.9, 0.9, 5.0), turn_deg=4.0)
    return mask, lay_atlas(analytical_sections(), mask, coordinate=np.linspace(6.5, 2.5, 8))[0]


def images(noise: float = 0.0, seed: int = 0, gain: float = 1.0) -> tuple[list[Volume], AtlasImage]:
    """MT-on, MT-off and T1w whose voxels show the sum of the signals of their parts."""
    mask, atlas = phantom()
    rng = np.random.default_rng(seed)
    found = []
    for echo, saturated in ((ECHO, True), (ECHO, False), (T1_ECHO, False)):
        signal = np.zeros(len(atlas.labels.names))
        for tissue, (m0, t1_s, lost) in TISSUES.items():
            value = mt_saturation_signal(m0, t1_s, lost if saturated else 0.0, echo)
            signal[list(atlas.labels.tissues[tissue])] = float(value)
        data = np.zeros(mask.data.shape)
        i, j, k = atlas.corner
        box = np.tensordot(signal, atlas.weights, axes=1)
        data[i : i + box.shape[0], j : j + box.shape[1], k : k + box.shape[2]] = box
        data += noise * rng.standard_normal(data.shape)
        found.append(Volume(data=gain * data, affine=mask.affine))
    return found, atlas


def truth(tissue: str) -> dict[str, float]:
    m0, t1_s, lost = TISSUES[tissue]
    plan = ((ECHO, lost), (ECHO, 0.0), (T1_ECHO, 0.0))
    signals = np.stack([mt_saturation_signal(m0, t1_s, [d], echo) for echo, d in plan])
    return {name: float(values[0]) for name, values in MODEL(signals).values.items()}


def rows(noise: float = 0.0, seed: int = 0, **options):
    volumes, atlas = images(noise, seed)
    found = extract_modelled(volumes, atlas, model=MODEL, quantities=QUANTITIES, **options)
    return {(row.quantity, row.region): row for row in found}


@pytest.mark.parametrize("method", ["maximum likelihood", "MAP"])
def test_mixed_voxels_leave_no_bias(method):
    found = rows(method=method, regions=["WM", "GM"])
    for tissue in ("WM", "GM"):
        for quantity, expected in truth(tissue).items():
            assert found[quantity, tissue].value == pytest.approx(expected, rel=5e-3)
            assert found[quantity, tissue].flags == ()


def test_the_map_of_the_same_images_is_biased_by_them():
    """The reason for all this: T1 of a mixed voxel is not the mean of the T1 of its parts."""
    volumes, atlas = images()
    maps = MODEL(np.stack([v.data.ravel() for v in volumes]))
    t1_map = Volume(data=maps.values["T1"].reshape(volumes[0].data.shape), affine=volumes[0].affine)
    (row,) = extract_regions(t1_map, atlas, quantity="T1", regions=["WM"])
    assert row.value < 0.95 * truth("WM")["T1"]


def test_the_standard_uncertainty_is_the_scatter_of_repeats():
    found: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    stated: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    for seed in range(40):
        for (quantity, _), row in rows(noise=0.002, seed=seed, regions=["DC"]).items():
            found[quantity].append(row.value)
            stated[quantity].append(row.standard_uncertainty)
            assert "through the model" in row.uncertainty_method
    for quantity in QUANTITIES:
        assert 0.75 < np.mean(stated[quantity]) / np.std(found[quantity], ddof=1) < 1.35


@pytest.mark.parametrize("method", LINEAR)
def test_signals_are_what_each_image_alone_would_give(method):
    volumes, atlas = images(noise=0.002)
    slices = np.arange(atlas.weights.shape[3])
    i, j, _k = atlas.corner
    n = atlas.weights.shape
    weights = atlas.weights.reshape(n[0], -1).astype(float)
    values = np.stack(
        [np.asarray(v.data)[i : i + n[1], j : j + n[2], slices + atlas.corner[2]].ravel() for v in volumes]
    )
    tissues = tuple(atlas.labels.tissues.values())
    members = atlas.labels.find("GM").members
    together = estimate_signals(values, weights, members, method=method, tissues=tissues)
    for n_image, one in enumerate(values):
        alone = estimate_region(one, weights, members, method=method, tissues=tissues)
        assert together.signals[n_image] == pytest.approx(alone.value, rel=1e-9)
        if method != "MAP":  # there the prior, which comes from the same voxels, adds to it
            error = math.sqrt(together.covariance[n_image, n_image])
            assert error == pytest.approx(alone.standard_uncertainty, rel=1e-6)


def test_gain_of_the_scanner_does_not_matter():
    volumes, atlas = images(noise=0.001)
    loud, _ = images(noise=0.001, gain=5000.0)
    first = extract_modelled(volumes, atlas, model=MODEL, quantities=QUANTITIES)
    second = extract_modelled(loud, atlas, model=MODEL, quantities=QUANTITIES)
    for one, other in zip(first, second, strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-9)
        assert other.standard_uncertainty == pytest.approx(one.standard_uncertainty, rel=1e-6)


def test_voxels_that_one_image_lacks_are_left_out_of_all():
    volumes, atlas = images()
    volumes[1].data[:, :, 3] = np.nan
    found = extract_modelled(volumes, atlas, model=MODEL, quantities=QUANTITIES, regions=["WM"])
    for row in found:
        assert row.value == pytest.approx(truth("WM")[row.quantity], rel=5e-3)
        assert row.coverage == pytest.approx(7 / 8, abs=0.03)
        assert any("holds no number" in flag for flag in row.flags)


def test_what_cannot_be_known_is_said():
    volumes, atlas = images()
    blank = [Volume(data=np.zeros_like(v.data), affine=v.affine) for v in volumes]
    for row in extract_modelled(blank, atlas, model=MODEL, quantities=QUANTITIES, regions=["WM"]):
        assert math.isnan(row.value) and math.isnan(row.standard_uncertainty)
        assert row.flags[0] == "no signal in one of the images"
    (row,) = extract_modelled(
        volumes[:2],
        atlas,
        model=TransferModel(echoes={}),
        quantities=["MTR"],
        regions=["WM"],
        groups={"C9": []},
    )
    assert math.isnan(row.value) and "not covered" in row.flags[0]


def test_what_cannot_be_asked():
    volumes, atlas = images()
    for method in ("median", "max", "mode"):
        with pytest.raises(InputError, match="linear"):
            extract_modelled(volumes, atlas, model=MODEL, quantities=QUANTITIES, method=method)
    with pytest.raises(InputError, match="not registered"):
        extract_modelled(volumes, atlas, model=MODEL, quantities=["luck"])
    small = Volume(data=volumes[0].data[1:], affine=volumes[0].affine)
    with pytest.raises(InputError, match="not on one grid"):
        extract_modelled([small, *volumes[1:]], atlas, model=MODEL, quantities=QUANTITIES)


def test_a_single_voxel_has_a_value_and_no_uncertainty():
    found = estimate_signals(np.array([[2.0], [4.0]]), np.array([[1.0]]), [0], method="weighted mean")
    assert found.signals.tolist() == [2.0, 4.0]
    assert np.isnan(found.covariance).all()

    def ratio(signals):
        values = signals[0] / signals[1]
        return FittedMaps(
            model="", values={"MTR": values}, units={"MTR": "%"}, reasons=Reasons.collect(values.shape, [])
        )

    from cordqa.cord.signal_extraction import estimate_modelled

    estimate = estimate_modelled(found, ratio)["MTR"]
    assert estimate.value == 0.5
    assert math.isnan(estimate.standard_uncertainty)
