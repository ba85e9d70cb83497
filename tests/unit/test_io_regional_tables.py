"""Regional volumes of other programs, to the reliability command unchanged."""

import numpy as np
import pytest

from cordqa.errors import CordqaError
from cordqa.io.regional_tables import read_aseg_stats, read_first_volumes, write_regional_table
from cordqa.records import Entities
from cordqa.workflow.reliability import run_reliability

ASEG = """# Title Segmentation Statistics
# generating_program mri_segstats
# Measure BrainSeg, BrainSegVol, Brain Segmentation Volume, {brain:.6f}, mm^3
# Measure SurfaceHoles, SurfaceHoles, Number of defect holes, 12, unitless
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax normRange
{rows}
"""
STRUCTURES = {
    "Left-Thalamus": 7000,
    "Left-Caudate": 3500,
    "Left-Putamen": 4800,
    "Left-Pallidum": 1900,
    "Left-Hippocampus": 4000,
}


def aseg(path, volumes, brain=1.2e6):
    rows = [
        f" {n}  {10 + n}  {int(v)}  {v:.1f}  {name}  80.0  9.0  20.0  120.0  100.0"
        for n, (name, v) in enumerate(volumes.items(), start=1)
    ]
    path.write_text(ASEG.format(brain=brain, rows="\n".join(rows)))
    return path


def test_volumes_and_header_measures_are_read(tmp_path):
    rows = read_aseg_stats(aseg(tmp_path / "aseg.stats", STRUCTURES), entities=Entities(subject="sub-01"))
    found = {row.region: row.value for row in rows}
    assert found["Left-Thalamus"] == 7000
    assert found["BrainSegVol"] == 1.2e6
    assert "SurfaceHoles" not in found
    assert {row.unit for row in rows} == {"mm3"}
    assert {row.entities.subject for row in rows} == {"sub-01"}
    assert len(read_aseg_stats(tmp_path / "aseg.stats", measures=False)) == 5


def test_first_volumes_are_read(tmp_path):
    path = tmp_path / "first.txt"
    path.write_text("# structure voxels mm3\nL_Thal 8123 8123.000000\nR_Thal 7990 7990.0\n\n")
    assert {row.region: row.value for row in read_first_volumes(path)} == {"L_Thal": 8123, "R_Thal": 7990}


def test_from_files_of_freesurfer_to_icc_and_share_of_regions(tmp_path):
    rng = np.random.default_rng(0)
    people = {n: {name: v * np.exp(0.1 * rng.normal()) for name, v in STRUCTURES.items()} for n in range(12)}
    rows = []
    for who, volumes in people.items():
        for session in ("01", "02"):
            seen = {name: v * np.exp(0.01 * rng.normal()) for name, v in volumes.items()}
            path = aseg(tmp_path / "aseg.stats", seen)
            rows += read_aseg_stats(
                path, entities=Entities(subject=f"sub-{who}", session=session), measures=False
            )
    write_regional_table(rows, tmp_path / "volumes.tsv")
    result = run_reliability(tmp_path / "volumes.tsv", tmp_path / "out")
    found = {(s.name, s.region): s for s in result.statistics if s.quantity == "volume"}
    assert found["regions below 10 %", ""].value == 100
    assert found["mean ICC(C,1)", ""].value > 0.95
    forms = [name for name, region in found if region == "Left-Caudate" and name.startswith("ICC")]
    assert len(forms) == 6
    one = found["wCV", "Left-Caudate"]
    assert one.low < 1.0 < one.high


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no region"),
        ("1 10 7000 7000.0 Left-Thalamus\n", "no line of column names"),
        ("# ColHeaders Index SegId Name\n1 2 x\n", "no column StructName and Volume_mm3"),
        ("# ColHeaders Volume_mm3 StructName\n7000.0 a b\n", "another number of cells"),
        ("# ColHeaders Volume_mm3 StructName\nmany a\n", "is no volume"),
        ("# ColHeaders Volume_mm3 StructName\n-3 a\n", "is no volume"),
        ("# ColHeaders Volume_mm3 StructName\n1 a\n2 a\n", "comes twice"),
    ],
)
def test_damaged_tables_are_named(tmp_path, text, words):
    path = tmp_path / "aseg.stats"
    path.write_text(text)
    with pytest.raises(CordqaError, match=words) as caught:
        read_aseg_stats(path)
    assert "aseg.stats" in str(caught.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CordqaError, match="cannot be read"):
        read_first_volumes(tmp_path / "none.txt")
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(CordqaError, match="is no text"):
        read_first_volumes(tmp_path / "x.txt")
    (tmp_path / "y.txt").write_text("L_Thal 8123\n")
    with pytest.raises(CordqaError, match="structure voxels mm3"):
        read_first_volumes(tmp_path / "y.txt")
    with pytest.raises(CordqaError, match="no volumes"):
        write_regional_table([], tmp_path / "z.tsv")
