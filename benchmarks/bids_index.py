"""Time the indexing of a large BIDS dataset.

Makes a dataset of 10,000 files (participants with two sessions, six images each, their sidecars
and masks), indexes it and asks for images, sidecars and masks; prints wall and CPU time.
Usage: ``python benchmarks/bids_index.py [N_FILES]``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from cordqa.io.bids_index import index_dataset
from cordqa.io.bids_labels import find_user_files

TARGET_S = 1.0
IMAGES = (
    ("anat", "T1w"),
    ("anat", "T2w"),
    ("anat", "acq-ax_T2star"),
    ("anat", "flip-1_mt-on_MTS"),
    ("anat", "flip-1_mt-off_MTS"),
    ("dwi", "dwi"),
)


def make_dataset(root: Path, n_files: int) -> int:
    """Write empty images; return how many files there are."""
    count, subject = 0, 0
    (root / "participants.tsv").write_text("participant_id\tage\n")
    while count < n_files:
        subject += 1
        for session in ("01", "02"):
            stem = f"sub-{subject:04d}_ses-{session}"
            for datatype, name in IMAGES:
                raw = root / f"sub-{subject:04d}" / f"ses-{session}" / datatype
                labels = root / "derivatives" / "labels" / f"sub-{subject:04d}" / f"ses-{session}" / datatype
                raw.mkdir(parents=True, exist_ok=True)
                labels.mkdir(parents=True, exist_ok=True)
                (raw / f"{stem}_{name}.nii.gz").touch()
                (raw / f"{stem}_{name}.json").write_text("{}")
                (labels / f"{stem}_{name}_label-SC_seg.nii.gz").touch()
                count += 3
    return count


def main() -> int:
    n_files = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made = make_dataset(root, n_files)
        walls, index = [], None
        for _ in range(3):
            wall, cpu = time.perf_counter(), time.process_time()
            index = index_dataset(root)
            walls.append((time.perf_counter() - wall, time.process_time() - cpu))
        assert index is not None
        wall = time.perf_counter()
        images = index.find(suffix="T2w")
        find_s = time.perf_counter() - wall
        wall = time.perf_counter()
        found = sum(len(find_user_files(index, image).by_role) for image in images)
        labels_s = time.perf_counter() - wall
        wall = time.perf_counter()
        for image in images:
            index.sidecar(image)
        sidecars_s = time.perf_counter() - wall
    best = min(walls)
    print(f"files made {made}, indexed {len(index.files)}, participants {len(index.subjects)}")
    print(f"index: wall {best[0]:.3f} s, CPU {best[1]:.3f} s (target {TARGET_S} s)")
    print(f"find {len(images)} T2w: {find_s * 1e3:.1f} ms")
    print(f"masks of these: {found} in {labels_s:.3f} s; sidecars of these: {sidecars_s:.3f} s")
    return 0 if best[0] < TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
