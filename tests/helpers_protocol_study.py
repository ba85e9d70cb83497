"""Write simulated studies of sidecars, and compare findings with what was planted."""

from __future__ import annotations

from pathlib import Path

from cordqa.protocol.records import Finding
from cordqa.simulate.protocol_study import PlantedDeviation, ProtocolStudy

__all__ = ["explains", "is_found", "write_study"]


def write_study(study: ProtocolStudy, root: Path) -> Path:
    for name, text in study.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def explains(planted: PlantedDeviation, finding: Finding) -> bool:
    """Whether a finding can come from what was planted."""
    if planted.kind == "software":
        return finding.field == "SoftwareVersions"
    if planted.field == "gradients":
        return finding.file in planted.files and ".gradients" in finding.rule
    if not planted.files:
        return finding.field == "series" and finding.entities.subject == planted.subject
    if planted.kind == "no vendor":
        return finding.file in planted.files
    named = all(name in finding.file for name in planted.files)
    return finding.field == planted.field and named and len(finding.file.split(", ")) == len(planted.files)


def is_found(planted: PlantedDeviation, findings: tuple[Finding, ...]) -> bool:
    """Whether any finding names it, and calls it what it is."""
    return any(explains(planted, one) and str(one.status) in planted.statuses for one in findings)
