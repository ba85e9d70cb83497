"""Folders as they come: empty, foreign, hostile, private; hints about the phantom."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers_dicom import SECRETS, inversion_series, mr_image, picture, uid, write

from cordqa.errors import CordqaError, EmptyInputError, InputError, TooLargeError
from cordqa.io.files import printable
from cordqa.io.folder import Reading, read_folder
from cordqa.io.limits import ReadLimits
from cordqa.records import State, as_plain


def _text(reading: Reading) -> str:
    """Everything a reading says, as text."""
    parts = [repr(reading.outcomes), repr(reading.notices), repr(reading.ignored), repr(reading.hints)]
    for images in reading.sets:
        parts += [repr(images.entities), repr(images.acquisitions), images.label, repr(images.sources)]
        parts += [repr(images.notices), json.dumps(as_plain(images.entities))]
    return " ".join(parts)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; check the spelling"):
        read_folder(tmp_path / "absent")


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(InputError, match="is not a folder; give the folder that holds the images"):
        read_folder(tmp_path / "f")


def test_names_that_no_file_system_accepts(tmp_path: Path) -> None:
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(InputError):
            read_folder(tmp_path / name)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(EmptyInputError, match="holds no files") as caught:
        read_folder(tmp_path)
    assert caught.value.exit_status == 2


def test_a_folder_of_something_else_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b.tsv").write_text("x")
    write(tmp_path / "c", mr_image(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    with pytest.raises(EmptyInputError) as caught:
        read_folder(tmp_path)
    expected = "found 3 file(s): 1 localizer; 1 neither DICOM nor NIfTI; 1 sidecar or table"
    assert expected in str(caught.value)


def test_a_folder_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", mr_image())
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name in ("locked", "root"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (outcome,) = read_folder(tmp_path).outcomes
    assert outcome.what == "locked" and "permissions" in outcome.reason
    (tmp_path / "root").mkdir()
    with pytest.raises(InputError, match="Permission denied; check the permissions"):
        read_folder(tmp_path / "root")


def test_only_regular_files_are_opened_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "a", mr_image())
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "nothing").symlink_to(tmp_path / "absent")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to(tmp_path / "sub" / "a")
    reading = read_folder(tmp_path)
    assert reading.ignored == {
        "broken link": 2,
        "copy of another file": 1,
        "link to a folder (not followed)": 1,
        "not a regular file": 2,
    }
    assert len(reading.sets) == 1 and reading.n_files == 2


def test_empty_files_and_odd_names(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "x.dcm").write_bytes(b"\x08\x00")
    (tmp_path / "x.nii").write_bytes(b"")
    write(tmp_path / "line\nbreak \x1b[31m", mr_image())
    (reading,) = [read_folder(tmp_path)]
    assert reading.sets[0].sources == ("line break  [31m",)
    assert "\n" not in _text(reading)


def test_printable_survives_undecodable_names() -> None:
    assert printable("a\udcffb\x00c\u202ed") == "a?b c d"
    assert len(printable("x" * 9999)) == 300


def test_too_many_files(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    with pytest.raises(TooLargeError, match="holds too many files"):
        read_folder(tmp_path, limits=ReadLimits(max_files=4))


def test_a_file_larger_than_the_limit(tmp_path: Path) -> None:
    write(tmp_path / "big", mr_image(picture(1, rows=64, columns=64)))
    write(tmp_path / "small", mr_image())
    (outcome,) = read_folder(tmp_path, limits=ReadLimits(max_file_bytes=3000)).outcomes
    assert (outcome.what, outcome.code) == ("big", "input.too-large")


def test_sets_beyond_the_memory_limit_are_skipped_and_said(tmp_path: Path) -> None:
    write(tmp_path / "a", mr_image(picture(1)))
    write(tmp_path / "b", mr_image(picture(2, rows=64, columns=64), AcquisitionTime="120000"))
    reading = read_folder(tmp_path, limits=ReadLimits(max_total_bytes=2000))
    assert len(reading.sets) == 1
    (outcome,) = reading.outcomes
    assert outcome.state is State.SKIPPED and outcome.sources == ("b",)


def test_large_files_are_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cordqa.io.files._WHOLE_FILE_BYTES", 100)
    write(tmp_path / "a", mr_image(picture(1)))
    np.testing.assert_array_equal(read_folder(tmp_path).sets[0].data[0, 0], picture(1))


# Privacy


def test_identity_reaches_no_output(tmp_path: Path) -> None:
    inversion_series(tmp_path, [50, 100, 400])
    path = write(tmp_path / "bad", mr_image(PixelSpacing=None))
    path = write(tmp_path / "cut", mr_image())
    path.write_bytes(path.read_bytes()[:-50])
    # Damage where a library would quote the value in its message.
    content = write(tmp_path / "odd", mr_image(EchoTime="12")).read_bytes()
    content = content.replace(b"DS\x02\x0012", b"DS\x02\x00SE").replace(b"PN\x08\x00Doe", b"IS\x08\x00Doe")
    (tmp_path / "odd").write_bytes(content)
    text = _text(read_folder(tmp_path))
    assert not [secret for secret in SECRETS if secret in text]
    assert "12345" not in text  # the scanner's serial number only separates machines


def test_identity_is_shown_only_when_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "a", mr_image())
    reading = read_folder(tmp_path, show_identity=True)
    assert reading.sets[0].entities.subject == "SECRETID"
    others = [secret for secret in SECRETS if secret != "SECRETID"]
    assert not [secret for secret in others if secret in _text(reading)]


def test_two_patients_are_never_one_set(tmp_path: Path) -> None:
    write(tmp_path / "a", mr_image(picture(1), EchoTime=10, SeriesInstanceUID=uid("a")))
    write(tmp_path / "b", mr_image(picture(2), EchoTime=20, SeriesInstanceUID=uid("b"), PatientID="other"))
    assert len(read_folder(tmp_path).sets) == 2


def test_errors_do_not_quote_headers(tmp_path: Path) -> None:
    write(tmp_path / "bad", mr_image(Rows=0))
    with pytest.raises(CordqaError) as caught:
        read_folder(tmp_path)
    assert not [secret for secret in SECRETS if secret in str(caught.value)]
    assert caught.value.__cause__ is None


def test_warnings_of_libraries_are_counted_not_shown(tmp_path: Path) -> None:
    write(tmp_path / "a", mr_image())
    path = write(tmp_path / "odd", mr_image(EchoTime=20, SeriesInstanceUID=uid("b")))
    path.write_bytes(path.read_bytes().replace(b"CS\x0a\x00ISO_IR 100", b"CS\x0a\x00ISO_IR XXX"))
    ds = mr_image(EchoTime=30, SeriesInstanceUID=uid("c"))
    ds.SpecificCharacterSet = "ISO_IR 100"
    path = write(tmp_path / "charset", ds)
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reading = read_folder(tmp_path)
    assert caught == []
    assert [n.code for n in reading.notices] == ["header.irregular"]
    assert "charset" in reading.notices[0].message


# Hints about the phantom


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("phantom.yaml", "serial_number: '0042'\ntemperature_C: 21.3\n"),
        ("phantom.yml", "serial_number: 0042\ntemperature_C: 21.3\n"),  # not octal
        ("phantom.json", '{"PhantomSerialNumber": "0042", "PhantomTemperature": 21.3}'),
    ],
)
def test_a_phantom_file_gives_serial_number_and_temperature(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path / "a", mr_image())
    (tmp_path / name).write_text(text)
    reading = read_folder(tmp_path)
    assert reading.hints == {"serial_number": "0042", "temperature_C": "21.3"}
    (a,) = reading.sets[0].acquisitions
    assert a.temperature_C == 21.3 and a.origins["temperature_C"] == "sidecar"
    assert reading.ignored == {} and reading.outcomes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature_C: 294.5", "between -20 and 80"),
        ("temperature_C: warm", "between -20 and 80"),
        ("temperature_C: .nan", "between -20 and 80"),
        ("serial_number: [1]", "serial_number is not text"),
        ("serial: 5", "not understood: serial"),
    ],
)
def test_what_a_phantom_file_cannot_mean_is_said_and_not_used(
    tmp_path: Path, text: str, message: str
) -> None:
    write(tmp_path / "a", mr_image())
    (tmp_path / "phantom.yaml").write_text(text)
    reading = read_folder(tmp_path)
    assert reading.hints == {}
    assert message in reading.notices[0].message


@pytest.mark.parametrize(
    "text", ["a: [", "just text", "a: &x 1\nb: *x", "!!python/object:os.system {}", "\x00"]
)
def test_a_phantom_file_that_is_not_a_plain_mapping_is_reported(tmp_path: Path, text: str) -> None:
    write(tmp_path / "a", mr_image())
    (tmp_path / "phantom.yaml").write_text(text)
    reading = read_folder(tmp_path)
    (outcome,) = reading.outcomes
    assert outcome.what == "phantom.yaml" and len(reading.sets) == 1
    assert str(tmp_path) not in _text(reading)


def test_contradicting_phantom_files_are_said(tmp_path: Path) -> None:
    write(tmp_path / "a", mr_image())
    (tmp_path / "phantom.json").write_text('{"serial_number": "1", "temperature_C": 20}')
    (tmp_path / "phantom.yaml").write_text("serial_number: '2'\ntemperature_C: 22\n")
    reading = read_folder(tmp_path)
    assert reading.hints == {"serial_number": "1", "temperature_C": "20"}
    assert len(reading.notices) == 2


def test_mixed_field_strengths_are_separate_sets(tmp_path: Path) -> None:
    inversion_series(tmp_path / "low", [50, 100], MagneticFieldStrength=1.5)
    inversion_series(tmp_path / "high", [50, 100], MagneticFieldStrength=3)
    sets = read_folder(tmp_path).sets
    assert sorted(s.entities.field_strength_T for s in sets) == [1.5, 3.0]
    assert len({s.entities.scanner for s in sets}) == 2


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    inversion_series(tmp_path, [50, 100, 400])
    first, second = read_folder(tmp_path), read_folder(tmp_path)
    assert _text(first) == _text(second)
    np.testing.assert_array_equal(first.sets[0].data, second.sets[0].data)
