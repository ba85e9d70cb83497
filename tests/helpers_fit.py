"""Image sets of registered models on disk, as a user has them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.inputs import read_inputs
from cordqa.workflow.fit.registry import FitModel
from cordqa.workflow.fit.request import FitRequest, GradientFiles

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2, 0, -20], [0, 0, 4, 5], [0, 0, 0, 1]])


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE, dtype: type = np.float32) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=dtype), affine), path)
    return path


def load(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def write_gradients(model: FitModel, folder: Path) -> GradientFiles:
    table = model.example().gradients
    if table is None:
        return GradientFiles()
    # FSL counts the first axis the other way where the voxel axes are right-handed.
    sign = -1.0 if np.linalg.det(AFFINE[:3, :3]) > 0 else 1.0
    vectors = table.directions * [sign, 1.0, 1.0]
    np.savetxt(folder / "x.bval", table.b_values_s_mm2[None], fmt="%.10g")
    np.savetxt(folder / "x.bvec", vectors.T, fmt="%.10g")
    np.savetxt(folder / "x.bdelta", table.b_delta[None], fmt="%.10g")
    return GradientFiles(bval=folder / "x.bval", bvec=folder / "x.bvec", bdelta=folder / "x.bdelta")


def request_of(model: FitModel, folder: Path, **changes: object) -> FitRequest:
    """Write the example of a model as files and ask for its fit."""
    folder.mkdir(parents=True, exist_ok=True)
    example = model.example()
    images = {
        role.id: (save(folder / f"{role.id}.nii.gz", example.images[role.id]),)
        for role in model.images
        if role.id in example.images
    }
    maps = {name: save(folder / f"{name}.nii.gz", values) for name, values in example.maps.items()}
    given: dict = {
        "images": images,
        "settings": dict(example.settings),
        "maps": maps,
        "options": dict(example.options),
        "gradients": write_gradients(model, folder),
    }
    return FitRequest(model=model, **(given | changes))


def data_of(model: FitModel, folder: Path, **changes: object) -> FitData:
    return read_inputs(request_of(model, folder, **changes)).data


@dataclass
class Words:
    """The command line of an example."""

    model: FitModel
    request: FitRequest
    out: Path

    def list(self, *more: str) -> list[str]:
        words = ["fit", self.model.id]
        placed = [role for role in self.model.images if not role.by_option]
        words += [str(path) for role in placed for path in self.request.images[role.id]]
        words.append(str(self.out))
        for role in self.model.images:
            if role.by_option:
                for path in self.request.images.get(role.id, ()):
                    words += [role.option, str(path)]
        for name, values in self.request.settings.items():
            words += [f"--{name.replace('_', '-')}", ",".join(f"{v:.10g}" for v in values)]
        for name, path in self.request.maps.items():
            words += [f"--{name.replace('_', '-')}", str(path)]
        for name, value in self.request.options.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                words.append(option if value else f"--no-{option[2:]}")
            elif isinstance(value, tuple):
                words += [option, ",".join(f"{number:.10g}" for number in value)]
            else:
                words += [option, str(value)]
        for name in ("bval", "bvec", "bdelta"):
            path = getattr(self.request.gradients, name)
            words += [f"--{name}", str(path)] if path else []
        return [*words, *more]


def sidecar(path: Path, **fields: object) -> None:
    path.with_name(path.name.removesuffix(".nii.gz") + ".json").write_text(json.dumps(fields))
