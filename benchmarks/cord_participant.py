"""CPU of one participant (T2w, MT pair, DWI) through the built-in engine, stage by stage.

    OMP_NUM_THREADS=1 python benchmarks/cord_participant.py DATA [--template PAM50] [--runs 3]

DATA is the folder with the toolbox's test data (cord/testing, cord/tutorial, cord/sct-reference).
Everything that a run writes is written, pages included.  Numbers are the least of the runs.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cordqa.io.bids_index import index_dataset
from cordqa.report import render_report
from cordqa.workflow import cord_diffusion, cord_figures, cord_participant
from cordqa.workflow.cord_atlas import prepare_atlas
from cordqa.workflow.cord_participant import CordJob, run_job
from cordqa.workflow.cord_settings import CordSettings

#: Stage, and the functions whose time it is: module and name.
STAGES: dict[str, list[tuple[Any, str]]] = {
    "T2w: cord, levels, shape": [(cord_participant, "analyse_image"), (cord_participant, "shape_rows")],
    "MT: cord, alignment, maps, atlas": [(cord_participant, "analyse_transfer")],
    "MT: values of regions": [(cord_participant, "transfer_rows")],
    "DWI: gradients, cord, motion, outliers": [(cord_diffusion, "prepare_series")],
    "DWI: atlas": [(cord_diffusion, "lay_atlas")],
    "DWI: tensor and maps": [(cord_diffusion, "fit_models")],
    "DWI: values of regions": [(cord_diffusion, "diffusion_rows")],
    "figures": [(cord_figures, "draw_unit")],
    "images as derivatives": [(cord_participant, "_write_images")],
    "page, tables, result": [(cord_participant, "write_result"), (cord_participant, "write_text")],
}


def dataset(data: Path, folder: Path) -> Path:
    """Link the scans into a dataset of one participant."""
    cord = data / "cord"
    links = {
        "anat/sub-01_T2w.nii.gz": cord / "testing/t2/t2.nii.gz",
        "anat/sub-01_flip-1_mt-on_MTS.nii.gz": cord / "tutorial/mt/mt1.nii.gz",
        "anat/sub-01_flip-1_mt-off_MTS.nii.gz": cord / "tutorial/mt/mt0.nii.gz",
        "dwi/sub-01_dwi.nii.gz": cord / "tutorial/dmri/dmri.nii.gz",
        "dwi/sub-01_dwi.bval": cord / "tutorial/dmri/bvals.txt",
        "dwi/sub-01_dwi.bvec": cord / "tutorial/dmri/bvecs.txt",
    }
    labels = {
        "anat/sub-01_T2w_label-discs_dlabel.nii.gz": (
            cord / "sct-reference/t2_manualseg/label/template/PAM50_label_disc.nii.gz"
        ),
        "dwi/sub-01_dwi_label-discs_dlabel.nii.gz": cord / "sct-reference/dmri_tutorial/label_c3c4.nii.gz",
    }
    for name, source in links.items():
        link(folder / "sub-01" / name, source)
    for name, source in labels.items():
        link(folder / "derivatives/labels/sub-01" / name, source)
    return folder


def link(path: Path, source: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(source.resolve())


def watch(spent: dict[str, float]) -> Callable[[], None]:
    """Count the CPU time of every stage; return what puts the functions back."""
    kept = []
    for stage, functions in STAGES.items():
        for module, name in functions:
            original = getattr(module, name)
            kept.append((module, name, original))
            setattr(module, name, counted(original, stage, spent))

    def undo() -> None:
        for module, name, original in kept:
            setattr(module, name, original)

    return undo


def counted(function: Callable[..., Any], stage: str, spent: dict[str, float]) -> Callable[..., Any]:
    def run(*args: Any, **settings: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **settings)
        finally:
            spent[stage] = spent.get(stage, 0.0) + time.process_time() - start

    return run


def one_run(bids: Path, template: Path | None) -> dict[str, float]:
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        start = time.process_time()
        atlas = prepare_atlas(template, bids / "work")
        spent["template cut into sections (once per study)"] = time.process_time() - start
        undo = watch(spent)
        start = time.process_time()
        job = CordJob(
            index=index_dataset(bids),
            subject="01",
            session="",
            out=out,
            settings=CordSettings(template=template),
            work=out / "work",
            atlas=atlas,
            marks={},
            render=render_report,
        )
        outcome = run_job(job)
        spent["whole participant"] = time.process_time() - start
        undo()
    print(f"  {outcome.state}: {outcome.reason}")
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--template", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if not (options.data / "cord/tutorial").is_dir():
        raise SystemExit(f"{options.data} holds no cord/tutorial")
    with tempfile.TemporaryDirectory() as name:
        bids = dataset(options.data, Path(name))
        runs = [one_run(bids, options.template) for _ in range(options.runs)]
    print(f"{'stage':45s} {'CPU s':>7s}")
    for stage in [*STAGES, "whole participant", "template cut into sections (once per study)"]:
        times = [run.get(stage, 0.0) for run in runs]
        best = max(times) if stage.startswith("template") else min(times)
        print(f"{stage:45s} {best:7.2f}")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
