"""The network that marks cord and dural sac on an axial slice, run by onnxruntime on one thread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError

__all__ = ["CordNetwork", "normalise_locally", "packaged_network"]

Array = NDArray[np.float32]
_NAME = "cord_segmentation"
#: Sides must be multiples of this, by the network's pooling.
_STRIDE = 8


class CordNetwork:
    """Probability of cord and dural sac for slices on the network's grid.

    Parameters
    ----------
    model : bytes or Path
        ONNX model: input (n, 1, x, y), output (n, 2, x, y).
    about : mapping
        What the JSON beside the weights says; ``grid_mm`` and ``version`` are used.

    Raises
    ------
    InputError
        If the model cannot be loaded or has other inputs and outputs.
    """

    def __init__(self, model: bytes | Path, about: Mapping[str, Any]) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                source, sess_options=options, providers=["CPUExecutionProvider"]
            )
            self.grid_mm = float(about["grid_mm"])
            self.version = str(about["version"])
            self.threshold = float(about.get("threshold", 0.5))
        except Exception as error:  # onnxruntime raises types of its own, without a common base
            raise InputError("the network cannot be loaded", todo="use the packaged weights") from error

    def probabilities(self, images: Array, *, batch: int = 8) -> Array:
        """Return probabilities, shape (n, 2, x, y), of normalised images, shape (n, x, y).

        Images are mirrored left to right and both answers averaged, so that a mirrored scan
        gives the mirrored answer.
        """
        n, nx, ny = images.shape
        # An even margin on both sides keeps mirrored images aligned with the pooling grid.
        pads = [_margins(side) for side in (nx, ny)]
        padded = np.pad(images, ((0, 0), *pads))
        out = np.empty((n, 2, nx, ny), dtype=np.float32)
        window = (slice(pads[0][0], pads[0][0] + nx), slice(pads[1][0], pads[1][0] + ny))
        for start in range(0, n, batch):
            part = padded[start : start + batch, None]
            both = self._run(part) + self._run(part[:, :, ::-1])[:, :, ::-1]
            out[start : start + batch] = 0.5 * both[(slice(None), slice(None), *window)]
        return out

    def glance(self, images: Array) -> Array:
        """Return the cord's probability, shape (n, x, y), from one pass: for finding, not measuring."""
        n, nx, ny = images.shape
        pads = [_margins(side) for side in (nx, ny)]
        padded = np.pad(images, ((0, 0), *pads))
        out = np.empty((n, nx, ny), dtype=np.float32)
        window = (slice(pads[0][0], pads[0][0] + nx), slice(pads[1][0], pads[1][0] + ny))
        for k in range(n):
            out[k] = self._run(padded[k : k + 1, None])[(0, 0, *window)]
        return out

    def _run(self, images: Array) -> Array:
        result: list[Array] = self._session.run(None, {"image": np.ascontiguousarray(images)})
        return np.asarray(result[0], dtype=np.float32)


def _margins(side: int) -> tuple[int, int]:
    """Return the margins that make a side a multiple of the network's stride."""
    extra = -side % _STRIDE
    return extra // 2, extra - extra // 2


@cache
def packaged_network() -> CordNetwork:
    """Return the network that comes with cordqa."""
    folder = files("cordqa.cord") / "weights"
    about = json.loads((folder / f"{_NAME}.json").read_text(encoding="utf-8"))
    return CordNetwork((folder / f"{_NAME}.onnx").read_bytes(), about)


def normalise_locally(image: Array, pixel_mm: float, *, window_mm: float = 21.0) -> Array:
    """Subtract the mean and divide by the standard deviation of the surroundings.

    The statistics are those of a window that moves with the pixel, so that the result does not
    depend on the field of view, on the receive profile or on the units of the image.

    Parameters
    ----------
    image : ndarray, shape (nx, ny)
    pixel_mm : float
    window_mm : float
        Width of the moving window (applied twice, which makes it a triangle).
    """
    from scipy.ndimage import uniform_filter

    width = max(round(window_mm / pixel_mm) // 2 * 2 + 1, 3)

    def mean(values: Array) -> Array:
        return np.asarray(
            uniform_filter(uniform_filter(values, width, mode="reflect"), width, mode="reflect")
        )

    values = np.asarray(image, dtype=np.float32)
    scale = float(np.abs(values).mean()) + 1e-12
    values = values / np.float32(scale)
    centred = values - mean(values)
    spread = np.sqrt(np.maximum(mean(centred * centred), 0.0)) + np.float32(0.03)
    return np.asarray(np.clip(centred / spread, -6.0, 6.0), dtype=np.float32)
