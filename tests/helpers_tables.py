"""Studies with known truth, written as tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

Row = dict[str, object]


def write_rows(path: Path, rows: Sequence[Row], *, delimiter: str = ",") -> Path:
    """Write rows with the columns of the first one."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def travelling(
    *,
    subjects: int = 12,
    scanners: Sequence[str] = ("A", "B", "C"),
    shifts: Sequence[float] = (0.0, 2.0, -2.0),
    sessions: int = 2,
    regions: Iterable[str] = ("C2", "C10"),
    subject_sd: float = 6.0,
    error_sd: float = 1.0,
    mean: float = 70.0,
    seed: int = 0,
) -> list[Row]:
    """People who were measured on every scanner in every session."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for region in regions:
        for subject in range(1, subjects + 1):
            truth = mean + subject_sd * rng.normal() - 3.0 * (subject % 2)
            for scanner, shift in zip(scanners, shifts, strict=True):
                rows.extend(
                    {
                        "subject": subject,
                        "session": session,
                        "scanner": scanner,
                        "vendor": {"A": "GE", "B": "Siemens"}.get(scanner, "Philips"),
                        "sex": "FM"[subject % 2],
                        "age": 20 + subject,
                        "quantity": "CSA",
                        "region": region,
                        "value": f"{truth + shift + error_sd * rng.normal():.4f}",
                    }
                    for session in range(1, sessions + 1)
                )
    return rows


def cohort(*, sites: int = 6, people: int = 6, seed: int = 1) -> list[Row]:
    """People of one site each, two groups, with age and sex."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for site in range(sites):
        shift = 2.0 * rng.normal()
        for person in range(people):
            ill = (site + person) % 2
            rows.extend(
                {
                    "participant_id": f"sub-{site}{person}",
                    "site": f"S{site}",
                    "manufacturer": ("GE", "Siemens", "Philips")[site % 3],
                    "age": 30 + 2 * person,
                    "sex": "FM"[person % 2],
                    "diagnosis": "DCM" if ill else "HC",
                    "level": region,
                    "csa": f"{72 + shift - 5 * ill - 3 * (person % 2) + 4 * rng.normal():.3f}",
                }
                for region in ("C2", "C3")
            )
    return rows


def phantom(
    *, scanners: Sequence[str] = ("A", "B", "C"), weeks: int = 3, slope: float = 1.02, seed: int = 2
) -> list[Row]:
    """Spheres with reference values, measured repeatedly on several scanners."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for sphere, reference in enumerate((2000, 1400, 1000, 700, 500, 350, 250, 180), start=1):
        for place, scanner in enumerate(scanners):
            for week in range(weeks):
                error = 1 + 0.01 * (place - 1) + 0.004 * rng.normal()
                rows.append(
                    {
                        "quantity": "T1",
                        "region": f"sphere {sphere}",
                        "scanner": scanner,
                        "session": f"2025{1 + week // 28:02d}{1 + week % 28:02d}",
                        "reference": reference,
                        "value": f"{reference * slope * error:.3f}",
                        "unit": "ms",
                    }
                )
    return rows
