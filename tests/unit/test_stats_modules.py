"""What holds for every module of these statistics: light imports, examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys

import pytest

CORES = ("icc_core", "icc_replicated", "linearity_core", "agreement_core", "repeatability_core",
         "reproducibility_core", "quantiles", "scale")  # fmt: skip
TABLES = ("agreement", "concordance", "definitions", "icc", "linearity", "multiplicity", "repeatability",
          "reproducibility", "scanner_bias", "table")  # fmt: skip


def test_importing_brings_neither_pandas_nor_scipy():
    names = [f"cordqa.stats.{name}" for name in (*CORES, *TABLES)]
    code = (
        f"import sys, importlib; [importlib.import_module(n) for n in {names!r}];"
        "print([m for m in ('pandas', 'scipy', 'statsmodels', 'pingouin', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [*CORES, *TABLES])
def test_examples_run_and_public_names_exist(name):
    module = importlib.import_module(f"cordqa.stats.{name}")
    assert doctest.testmod(module).failed == 0
    things = {public: getattr(module, public) for public in module.__all__}
    plain = [k for k, v in things.items() if inspect.isfunction(v) or inspect.isclass(v)]
    assert [k for k in plain if not things[k].__doc__] == []
