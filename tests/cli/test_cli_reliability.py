"""``cordqa reliability`` as a user meets it: options, exit status, silence of stdout."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from helpers_tables import travelling, write_rows

from cordqa.cli._run import run
from cordqa.cli.reliability import reliability
from cordqa.workflow.reliability_settings import ReliabilitySettings, make_settings, read_options

#: How every option is written on the command line and in a file.
SAMPLES: dict[str, tuple[list[str], Any]] = {
    "map": (["subject=who", "region=roi"], {"subject": "who", "region": "roi"}),
    "value": (["csa=CSA", "FA"], {"csa": "CSA", "FA": "FA"}),
    "gather": (["scanner=A,B,C"], {"scanner": ["A", "B", "C"]}),
    "unit": (["CSA=mm2"], {"CSA": "mm2"}),
    "scale": (["dT1=interval"], {"dT1": "interval"}),
    "where": (["level=C2,C3", "cohort=III"], {"level": ["C2", "C3"], "cohort": "III"}),
    "exclude": (["subject=sub-03: motion"], [{"subject": "sub-03", "reason": "motion"}]),
    "by": (["method", "side"], ["method", "side"]),
    "covariate": (["height"], ["height"]),
    "marker": (["FA, C2"], ["FA, C2"]),
    "subject_within": (["site"], "site"),
    "compare": (["vendor"], "vendor"),
    "batch": (["vendor"], "vendor"),
    "case": (["DCM"], "DCM"),
    "harmonise": (["combat"], "combat"),
    "definition": (["spine-generic"], "spine-generic"),
    "scanners": (["fixed"], "fixed"),
    "error_ratio": (["2.5"], 2.5),
    "limit": (
        ["CSA: wCV <= 3%", "CSA: |bias_percent| <= 5%"],
        {"CSA": {"wCV": "<= 3%", "|bias_percent|": "<= 5%"}},
    ),
    "published": (["sensitivity=88% of 22"], [{"label": "sensitivity", "percent": 88, "n": 22}]),
    "difference": (["3%", "CSA=2.5"], ["3%", "CSA=2.5"]),
    "relate": (["MTsat,MWF by tissue"], ["MTsat,MWF by tissue"]),
    "level": (["0.9"], 0.9),
    "baseline": (["15"], 15),
    "simultaneous": ([], True),
    "keep_flagged": ([], True),
    "detail": (["full"], "full"),
    "seed": (["0"], 0),
    "delimiter": (["tab"], "tab"),
    "decimal": ([","], ","),
    "names": (["{subject}_{session}"], "{subject}_{session}"),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = travelling(subjects=6, regions=("C2",), scanners=("A", "B"), shifts=(0, 0.1))
    return write_rows(tmp_path_factory.mktemp("table") / "t.csv", rows)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reliability", "--help"]) == 0
    shown = capsys.readouterr().out
    for name in SAMPLES:
        assert f"--{name.replace('_', '-')}" in shown


def test_the_same_options_in_the_file_and_on_the_command_line() -> None:
    names = {one.name for one in fields(ReliabilitySettings)}
    assert names == set(SAMPLES)
    parameters = {name.rstrip("_") for name in inspect.signature(reliability).parameters}
    assert parameters - names == {"table", "out", "config", "as_json"}
    assert names <= parameters
    assert set(get_type_hints(reliability)) >= {"table", "out"}


@pytest.mark.parametrize("name", SAMPLES)
def test_each_option_means_the_same_in_both_places(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, written = SAMPLES[name]
    seen: list[ReliabilitySettings] = []

    def stop(*_: Any, settings: ReliabilitySettings, **__: Any) -> None:
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr("cordqa.workflow.reliability.run_reliability", stop)
    option = f"--{name.replace('_', '-')}"
    line = [part for word in words for part in (option, word)] or [option]
    run(["reliability", "t.csv", "out", *line])
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump({name: written}))
    run(["reliability", "t.csv", "out", "--config", str(file)])
    assert len(seen) == 2
    first, second = (asdict(settings)[name] for settings in seen)
    if name in ("limit", "published", "difference"):  # the words may differ, the meaning may not
        first, second = (
            [{k: v for k, v in one.items() if k != "text"} for one in part] for part in (first, second)
        )
    assert first == second
    assert first != asdict(ReliabilitySettings())[name] or name == "seed"


def test_the_command_line_counts_more_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("level: 0.9\nseed: 7\nmap: {subject: who, region: roi}\nlimit: [wCV<=3%]\n")
    line = {"seed": 0, "map": ["region=tract"], "limit": ["RC<=4"]}
    settings = make_settings((str(file), read_options(file)), ("", line))
    assert (settings.level, settings.seed) == (0.9, 0)
    assert settings.map == {"subject": "who", "region": "tract"}
    assert [limit.text for limit in settings.limit] == ["RC<=4"]


def test_a_run_says_where_the_report_is(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["reliability", str(table), str(out), "--limit", "wCV<=20%"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == f"report: {out}/report.html"
    assert "PASS" in captured.out and "wCV" in captured.out
    for name in (
        "report.html",
        "result.json",
        "statistics.tsv",
        "measurements.tsv",
        "verdicts.tsv",
        "config.yaml",
    ):
        assert (out / name).is_file()
    assert run(["report", str(out)]) == 0


def test_json_is_all_that_stdout_holds(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reliability", str(table), str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "reliability"
    assert found["provenance"]["input_hashes"]["t.csv"]
    assert found["provenance"]["config"]["level"] == 0.95


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--limit", "wCV<=0.01%"], 3),
        (["--limit", "wCV<=0.01%", "--harmonise", "covbat"], 3),  # what failed cannot undo a broken limit
        (["--limit", "nonsense<=3"], 1),
        (["--harmonise", "covbat"], 1),  # refused: one feature
        (["--where", "scanner=A", "--where", "session=1"], 1),  # nobody was measured twice
        ([], 0),
    ],
)
def test_exit_status(
    table: Path, tmp_path: Path, options: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reliability", str(table), str(tmp_path / "out"), *options]) == status
    assert "done " in capsys.readouterr().err.splitlines()[-2]


@pytest.mark.parametrize(
    "options",
    [
        ["--map", "nothing"],
        ["--map", "subject=absent"],
        ["--limit", "wCV~3"],
        ["--level", "95"],
        ["--config", "absent.yaml"],
        ["--no-such-option"],
    ],
)
def test_wrong_use_is_two_and_one_sentence(
    table: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reliability", str(table), str(tmp_path / "out"), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len([line for line in captured.err.splitlines() if "rror" in line]) == 1


def test_the_example_of_the_documentation_is_valid() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
    example = re.search(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    settings = make_settings(("", yaml.safe_load(example[1])))
    assert settings.map["subject"] == "participant_id" and len(settings.limit) == 2


def test_a_misspelt_option_of_the_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("limits: [wCV<=3%]\n")
    assert run(["reliability", "t.csv", "out", "--config", str(file)]) == 2
    assert "did you mean 'limit'?" in capsys.readouterr().err


def test_importing_the_command_is_cheap() -> None:
    code = (
        "import sys\nfrom cordqa.cli import reliability\n"
        "heavy = [m for m in ('numpy', 'pandas', 'scipy', 'yaml', 'pydantic') if m in sys.modules]\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
