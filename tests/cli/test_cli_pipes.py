"""A reader that goes away (``| head``) ends neither the work nor its exit status."""

import subprocess
import sys

import pytest


def run_without_reader(*words: str) -> tuple[int, bytes]:
    command = [sys.executable, "-m", "cordqa", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        return process.wait(timeout=60), said


@pytest.mark.parametrize("words", [("list", "quantities"), ("fit", "--help")])
def test_a_closed_pipe_is_no_error(words):
    assert run_without_reader(*words) == (0, b"")


def test_an_error_keeps_its_status_where_no_one_reads():
    status, said = run_without_reader("report", "no-such-folder")
    assert status == 2
    assert b"no-such-folder" in said
