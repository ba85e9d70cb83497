"""What README and docs name exists: links, anchors, commands, options, files, modules, listed things."""

from __future__ import annotations

import importlib
import re
import shlex
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from cordqa.cli._app import app
from cordqa.cli.fit import ModelGroup
from cordqa.phantom.definition import list_phantoms
from cordqa.protocol.definition import list_protocols
from cordqa.workflow.fit.registry import list_models

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.name for page in PAGES]

# Options of other programs, which prose names beside ours.
OF_OTHERS = {"--constraint", "--scheduler-file", "--nthreads", "--nworkers"}
FENCE = re.compile(r"^([ ]*)```([\w-]*)\n(.*?)^\1```", re.M | re.S)
CODE = re.compile(r"`([^`\n]+)`")


@pytest.fixture(scope="module", autouse=True)
def _each_model_is_made_once() -> Iterator[None]:
    """The commands of the models are made from their records, which takes a while for all of them."""
    make, made = ModelGroup.get_command, {}

    def get(group: ModelGroup, context: Any, name: str) -> Any:
        if name not in made:
            made[name] = make(group, context, name)
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelGroup, "get_command", get)
        yield


@cache
def whole() -> Any:
    """The command line itself."""
    return get_command(app)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced blocks of these languages, without their indentation."""
    return [textwrap.dedent(m[3]) for m in FENCE.finditer(text_of(page)) if m[2] in languages]


def prose(page: Path) -> str:
    return FENCE.sub("", text_of(page))


def inline_code(page: Path) -> list[str]:
    return CODE.findall(prose(page))


# --- links ------------------------------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    # A link may break over a line; a doi in round brackets is no link.
    found = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", CODE.sub("", prose(page)))
    return [one for one in found if not re.match(r"[a-z]+:", one)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings)
    return {one.replace(" ", "-") for one in plain}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_resolve(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_every_page_is_reached_from_readme() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert not [page.name for page in PAGES[1:] if page not in linked]


# --- commands ---------------------------------------------------------------------------------------------


def command_lines(page: Path) -> list[list[str]]:
    """The words after ``cordqa`` of every command in a shell block (`text` blocks show no commands)."""
    shown = "\n".join(blocks(page, "sh", "bash", ""))
    lines = shown.replace("\\\n", " ").splitlines()
    commands = [words for line in lines for words in _simple_commands(line)]
    return [words[1:] for words in commands if words and Path(words[0]).name == "cordqa"]


def _simple_commands(line: str) -> Iterator[list[str]]:
    line = re.sub(r'"?\$\([^)]*(\([^)]*\))*[^)]*\)"?', "WORD", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|>")
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in lexer:
            if set(word) <= set(";&|>"):
                yield words
                words = []
            elif word != "do":
                words.append(word)
    except ValueError:  # a drawing, not a command
        return
    yield words


def parse(words: list[str]) -> None:
    """Let the command line read its words as it would, without doing anything."""
    command = whole()
    context = command.make_context("cordqa", list(words))
    while (group := context.command) and hasattr(group, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = group.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_parse(page: Path) -> None:
    for words in command_lines(page):
        try:
            parse(words)
        except typer.Exit:  # --help
            _command_of(words[:-1])
        except Exception as error:  # the sentence of the command line, with the line of the page
            pytest.fail(f"cordqa {shlex.join(words)}: {getattr(error, 'message', error)!s}")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_examples_give_what_is_required(page: Path) -> None:
    """Options of a model that its help calls required stand in every example of it."""
    for words in command_lines(page):
        if words[0] == "fit" and "--help" not in words:
            needed = [one for one in _command_of(words[:2]).params if "Required" in (one.help or "")]
            assert not [one.opts[0] for one in needed if one.opts[0] not in words], shlex.join(words)


def _command_of(words: list[str]) -> Any:
    command = whole()
    for word in words:
        context = command.context_class(command)
        command = command.get_command(context, word)
        assert command is not None, f"no command {word}"
    return command


@pytest.mark.parametrize("bad", ["list nonsense", "fit t3 a b", "phantom a b --no", "demo a b"])
def test_the_parser_of_this_test_refuses(bad: str) -> None:
    with pytest.raises(Exception, match=r"No such|not one of|unexpected"):
        parse(bad.split())


def test_shell_lines_are_understood() -> None:
    assert list(_simple_commands("for s in 1; do .venv/bin/cordqa fit a b > c  # said")) == [
        ["for", "s", "in", "1"],
        [".venv/bin/cordqa", "fit", "a", "b"],
        ["c"],
    ]


def command_names(command: Any = None, words: tuple[str, ...] = ()) -> list[str]:
    command = command or whole()
    if not hasattr(command, "list_commands"):
        return [" ".join(words)]
    context = command.context_class(command)
    inner = ((name, command.get_command(context, name)) for name in command.list_commands(context))
    return [found for name, one in inner for found in command_names(one, (*words, name))]


@cache
def all_options() -> frozenset[str]:
    found: set[str] = set()
    waiting = [whole()]
    while waiting:
        command = waiting.pop()
        for parameter in command.params:
            found.update([*parameter.opts, *parameter.secondary_opts])
        if hasattr(command, "list_commands"):
            context = command.context_class(command)
            waiting += [command.get_command(context, name) for name in command.list_commands(context)]
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_options_in_prose_exist(page: Path) -> None:
    named = {word for code in inline_code(page) for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
    assert not named - all_options() - OF_OTHERS - {"--help"}


def test_every_command_is_shown() -> None:
    """Someone who reads the pages meets every command, in a shell block or in the prose."""
    pages = "\n".join(text_of(page) for page in PAGES)
    missing = [name for name in command_names() if f"cordqa {name}" not in pages]
    assert not [name for name in missing if name != "protocol check"]  # shown by its short form


# --- python, files, modules -------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_snippets_import(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")
        for module, names in re.findall(r"^from (cordqa[\w.]*) import (.+)$", block, re.M):
            holder = importlib.import_module(module)
            for name in names.split(","):
                assert hasattr(holder, name.strip()), f"{module} has no {name}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_and_modules_in_prose_exist(page: Path) -> None:
    text = text_of(page)
    files = re.findall(r"\b(?:benchmarks|tests|phantoms|reports|training|cordqa)/[\w./]+\.\w+\b", text)
    assert not [name for name in files if not (ROOT / name).exists()]
    for name in re.findall(r"\bcordqa(?:\.[a-z_]+)+\b(?!/)", " ".join(inline_code(page))):
        _resolve(name)


def _resolve(dotted: str) -> None:
    module, _, name = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        assert hasattr(importlib.import_module(module), name), f"{dotted} does not exist"


# --- what is listed ---------------------------------------------------------------------------------------


def named_in_tables(page: Path) -> set[str]:
    """Code in the first column of the tables of a page."""
    first = re.findall(r"^\| *((?:`[^`]+`(?:, )?)+)", text_of(page), re.M)
    return {name for cell in first for name in CODE.findall(cell)}


def test_tables_name_all_models_phantoms_and_protocols() -> None:
    docs = ROOT / "docs"
    assert not set(list_models()) - named_in_tables(docs / "fit.md")
    assert not set(list_phantoms()) - named_in_tables(docs / "phantoms.md")
    assert not set(list_protocols()) - named_in_tables(docs / "protocols.md")
