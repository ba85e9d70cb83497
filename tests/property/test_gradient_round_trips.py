"""Gradient tables survive every file format, and a flip of the image leaves the physics alone."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cordqa.errors import CordqaError
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.workflow.gradients import read_gradients, write_gradients

#: What gradient files are made of, and what damages them.
PIECES = st.sampled_from(
    [
        "0",
        "1000",
        "1",
        "-0.5",
        "nan",
        "inf",
        "1e999",
        "0.7071",
        " ",
        "\n",
        ",",
        ";",
        "#",
        "x",
        "\0",
        "\r",
        "é",
        "LTE",
    ]
)
SHAPES = (1.0, 1.0, -0.5, 0.0, 0.5)


@st.composite
def tables(draw: st.DrawFn) -> GradientTable:
    n = draw(st.integers(4, 20))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.lists(st.integers(200, 6000), min_size=1, max_size=3))
    b = np.r_[0.0, generator.choice(levels, n)].astype(float)
    delta = np.r_[1.0, generator.choice(SHAPES, n)] if draw(st.booleans()) else np.ones(n + 1)
    directions = generator.normal(size=(n + 1, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[(delta == 0) | (b == 0)] = 0
    return GradientTable(b_values_s_mm2=b, directions=directions, b_delta=delta)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any rotation, voxel size, order and sign of axes."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation * draw(st.tuples(*[st.floats(0.2, 8.0)] * 3))
    affine[:3, 3] = generator.normal(size=3) * 100
    return affine


def world_tensors(table: GradientTable, affine: np.ndarray) -> np.ndarray:
    """b-tensors along scanner axes: what the water felt."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return np.einsum("ab,nbc,dc->nad", axes, table.b_tensors_ms_um2, axes)


@settings(max_examples=60, deadline=None)
@given(tables(), affines())
def test_fsl_files_return_the_table(table: GradientTable, affine: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_gradients(table, Path(folder) / "dwi", affine=affine, mrtrix=False)
        back, _ = read_gradients(affine, paths, n_volumes=len(table))
    np.testing.assert_allclose(back.b_values_s_mm2, table.b_values_s_mm2)
    np.testing.assert_allclose(back.directions, table.directions, atol=2e-7)
    weighted = ~table.is_b0
    np.testing.assert_allclose(back.b_delta[weighted], table.b_delta[weighted])


@settings(max_examples=60, deadline=None)
@given(tables(), affines())
def test_mrtrix_and_fsl_say_the_same(table: GradientTable, affine: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_gradients(table, Path(folder) / "dwi", affine=affine)
        mrtrix, _ = read_gradients(affine, mrtrix=paths.mrtrix, bdelta=paths.bdelta)
        fsl, _ = read_gradients(affine, bval=paths.bval, bvec=paths.bvec, bdelta=paths.bdelta)
    np.testing.assert_allclose(mrtrix.directions, fsl.directions, atol=5e-7)
    np.testing.assert_allclose(mrtrix.b_tensors_ms_um2, table.b_tensors_ms_um2, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(tables(), affines())
def test_b_tensor_files_return_the_tensors(table: GradientTable, affine: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dwi.btens.npy"
        np.save(path, table.b_tensors_ms_um2 * 1e3)
        back, _ = read_gradients(affine, btens=path)
    np.testing.assert_allclose(back.b_tensors_ms_um2, table.b_tensors_ms_um2, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    tables(),
    affines(),
    st.sampled_from(list(itertools.permutations(range(3)))),
    st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
)
def test_turning_the_image_array_leaves_the_physics(
    table: GradientTable, affine: np.ndarray, order: tuple[int, ...], signs: tuple[float, ...]
) -> None:
    """An MRtrix table stays as it is when axes of the array are exchanged or flipped."""
    turned = affine.copy()
    turned[:3, :3] = affine[:3, list(order)] * signs
    with tempfile.TemporaryDirectory() as folder:
        paths = write_gradients(table, Path(folder) / "dwi", affine=affine)
        same, _ = read_gradients(turned, mrtrix=paths.mrtrix, bdelta=paths.bdelta)
        rewritten = write_gradients(same, Path(folder) / "turned", affine=turned)
        fsl, _ = read_gradients(turned, bval=rewritten.bval, bvec=rewritten.bvec, bdelta=rewritten.bdelta)
    np.testing.assert_allclose(world_tensors(same, turned), world_tensors(table, affine), atol=1e-5)
    np.testing.assert_allclose(world_tensors(fsl, turned), world_tensors(table, affine), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(tables(), affines())
def test_flipping_the_first_axis_leaves_a_bvec_file_as_it_is(
    table: GradientTable, affine: np.ndarray
) -> None:
    """FSL's sign rule exists for this: a flip along x changes the determinant and nothing in the file."""
    flipped = affine @ np.diag([-1.0, 1, 1, 1])
    with tempfile.TemporaryDirectory() as folder:
        paths = write_gradients(table, Path(folder) / "dwi", affine=affine)
        fsl = {"bval": paths.bval, "bvec": paths.bvec, "bdelta": paths.bdelta}
        before, _ = read_gradients(affine, **fsl)
        after, _ = read_gradients(flipped, **fsl)
    np.testing.assert_allclose(world_tensors(after, flipped), world_tensors(before, affine), atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=20), st.lists(PIECES, max_size=40), st.lists(PIECES, max_size=4))
def test_damaged_files_end_in_one_sentence(bval: list[str], bvec: list[str], bdelta: list[str]) -> None:
    """Nothing but an error of cordqa comes out of text that is no gradient table."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"dwi.{name}" for name in ("bval", "bvec", "bdelta")}
        for path, pieces in zip(paths.values(), (bval, bvec, bdelta), strict=True):
            path.write_bytes("".join(pieces).encode())
        for chosen in (paths, {"mrtrix": paths["bvec"]}, {"btens": paths["bvec"]}):
            try:
                table, _ = read_gradients(np.eye(4), allow_no_b0=True, **chosen)
            except CordqaError as error:
                assert "\n" not in str(error)
            else:
                assert np.isfinite(table.b_tensors_ms_um2).all()
