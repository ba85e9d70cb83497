"""Subject, session and so on from the name of a scan."""

from __future__ import annotations

import re
from collections import Counter

from cordqa.errors import ConfigError, TableError
from cordqa.io.bids import bids_entities
from cordqa.io.files import printable

__all__ = ["FIELDS", "ScanNames"]

#: What a name may hold, in the order in which :meth:`ScanNames.split` returns it.
FIELDS = ("subject", "session", "run", "scanner", "site", "vendor", "acquisition")
_BIDS = {"subject": "sub", "session": "ses", "run": "run", "acquisition": "acq"}
_FIELD = re.compile(r"\{(\w*)\}")
_LONGITUDINAL = re.compile(r"(.+)\.long\.(.+)")


class ScanNames:
    """Splits names of scans, by a template or by BIDS, and remembers what it could not split.

    Parameters
    ----------
    template : str
        Such as ``{subject}_{session}``; ``{}`` stands for a part that says nothing.  Empty: BIDS.

    Raises
    ------
    ConfigError
        If the template names no subject, or what is not known.
    """

    def __init__(self, template: str = "") -> None:
        self.template = template
        self._pattern = _compile(template) if template else None
        self._whole: Counter[str] = Counter()
        self._known: dict[str, tuple[str, ...]] = {}

    def split(self, name: str) -> tuple[str, ...]:
        """Return the parts in the order of :data:`FIELDS`, empty where the name does not say them.

        Raises
        ------
        TableError
            If the name does not fit the template.
        """
        if name not in self._known:
            found = self._by_template(name) if self._pattern else self._by_custom(name)
            self._known[name] = tuple(found.get(part, "") for part in FIELDS)
        return self._known[name]

    def remarks(self) -> tuple[str, ...]:
        """Say that names were taken whole, where that may hide repeats."""
        if not self._whole or any(parts[1:] != ("",) * 6 for parts in self._known.values()):
            return ()
        example = printable(next(iter(self._whole)))
        return (
            f"each name of a scan ({example!r} ...) is taken for a subject; if it holds more, say how it is "
            "built, for example --names '{subject}_{session}'",
        )

    def _by_template(self, name: str) -> dict[str, str]:
        match = self._pattern.fullmatch(name.strip()) if self._pattern else None
        if match is None:
            raise TableError(
                "the name of a scan does not fit --names", found=repr(printable(name)), expected=self.template
            )
        return match.groupdict()

    def _by_custom(self, name: str) -> dict[str, str]:
        """By BIDS; else as FreeSurfer names time points of one person; else the whole is the subject."""
        stem = name.strip().rstrip("/").replace("\\", "/").rpartition("/")[2]
        long = _LONGITUDINAL.fullmatch(stem)
        words = bids_entities(long[1] if long else stem)
        if "sub" in words:
            found = {part: words[key] for part, key in _BIDS.items() if key in words}
            return {**found, "subject": f"sub-{words['sub']}"}
        if long:
            return {"subject": long[2], "session": long[1]}
        self._whole[stem] += 1
        return {"subject": stem}


def _compile(template: str) -> re.Pattern[str]:
    parts = _FIELD.findall(template)
    unknown = [part for part in parts if part and part not in FIELDS]
    repeated = [part for part, count in Counter(filter(None, parts)).items() if count > 1]
    if unknown or repeated or "subject" not in parts:
        raise ConfigError(
            "says not how names of scans are built",
            where="names",
            found=repr(template),
            expected="such as {subject}_{session}, of " + ", ".join(FIELDS) + ", or {} for anything",
        )
    pattern, end = "", 0
    for match in _FIELD.finditer(template):
        pattern += re.escape(template[end : match.start()])
        pattern += f"(?P<{match[1]}>.+?)" if match[1] else ".*?"
        end = match.end()
    return re.compile(pattern + re.escape(template[end:]))
