from __future__ import annotations

import numpy as np
import pytest

from cordqa.phantom.series import Kind, find_kind, join_parts
from cordqa.records import Acquisition, Entities, ImageSet, Part


def make(
    part: Part = Part.MAGNITUDE, data: np.ndarray | None = None, **acquisitions: list[float]
) -> ImageSet:
    count = len(next(iter(acquisitions.values())))
    rows = [Acquisition(**{name: values[i] for name, values in acquisitions.items()}) for i in range(count)]
    if data is None:
        data = np.ones((count, 1, 8, 8), dtype=np.float32)
    return ImageSet(
        data=data.astype(np.float32),
        affine=np.eye(4),
        spacing_mm=(5.0, 1.0, 1.0),
        acquisitions=tuple(rows),
        entities=Entities(scanner="A"),
        part=part,
        label="series 1",
    )


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [
        ({"inversion_time_s": [0.05, 0.1, 0.2]}, Kind.INVERSION_RECOVERY),
        ({"echo_time_s": [0.01, 0.02]}, Kind.MULTI_ECHO),
        ({"flip_angle_deg": [3.0, 15.0]}, Kind.VARIABLE_FLIP_ANGLE),
        ({"flip_angle_deg": [3.0, 15.0], "repetition_time_s": [0.015, 0.015]}, Kind.VARIABLE_FLIP_ANGLE),
        ({"flip_angle_deg": [60.0, 120.0], "repetition_time_s": [5.0, 5.0]}, None),
        ({"inversion_time_s": [0.05, 0.05]}, None),
        ({"inversion_time_s": [float("nan")] * 3}, None),
    ],
)
def test_kind_follows_what_varies(parameters: dict[str, list[float]], kind: Kind | None) -> None:
    assert find_kind(make(**parameters)) is kind


def test_gradient_echoes_are_not_taken_for_t2() -> None:
    images = make(echo_time_s=[0.01, 0.02])
    gradient = ImageSet(
        **{
            **{name: getattr(images, name) for name in ("data", "affine", "spacing_mm", "entities", "label")},
            "acquisitions": tuple(
                Acquisition(echo_time_s=a.echo_time_s, sequence="gradient echo") for a in images.acquisitions
            ),
        }
    )
    assert find_kind(gradient) is None


def test_real_and_imaginary_become_complex() -> None:
    data = np.full((3, 1, 8, 8), 3.0)
    times = [0.1, 0.2, 0.3]
    joined = join_parts(
        [
            make(Part.REAL, data, inversion_time_s=times),
            make(Part.IMAGINARY, data * 4 / 3, inversion_time_s=times),
        ]
    )
    assert len(joined) == 1
    assert joined[0].signed
    assert np.allclose(np.abs(joined[0].data), 5.0)
    assert np.allclose(joined[0].images.data, 5.0)


def test_phase_of_unknown_scaling_is_not_used() -> None:
    times = [0.1, 0.2, 0.3]
    phase = np.tile(np.linspace(0, 4095, 64).reshape(8, 8), (3, 1, 1, 1))
    joined = join_parts([make(inversion_time_s=times), make(Part.PHASE, phase, inversion_time_s=times)])
    assert len(joined) == 1
    assert not joined[0].signed


def test_phase_alone_gives_nothing() -> None:
    assert join_parts([make(Part.PHASE, inversion_time_s=[0.1, 0.2])]) == ()
