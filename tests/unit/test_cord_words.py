"""What a cord run advises can be done in a cord run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import cordqa
from cordqa.cli._run import run
from cordqa.workflow.cord_words import in_cord_words

ROOT = Path(cordqa.__file__).parent
#: Texts of these rooms reach the user of a cord run.
ROOMS = ("models/susceptibility", "models/diffusion", "cord")
OPTION = re.compile(r"--[a-z][a-z0-9-]*")


@pytest.fixture(scope="module")
def options() -> set[str]:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run(["cord", "--help"]) == 0
    return set(OPTION.findall(out.getvalue()))


def literals() -> list[str]:
    """Sentences of the source that name an option, joined as they are said."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text())
            described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if id(node) in described:  # a docstring is for readers of the source
                    continue
                if isinstance(node, ast.JoinedStr):
                    text = "".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = node.value
                else:
                    continue
                # Parts of a longer sentence come by themselves as well: only advice that is whole counts.
                if OPTION.search(text) and not text.startswith(" (--"):
                    found.append(text)
    return found


def test_no_remark_names_an_option_that_the_command_has_not(options: set[str]) -> None:
    assert "--phase-sign" in options and "--phase-range" in options
    texts = literals()
    assert len(texts) > 10
    for text in texts:
        said = in_cord_words(text)
        for found in OPTION.finditer(said):
            elsewhere = said[found.end() :].startswith(" of 'cordqa fit'")
            assert found.group() in options or elsewhere, said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("correct the file, or say that the unit is ms/um2 (--b-unit)", "correct the file"),
        ("give some as well, or name the limit of b = 0 (--b0-limit)", "give some as well"),
        ("texture makes too large; --noise-sd gives it", "texture makes too large"),
        ("give --echo-times in s", "give EchoTime of the sidecars in s"),
        ("give --mask, or check them", "give a mask of the canal (label-canal), or check them"),
        ("use --phase-sign negative", "use --phase-sign negative"),
        ("cordqa reliability T --where a=b", "cordqa reliability T --where a=b"),
        ("give --readout", "give --readout of 'cordqa fit'"),
        ("", ""),
    ],
)  # fmt: skip
def test_advice_is_put_into_the_words_of_a_dataset(text: str, said: str) -> None:
    assert in_cord_words(text) == said
