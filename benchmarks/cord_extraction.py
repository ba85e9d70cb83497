"""CPU time of laying an atlas into a cord and extracting from it, beside recorded times of the real SCT.

    python benchmarks/cord_extraction.py SHARED_DATA

Registration, warping and extraction of the Spinal Cord Toolbox were recorded once (commands.tsv of the
reference runs, one thread); ours is measured now.  Reading and cutting the template is done once per
machine and is listed apart.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from cordqa.cord.atlas import parse_label_table
from cordqa.cord.atlas_shapes import analytical_sections
from cordqa.cord.centreline import fit_centreline
from cordqa.cord.extraction import extract_regions
from cordqa.cord.levels import fit_levels, level_groups, read_labels
from cordqa.cord.morphometry import measure_morphometry
from cordqa.cord.template import lay_atlas, sections_from_template
from cordqa.io.volumes import read_volume

#: Folder, mask, map, quantity, label image, kind of label, CPU seconds of registration, warping, extraction.
CASES = (
    ("t2_manualseg", "t2_seg-manual", "t2", "T2", "labels", "body", (62.2, 40.0, 0.7)),
    ("dmri_tutorial", "dmri_moco_dwi_mean_seg", "dti_FA", "FA", "label_c3c4", "disc", (17.6, 40.7, 0.6)),
    ("mts_sub05", "sub-05_acq-MTon_MTS_seg", "mtr", "MTR", "label_c3c4", "disc", (66.2, 57.4, 6.9)),
)
REGIONS = ("cord", "WM", "GM", "DC", "LF", "VF")


def template_sections(root: Path):
    start = time.process_time()
    labels = parse_label_table((root / "atlas" / "info_label.txt").read_text())
    volumes = [read_volume(root / f"atlas/PAM50_atlas_{n:02d}.nii.gz") for n in range(len(labels.names))]
    cord = read_volume(root / "template/PAM50_cord.nii.gz")
    discs = read_volume(root / "template/PAM50_label_disc.nii.gz")
    middle = time.process_time()
    sections = sections_from_template(cord, volumes, discs, labels)
    print(f"template: reading {middle - start:.1f} s CPU, cutting {time.process_time() - middle:.1f} s CPU")
    return sections


def run(folder: Path, case, sections) -> tuple[float, float, list[float]]:
    _, mask_name, map_name, quantity, label_name, kind, _ = case
    mask = read_volume(folder / f"{mask_name}.nii.gz")
    image = read_volume(folder / f"{map_name}.nii.gz")
    labels = read_labels(read_volume(folder / f"{label_name}.nii.gz"), kind=kind)
    start = time.process_time()
    line = fit_centreline(mask)
    levels = fit_levels(labels, mask, centreline=line)
    atlas, _ = lay_atlas(sections, mask, coordinate=levels.coordinate)
    groups, notes = level_groups(levels, line.slices)
    slices = {name: line.slices[chosen] for name, chosen in groups.items()}
    rows = extract_regions(image, atlas, quantity=quantity, regions=REGIONS, groups=slices, notes=notes)
    laid = time.process_time() - start
    start = time.process_time()
    measure_morphometry(mask, centreline=line)
    return laid, time.process_time() - start, [row.value for row in rows]


def main() -> None:
    shared = Path(sys.argv[1]) / "cord"
    atlases = {"PAM50": template_sections(shared / "PAM50"), "schematic": analytical_sections()}
    print(
        f"{'case':<16}{'atlas':<11}{'SCT CPU s':>10}{'ours CPU s':>11}{'ratio':>7}{'morphometry CPU s':>19}"
    )
    for case in CASES:
        for name, sections in atlases.items():
            runs = [run(shared / "sct-reference" / case[0], case, sections) for _ in range(3)]
            laid = min(r[0] for r in runs)
            theirs = sum(case[-1])
            assert np.isfinite(runs[0][2]).any()
            shape = min(r[1] for r in runs)
            print(f"{case[0]:<16}{name:<11}{theirs:>10.1f}{laid:>11.2f}{theirs / laid:>7.0f}{shape:>19.2f}")


if __name__ == "__main__":
    main()
