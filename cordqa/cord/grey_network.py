"""The network that marks grey matter within the cord, and what it is shown."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError

__all__ = ["GreyNetwork", "packaged_grey_network", "shown_to_network"]

Array = NDArray[np.float32]
_NAME = "grey_matter_segmentation"
#: What stands for everything outside the cord, in robust standard deviations of the cord.
_OUTSIDE = -4.0


def shown_to_network(image: Array, mask: Array) -> Array:
    """Scale an image by the median and spread inside the cord, and blank what lies outside.

    Parameters
    ----------
    image : ndarray, shape (nx, ny)
        Grey matter brighter than white.
    mask : ndarray, shape (nx, ny)
        Part of each pixel inside the cord, 0..1.

    Returns
    -------
    ndarray of float32, shape (nx, ny)
        All of it blank where the cord is too small to have a spread.
    """
    inside = mask > 0.95
    if np.count_nonzero(inside) < 9:
        return np.full(image.shape, _OUTSIDE, dtype=np.float32)
    values = image[inside]
    middle = np.median(values)
    spread = max(1.4826 * float(np.median(np.abs(values - middle))), 1e-6 * abs(float(middle)), 1e-12)
    scaled = np.clip((image - middle) / spread, _OUTSIDE, 5.0)
    return np.asarray(_OUTSIDE + mask * (scaled - _OUTSIDE), dtype=np.float32)


class GreyNetwork:
    """Fraction of grey matter for cord sections on the network's grid.

    Parameters
    ----------
    model : bytes
        ONNX model: input (n, 1, x, y), output (n, 1, x, y).
    about : mapping
        What the JSON beside the weights says.

    Raises
    ------
    InputError
        If the model cannot be loaded.
    """

    def __init__(self, model: bytes, about: dict[str, Any]) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model, sess_options=options, providers=["CPUExecutionProvider"]
            )
            self.grid_mm, self.size = float(about["grid_mm"]), int(about["size"])
            self.version = str(about["version"])
        except Exception as error:  # onnxruntime raises types of its own, without a common base
            raise InputError("the network cannot be loaded", todo="use the packaged weights") from error

    def fractions(self, images: Array) -> Array:
        """Return the fraction of grey matter, shape (n, size, size), of shown images of that shape.

        Images are mirrored left to right and both answers averaged.
        """
        both = np.stack([self._run(images), self._run(images[:, ::-1])[:, ::-1]])
        return np.asarray(both.mean(axis=0), dtype=np.float32)

    def _run(self, images: Array) -> Array:
        answer = self._session.run(None, {"image": np.ascontiguousarray(images[:, None])})
        return np.asarray(answer[0][:, 0], dtype=np.float32)


@cache
def packaged_grey_network() -> GreyNetwork:
    """Return the network that comes with cordqa."""
    folder = files("cordqa.cord") / "weights"
    about = json.loads((folder / f"{_NAME}.json").read_text(encoding="utf-8"))
    return GreyNetwork((folder / f"{_NAME}.onnx").read_bytes(), about)
