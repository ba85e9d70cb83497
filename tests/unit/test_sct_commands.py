"""Command lines against the recorded runs of the real toolbox."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

import pytest

from cordqa.engines.protocol import Contrast, Estimator
from cordqa.engines.sct import commands
from cordqa.errors import ConfigError, CordqaError

#: For each program: the recorded option and the setting of our builder.
SETTINGS: dict[str, dict[str, str]] = {
    "sct_propseg": {"-i": "image", "-c": "contrast", "-init-centerline": "centerline", "-o": "output",
                    "-qc": "quality_folder"},
    "sct_label_vertebrae": {"-i": "image", "-s": "segmentation", "-c": "contrast", "-discfile": "discs",
                            "-ofolder": "folder", "-qc": "quality_folder"},
    "sct_register_to_template": {"-i": "image", "-s": "segmentation", "-l": "bodies", "-ldisc": "discs",
                                 "-c": "contrast", "-ref": "reference", "-ofolder": "folder",
                                 "-param": "steps", "-qc": "quality_folder"},
    "sct_warp_template": {"-d": "image", "-w": "warp", "-a": "with_atlas", "-ofolder": "folder",
                          "-qc": "quality_folder"},
    "sct_register_multimodal": {"-i": "moving", "-d": "fixed", "-iseg": "moving_segmentation",
                                "-dseg": "fixed_segmentation", "-m": "mask", "-initwarp": "warp",
                                "-initwarpinv": "inverse_warp", "-param": "steps", "-owarp": "warp_output",
                                "-owarpinv": "inverse_warp_output", "-x": "interpolation",
                                "-qc": "quality_folder"},
    "sct_create_mask": {"-i": "image", "-p": "process", "-size": "size", "-f": "shape", "-o": "output"},
    "sct_apply_transfo": {"-i": "image", "-d": "destination", "-w": "warp", "-x": "interpolation",
                          "-o": "output"},
    "sct_compute_mtr": {"-mt0": "mt_off", "-mt1": "mt_on", "-o": "output", "-v": "quiet"},
    "sct_dmri_separate_b0_and_dwi": {"-i": "image", "-bvec": "bvecs", "-bval": "bvals"},
    "sct_dmri_moco": {"-i": "image", "-bvec": "bvecs", "-bval": "bvals", "-m": "mask", "-g": "group_size",
                      "-ofolder": "folder", "-qc": "quality_folder", "-qc-seg": "quality_segmentation"},
    "sct_dmri_compute_dti": {"-i": "image", "-bval": "bvals", "-bvec": "bvecs", "-method": "method",
                             "-m": "mask", "-o": "prefix"},
    "sct_process_segmentation": {"-i": "segmentation", "-o": "output", "-z": "slices", "-vert": "levels",
                                 "-vertfile": "level_image", "-discfile": "discs", "-perlevel": "per_level",
                                 "-perslice": "per_slice", "-angle-corr": "angle_correction",
                                 "-normalize-PAM50": "normalise_to_template"},
    "sct_extract_metric": {"-i": "metric", "-f": "atlas", "-l": "labels", "-combine": "combine",
                           "-method": "estimator", "-vert": "levels", "-vertfile": "level_image",
                           "-perlevel": "per_level", "-perslice": "per_slice", "-z": "slices",
                           "-o": "output"},
    "sct_get_centerline": {"-i": "segmentation", "-c": "contrast", "-o": "output"},
    "sct_label_utils": {"-i": "segmentation", "-create-seg-mid": "label", "-o": "output"},
    "sct_compute_mtsat": {"-mt": "mt_on", "-pd": "mt_off", "-t1": "t1w"},
    "sct_deepseg": {"-i": "image", "-o": "output"},
}  # fmt: skip
BUILDERS = {
    "sct_propseg": commands.propseg,
    "sct_label_vertebrae": commands.label_vertebrae,
    "sct_register_to_template": commands.register_to_template,
    "sct_warp_template": commands.warp_template,
    "sct_register_multimodal": commands.register_images,
    "sct_create_mask": commands.create_mask,
    "sct_apply_transfo": commands.apply_warp,
    "sct_compute_mtr": commands.compute_mtr,
    "sct_dmri_separate_b0_and_dwi": commands.separate_diffusion,
    "sct_dmri_moco": commands.correct_motion,
    "sct_dmri_compute_dti": commands.compute_dti,
    "sct_process_segmentation": commands.process_segmentation,
    "sct_extract_metric": commands.extract_metric,
    "sct_get_centerline": commands.centerline_from_segmentation,
    "sct_label_utils": commands.label_mid_slice,
    "sct_compute_mtsat": commands.compute_mtsat,
    "sct_deepseg": commands.deepseg,
}
FLAGS = {"with_atlas", "per_level", "per_slice", "angle_correction", "normalise_to_template", "combine"}
NUMBERS = {"group_size", "label"}
#: What the program does when an option that our builder always writes is not given.
UNSET = {"steps": None, "interpolation": None, "per_slice": None, "with_atlas": None, "shape": None,
         "output": None}  # fmt: skip
#: Recorded on purpose with wrong settings; our builders refuse to write them.
REFUSED = {"e_badopt", "e_vert_nofile", "e_reg_nolabel", "e_reg_emptyseg", "mt_mtsat"}
#: Recorded with the same options in another order than ours.
REORDERED = {"e_xm_noatlas", "e_xm_dim", "e_xm_badlabel", "e_xm_vert_default", "e_xm_vert_absent",
             "e_xm_outfmt", "e_reg_3lab_subject", "dt_moco", "dt_reg", "m5_reg",
             "dw_fa_lcst_comb"}  # fmt: skip
#: Options that the program ignores, appends blindly, or that other programs are better for.
NOT_OFFERED = {"e_append2", "mt_ext0_outmap", "mt_ext_list", "t2_label_vert_auto", "t2_reg_disp", "e_noargs",
               "e_help", "t2_centerline_optic", "dw_cl", "e_deepseg_help", "mt_ext_max", "mt_ext0_max",
               "e_xm_badmethod"}  # fmt: skip


def recorded(shared_data: Path) -> list[dict[str, str]]:
    lines = (shared_data / "cord" / "sct-reference" / "commands.tsv").read_text().splitlines()
    return [dict(zip(("id", "folder", "command", "rc"), line.split("\t"), strict=False)) for line in lines]


def rebuild(words: list[str]) -> commands.Command:
    """Turn a recorded command into settings and those into a command again."""
    program, rest = words[0], words[1:]
    names = SETTINGS[program]
    settings: dict[str, object] = {k: v for k, v in UNSET.items() if k in names.values()}
    if program == "sct_deepseg":
        settings["task"], rest = rest[0], rest[1:]
    if program == "sct_get_centerline":
        assert "fitseg" in rest
        rest = [w for w in rest if w not in ("-method", "fitseg")]
    for option, value in zip(rest[::2], rest[1::2], strict=True):
        name = names[option]
        settings[name] = _value(name, value)
    builder = BUILDERS[program]
    positional = _positional(builder)
    arguments = [settings.pop(name) for name in positional]
    return builder(*arguments, **settings)


def _positional(builder) -> list[str]:
    code = builder.__code__
    return list(code.co_varnames[: code.co_argcount])


def _value(name: str, text: str) -> object:
    if name in FLAGS:
        return text == "1"
    if name in NUMBERS:
        return int(text)
    if name == "quiet":
        return text == "0"
    if name == "contrast":
        return Contrast(text)
    if name == "estimator":
        return Estimator(text)
    return text


def test_every_recorded_command_of_a_covered_program_is_reproduced(shared_data: Path) -> None:
    exact, reordered = [], []
    for run in recorded(shared_data):
        words = shlex.split(run["command"])
        if words[0] not in BUILDERS or run["id"] in NOT_OFFERED or run["id"] in REFUSED:
            continue
        built = list(rebuild(words).words)
        if built == words:
            exact.append(run["id"])
        else:
            # The toolbox does not care for the order of options; the same pairs are the same call.
            assert _pairs(built) == _pairs(words), run["command"]
            reordered.append(run["id"])
    assert set(reordered) == REORDERED
    assert len(exact) == 94


def _pairs(words: list[str]) -> Counter[tuple[str, str]]:
    start = 2 if words[0] == "sct_deepseg" else 1
    return Counter(zip(words[start::2], words[start + 1 :: 2], strict=True))


def test_what_was_recorded_wrongly_is_refused_before_it_runs(shared_data: Path) -> None:
    refused = 0
    for run in recorded(shared_data):
        if run["id"] in REFUSED - {"mt_mtsat"}:
            words = shlex.split(run["command"])
            with pytest.raises((CordqaError, KeyError)):
                rebuild(words)
            refused += 1
    assert refused == 4


def test_milliseconds_are_refused_as_the_program_would_not() -> None:
    # The recorded run mt_mtsat gave 30 and 15, ended with status 0 and left meaningless maps.
    with pytest.raises(ConfigError, match=r"MT on: the repetition time is not in seconds \(found 30"):
        commands.compute_mtsat(
            "a.nii.gz",
            "b.nii.gz",
            "c.nii.gz",
            repetition_times_s=(30.0, 30.0, 15.0),
            flip_angles_deg=(9.0, 9.0, 15.0),
        )


@pytest.mark.parametrize("time", [0.0, -1.0, float("nan"), float("inf"), 1.0, 15.0])
def test_impossible_repetition_time(time: float) -> None:
    with pytest.raises(ConfigError, match="not in seconds"):
        commands.compute_mtsat(
            "a.nii", "b.nii", "c.nii", repetition_times_s=(0.03, time, 0.015), flip_angles_deg=(9, 9, 15)
        )


@pytest.mark.parametrize("angle", [0.157, 0.0, -9.0, float("nan"), 180.0])
def test_impossible_flip_angle(angle: float) -> None:
    with pytest.raises(ConfigError, match="not in degrees"):
        commands.compute_mtsat(
            "a.nii", "b.nii", "c.nii", repetition_times_s=(0.03, 0.03, 0.015), flip_angles_deg=(9, angle, 15)
        )


def test_mtsat_writes_all_six_numbers_without_loss() -> None:
    command = commands.compute_mtsat(
        "a.nii", "b.nii", "c.nii", repetition_times_s=(0.035, 0.035, 0.011), flip_angles_deg=(9, 9, 15.5)
    )
    words = dict(zip(command.arguments[::2], command.arguments[1::2], strict=True))
    assert [float(words[k]) for k in ("-trmt", "-trpd", "-trt1")] == [0.035, 0.035, 0.011]
    assert [words[k] for k in ("-famt", "-fapd", "-fat1")] == ["9", "9", "15.5"]


def test_extraction_never_leaves_rows_per_slice_to_chance() -> None:
    assert "-perslice" in commands.extract_metric("m.nii.gz", "label/atlas", output="o.csv").arguments


@pytest.mark.parametrize(
    "option",
    ["-param", "-fix-label", "-norm-file", "-norm-method", "-mask-weighted", "-discard-neg-val",
     "-output-map", "-append"],
)  # fmt: skip
def test_options_without_effect_are_not_offered(option: str) -> None:
    import inspect

    code = inspect.getsource(commands.extract_metric)
    assert f'"{option}"' not in code


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([2, 3, 4, 5], "2:5"), ([4, 5], "4,5"), ([3], "3"), ([5, 2], "5,2"), ([1, 2, 4], "1,2,4")],
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert commands.number_range(numbers) == text


@pytest.mark.parametrize("numbers", [[], [-1], [2, -3]])
def test_ranges_refuse(numbers: list[int]) -> None:
    with pytest.raises(ConfigError):
        commands.number_range(numbers)


def test_three_labels_do_not_go_into_the_subjects_space() -> None:
    with pytest.raises(ConfigError, match="one or two labels"):
        commands.register_to_template("a.nii", "s.nii", discs="d.nii", reference="subject", n_labels=3)


@pytest.mark.parametrize("name", ["image.mgz", "image", "image.nii.gz.txt", ""])
def test_only_nifti(name: str) -> None:
    with pytest.raises(ConfigError, match="NIfTI"):
        commands.split_name(name)


def test_outputs_carry_the_ending_of_the_input() -> None:
    assert commands.correct_motion("d.nii", "v").outputs[0] == "d_moco.nii"
    assert commands.correct_motion("d.nii.gz", "v", folder="m").outputs[0] == "m/d_moco.nii.gz"
    assert len(commands.warp_template("a.nii.gz", "w.nii.gz").outputs) == 43


def test_recorded_outputs_are_those_that_are_checked(shared_data: Path) -> None:
    """Every file that we expect of a recorded run was among the new files of that run."""
    lines = (shared_data / "cord" / "sct-reference" / "commands.tsv").read_text().splitlines()
    checked = 0
    for line in lines:
        name, _, text, status, *_, new = line.split("\t")
        words = shlex.split(text)
        made = set(new.removeprefix("NEW:").split())
        if status != "rc=0" or words[0] not in BUILDERS or name in NOT_OFFERED | REFUSED or not made:
            continue
        if name.endswith(("2", "_large")) or "DATA/" in text:  # wrote over earlier files, or elsewhere
            continue
        command = rebuild(words)
        missing = set(command.outputs) - made
        assert not missing or not made & set(command.outputs), (name, missing)
        checked += not missing
    assert checked >= 55
