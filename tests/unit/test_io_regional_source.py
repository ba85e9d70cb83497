"""Tables of FreeSurfer and FIRST to the reliability command, as these programs leave them."""

import json

import numpy as np
import pytest

from cordqa.cli._run import run
from cordqa.errors import CordqaError
from cordqa.io.regional_source import read_regional_source, tidy_text
from cordqa.io.scan_names import ScanNames

REGIONS = {
    "Left-Thalamus": 7000.0,
    "Left-Caudate": 3500.0,
    "Left-Putamen": 4800.0,
    "Right-Pallidum": 1900.0,
    "Brain-Stem": 21000.0,
    "BrainSegVol-to-eTIV": 0.75,
    "lhSurfaceHoles": 12.0,
}
CORTEX = {"bankssts": 2.5, "cuneus": 1.9, "insula": 3.0, "lingual": 2.0, "precuneus": 2.4}
ASEG = (
    "# Title Segmentation Statistics\n"
    "# Measure BrainSeg, BrainSegVol, Brain Segmentation Volume, 1200000.000000, mm^3\n"
    "# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean\n"
)
APARC = (
    "# Table of FreeSurfer cortical parcellation anatomical statistics\n"
    "# Measure Cortex, MeanThickness, Mean Thickness, 2.5, mm\n"
    "# ColHeaders StructName NumVert SurfArea GrayVol ThickAvg ThickStd\n"
)


def scans(names, regions=REGIONS, *, people=8, scatter=0.01, seed=0):
    """Two scans of each person by name, with regions that repeat to 1 %."""
    rng = np.random.default_rng(seed)
    found = {}
    for person in range(1, people + 1):
        own = {region: size * np.exp(0.1 * rng.normal()) for region, size in regions.items()}
        for visit in (1, 2):
            found[names.format(person=person, visit=visit)] = {
                region: size * np.exp(scatter * rng.normal()) for region, size in own.items()
            }
    return found


def wide(path, found, first="Measure:volume", sign="\t", *, turned=False, comma=False, heading=str):
    regions = list(next(iter(found.values())))

    def shown(value):
        return f"{value:.3f}".replace(".", "," if comma else ".")

    if turned:
        lines = [[first, *found]]
        lines += [[heading(one), *(shown(row[one]) for row in found.values())] for one in regions]
    else:
        lines = [[first, *map(heading, regions)]]
        lines += [[name, *(shown(row[one]) for one in regions)] for name, row in found.items()]
    path.write_text("".join(sign.join(line) + "\n" for line in lines))
    return path


def values_of(table):
    cells = table.cells
    keys = zip(
        cells["subject"], cells.get("session", cells["subject"]), cells["region"], cells["value"], strict=True
    )
    return {key[:3]: key[3] for key in keys}


BIDS = "sub-{person:02d}_ses-{visit}"


@pytest.mark.parametrize("sign", ["\t", ",", ";", " "])
@pytest.mark.parametrize("turned", [False, True])
def test_every_form_of_asegstats2table_says_the_same(sign, turned, tmp_path):
    found = scans(BIDS)
    table = read_regional_source(wide(tmp_path / "aseg.txt", found, sign=sign, turned=turned))
    values = values_of(table)
    assert values["sub-03", "2", "Left-Caudate"] == f"{found['sub-03_ses-2']['Left-Caudate']:.3f}"
    assert len(values) == 16 * 5
    assert set(table.cells["unit"]) == {"mm3"}
    assert any("BrainSegVol-to-eTIV" in note.message for note in table.notices)


def test_an_old_table_and_decimal_commas(tmp_path):
    found = scans("S{person}_t{visit}")
    old = read_regional_source(wide(tmp_path / "old.txt", found, "volume", " "), names="{subject}_t{session}")
    assert ("S1", "2", "Brain-Stem") in values_of(old)
    comma = wide(tmp_path / "comma.csv", found, sign=";", comma=True)
    assert run(["reliability", str(comma), str(tmp_path / "out"), "--names", "{subject}_t{session}"]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    brain = [one["value"] for one in result["measurements"] if one["region"] == "Brain-Stem"]
    assert 15_000 < np.mean(brain) < 30_000


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_thickness_has_no_volumes_among_it(plain, turned, tmp_path):
    found = scans(BIDS, {**CORTEX, "BrainSegVolNotVent": 1.1e6, "eTIV": 1.5e6})

    def heading(region):
        return region if plain or region not in CORTEX else f"lh_{region}_thickness"

    path = wide(tmp_path / "lh.txt", found, "lh.aparc.thickness", turned=turned, heading=heading)
    table = read_regional_source(path)
    assert set(table.cells["region"]) == {f"lh_{region}" for region in CORTEX}
    assert set(table.cells["quantity"]) == {"thickness"}
    assert set(table.cells["unit"]) == {"mm"}


def test_zero_is_a_region_that_was_not_found(tmp_path, capsys):
    found = scans(BIDS)
    found["sub-02_ses-1"]["Left-Putamen"] = 0.0
    path = wide(tmp_path / "aseg.txt", found)
    assert run(["reliability", str(path), str(tmp_path / "out")]) == 0
    assert "1 values of 0 (Left-Putamen) count as missing" in " ".join(capsys.readouterr().out.split())
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    spread = [s for s in result["statistics"] if s["name"] == "wCV" and s["region"] == "Left-Putamen"]
    assert 0.3 < spread[0]["value"] < 2


def write_scan(folder, volumes, cortex):
    stats = folder / "stats"
    stats.mkdir(parents=True)
    rows = [f" {n} {n} {int(v)} {v:.1f} {k} 80\n" for n, (k, v) in enumerate(volumes.items(), start=1)]
    (stats / "aseg.stats").write_text(ASEG + "".join(rows))
    for side in ("lh", "rh"):
        rows = [f"{k} 900 {800 * v:.0f} {900 * v:.0f} {v:.3f} 0.5\n" for k, v in cortex.items()]
        (stats / f"{side}.aparc.stats").write_text(APARC + "".join(rows))


def test_the_folder_of_freesurfer(tmp_path, capsys):
    structures = {name: size for name, size in REGIONS.items() if size > 100}
    cortex = scans(BIDS, CORTEX, seed=1)
    for name, volumes in scans(BIDS, structures).items():
        write_scan(tmp_path / "subjects" / name, volumes, cortex[name])
    write_scan(tmp_path / "subjects" / "fsaverage", structures, CORTEX)
    assert run(["reliability", str(tmp_path / "subjects"), str(tmp_path / "out")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 quantities" in shown and "8 subjects, 2 sessions" in shown
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    found = {(s["name"], s["quantity"]): s["value"] for s in result["statistics"] if not s["region"]}
    # Regions scatter by 1 %: two scans lie 2 / sqrt(pi) % apart.
    assert found["mean absolute percent difference", "thickness"] == pytest.approx(1.13, abs=0.25)
    assert found["regions below 10 %", "volume"] == 100
    lines = (tmp_path / "out" / "regions.tsv").read_text().splitlines()
    assert len(lines) == 1 + 16 * (6 + 2 * 3 * 5)


def test_cross_sectional_and_longitudinal_runs_are_not_repeats(tmp_path):
    for name in ("P1_a", "P1_b", "P1_a.long.P1", "P1_b.long.P1", "P1"):
        write_scan(tmp_path / name, {"Left-Caudate": 3500.0}, CORTEX)
    table = read_regional_source(tmp_path)
    assert set(zip(table.cells["subject"], table.cells["session"], strict=True)) == {
        ("P1", "P1_a"),
        ("P1", "P1_b"),
    }
    assert any("longitudinal" in note.message for note in table.notices)


def test_first_lists_with_the_scan_on_each_line_or_in_the_name_of_the_file(tmp_path):
    found = scans(BIDS, {"L_Thal": 8000.0, "R_Thal": 8100.0})
    rows = [(scan, k, v) for scan, row in found.items() for k, v in row.items()]
    one = tmp_path / "first.txt"
    one.write_text("# all\n" + "".join(f"{scan} {k} {int(v)} {v:.3f}\n" for scan, k, v in rows))
    folder = tmp_path / "each"
    folder.mkdir()
    for scan, row in found.items():
        (folder / f"{scan}.txt").write_text("".join(f"{k} {int(v)} {v:.3f}\n" for k, v in row.items()))
    (folder / "README.md").write_text("volumes\n")
    together, apart = read_regional_source(one), read_regional_source(folder)
    assert {k: float(v) for k, v in values_of(together).items()} == {
        k: float(v) for k, v in values_of(apart).items()
    }
    assert any("README.md" in note.message for note in apart.notices)


def test_ordinary_tables_are_left_to_the_ordinary_reader(tmp_path):
    for text in (
        "subject,session,region,value\n1,1,C2,70.1\n",
        "volume,subject\n3,1\n",
        "sub\tmean\n1\t2\n",
        "",
        "Zürich;1\n",
    ):
        path = tmp_path / "t.csv"
        path.write_text(text, encoding="latin-1")
        assert read_regional_source(path) is None
    path.write_bytes(b"\x00\x01")
    assert read_regional_source(path) is None


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda p: (p / "a.txt").write_text("L_Thal 8123 8123.0\n"), ["a.txt"], "one scan only"),
        (
            lambda p: (p / "aseg.stats").write_text(ASEG + " 1 1 5 5.0 x 80\n"),
            ["aseg.stats"],
            "one scan only",
        ),
        (lambda p: (p / "e").mkdir(), ["e"], "no table of regions"),
        (
            lambda p: wide(p / "a.txt", scans("S{person}-{visit}")),
            ["a.txt", "--names", "{subject}_{session}"],
            "does not fit --names",
        ),
        (lambda p: wide(p / "a.txt", scans(BIDS)), ["a.txt", "--names", "{who}"], "says not how names"),
        (
            lambda p: (p / "a.csv").write_text("subject,value\n1,2\n"),
            ["a.csv", "--names", "{subject}"],
            "ordinary one",
        ),
        (lambda p: (p / "a.txt").write_text("Measure:volume\tLeft-Caudate\n"), ["a.txt"], "no rows"),
        (
            lambda p: (p / "a.txt").write_text("s1 L_Thal 8123 8123.0\ns1 L_Thal 8123\n"),
            ["a.txt"],
            "scan structure voxels mm3",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence(make, options, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    assert run(["reliability", options[0], "out", *options[1:]]) == 2
    assert words in capsys.readouterr().err


def test_names_of_scans():
    plain = ScanNames()
    assert plain.split("/data/sub-01_ses-2_acq-qalas")[:2] == ("sub-01", "2")
    assert plain.split("sub-01_ses-2_acq-qalas")[-1] == "qalas"
    assert plain.split("tp1.long.anna")[:2] == ("anna", "tp1")
    alone = ScanNames()
    assert alone.split("S1_2")[0] == "S1_2"
    assert "--names" in alone.remarks()[0]
    made = ScanNames("{}/{scanner}-{subject}.{session}")
    assert made.split("x/GE-7.b")[:4] == ("7", "b", "", "GE")
    for template in ("{session}", "{subject}{subject}", "subject"):
        with pytest.raises(CordqaError, match="says not how"):
            ScanNames(template)


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-2.aseg.stats",
        "sub-01_ses-2_aseg.stats",
        "sub-01_ses-2.stats",
        "sub-01_ses-2.lh.aparc.stats",
    ],
)
def test_a_file_of_one_scan_says_whose_it_is(name, tmp_path):
    body = APARC + "insula 900 800 2000 3.0 0.5\n" if "lh" in name else ASEG + " 1 1 5 5.0 x 80\n"
    (tmp_path / name).write_text(body)
    table = read_regional_source(tmp_path)
    assert set(zip(table.cells["subject"], table.cells["session"], strict=True)) == {("sub-01", "2")}
    if "lh" in name:
        assert set(table.cells["region"]) == {"lh_insula"}


def test_files_that_are_called_alike_for_everyone_are_refused(tmp_path):
    (tmp_path / "aseg.stats").write_text(ASEG + " 1 1 5 5.0 x 80\n")
    with pytest.raises(CordqaError, match="does not say whose it is"):
        read_regional_source(tmp_path)


def test_marks_that_spreadsheets_leave_do_not_matter(tmp_path):
    found = scans(BIDS)
    plain = wide(tmp_path / "a.csv", found, sign=";")
    other = tmp_path / "b.csv"
    other.write_bytes(b"\xef\xbb\xbfsep=;\r\n" + plain.read_bytes().replace(b"\n", b";\r\n"))
    assert values_of(read_regional_source(other)) == values_of(read_regional_source(plain))
    wrong = tmp_path / "c.csv"
    wrong.write_text(plain.read_text(), encoding="utf-16")
    assert values_of(read_regional_source(wrong)) == values_of(read_regional_source(plain))


def test_text_of_a_table_runs_as_no_formula(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Measure:volume\t=cmd()\tLeft-Caudate\nsub-1_ses-1\t5\t6\n")
    assert "\t'=cmd()\t" in tidy_text(read_regional_source(path))


def test_volumes_in_ml_and_in_mm3_are_one_quantity(tmp_path, capsys):
    rng = np.random.default_rng(4)
    lines = ["subject,session,region,quantity,value,unit"]
    for person in range(8):
        size = 3500 * np.exp(0.1 * rng.normal())
        for visit, (unit, factor) in enumerate((("mm3", 1.0), ("mL", 1e-3))):
            value = factor * size * np.exp(0.01 * rng.normal())
            lines.append(f"s{person},{visit},Caudate,volume,{value:.6g},{unit}")
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    assert run(["reliability", str(path), str(tmp_path / "out")]) == 0
    assert "2 units in one quantity" in " ".join(capsys.readouterr().out.split())
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    spread = next(s for s in result["statistics"] if s["name"] == "wCV" and not s["group"])
    assert spread["value"] == pytest.approx(1, abs=0.6)


def test_damaged_files_raise_no_other_error(tmp_path):
    rng = np.random.default_rng(5)
    found = scans(BIDS, people=2)
    bodies = [
        wide(tmp_path / "a.txt", found).read_bytes(),
        wide(tmp_path / "b.txt", found, sign=" ", turned=True).read_bytes(),
        (ASEG + " 1 1 5 5.0 x 80\n").encode(),
        b"s1 L_Thal 8123 8123.0\ns1 R_Thal 8123 8123.0\n",
    ]
    folder = tmp_path / "damaged"
    folder.mkdir()
    path = folder / "sub-1_ses-1.txt"
    for trial in range(120):
        body = bytearray(bodies[trial % len(bodies)])
        for _ in range(int(rng.integers(1, 6))):
            body[int(rng.integers(len(body)))] = int(rng.integers(256))
        path.write_bytes(bytes(body[: int(rng.integers(1, len(body) + 1))]))
        try:
            read_regional_source(folder if trial % 2 else path)
        except CordqaError as error:
            assert len(str(error)) > 10


ENIGMA = (
    "SubjID, Lthal,Rthal, Lhippo,ICV\nsub-01_ses-1,7912,7801,4021,1510000\nsub-01_ses-2,7900,0,NA,1510100\n"
)


def test_tables_of_enigma_are_read_as_they_are(tmp_path):
    path = tmp_path / "LandRvolumes.csv"
    path.write_text(ENIGMA)
    table = read_regional_source(path)
    rows = list(zip(*(table.cells[name] for name in ("session", "region", "value", "unit")), strict=True))
    assert rows[:2] == [("1", "Lthal", "7912", "mm3"), ("2", "Lthal", "7900", "mm3")]
    assert ("2", "Rthal", "n/a", "mm3") in rows  # 0: not found
    assert ("1", "ICV", "1510000", "mm3") in rows


def test_measures_of_the_whole_head_do_not_come_twice_from_tables_of_enigma(tmp_path):
    names = "SubjID,L_insula_{0},R_insula_{0},LThickness,RThickness,LSurfArea,RSurfArea,ICV\n"
    for measure in ("thickavg", "surfavg"):
        (tmp_path / f"{measure}.csv").write_text(
            names.format(measure) + "s1,1,2,3,4,5,6,7\ns2,2,3,4,5,6,7,8\n"
        )
    table = read_regional_source(tmp_path)
    pairs = set(zip(table.cells["region"], table.cells["quantity"], strict=True))
    assert pairs == {
        *((name, "thickness") for name in ("L_insula", "R_insula", "LThickness", "RThickness")),
        *((name, "surface_area") for name in ("L_insula", "R_insula", "LSurfArea", "RSurfArea")),
    }


def test_a_table_of_enigma_with_columns_of_ones_own_is_an_ordinary_table(tmp_path):
    path = tmp_path / "merged.csv"
    path.write_text(ENIGMA.replace("ICV", "Site"))
    assert read_regional_source(path) is None
