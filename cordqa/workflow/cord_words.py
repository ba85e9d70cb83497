"""Remarks of the models in the words of a cord run.

A model names the options of ``cordqa fit``, which runs it alone.  In a cord run the same things come from
sidecars and from masks of the user, or cannot be chosen.
"""

from __future__ import annotations

import re

__all__ = ["in_cord_words"]

#: Clauses that advise what a cord run cannot do, and what stands in their place.
_CLAUSES = (
    (r",? or say that the unit is [^;()]*\(--b-unit\)", ""),
    (r",? or name the limit of b = 0 \(--b0-limit\)", ""),
    (r"raise the limit of b = 0 \(--b0-limit\) if[^;()]*", "give the b = 0 volumes as well"),
    (
        r"say whether b is to be multiplied.*\(--lengths\)",
        "write directions of unit length, and b-values times the squared length where shells hide in it",
    ),
    (r"; --noise-sd gives it", ""),
    (r"; --regularisation lowers[^;()]*", ""),
    (r" \(give --mask, or --cord-mask for a cord\)", ""),
)
#: What an option of ``cordqa fit`` is in a dataset.
_THINGS = {
    "--mask": "a mask of the canal (label-canal)",
    "--cord-mask": "a mask of the cord (label-SC)",
    "--echo-times": "EchoTime of the sidecars",
    "--field-strength": "MagneticFieldStrength of the sidecar",
    "--b0-direction": "a header that says how the image lies",
}
#: What has no such thing: named with its command.
_ONLY_FIT = (
    "--b-unit", "--b0-limit", "--lengths", "--noise-sd", "--noise-map", "--r2", "--r2prime", "--readout",
    "--reference", "--resample",
)  # fmt: skip
_OPTION = re.compile(r"--[a-z][a-z0-9-]*")


def in_cord_words(text: str) -> str:
    """Return a sentence whose advice can be followed in a cord run.

    Examples
    --------
    >>> in_cord_words("the field strength is 128; give --field-strength in tesla")
    'the field strength is 128; give MagneticFieldStrength of the sidecar in tesla'
    """
    for pattern, instead in _CLAUSES:
        text = re.sub(pattern, instead, text)
    return _OPTION.sub(_word, text)


def _word(found: re.Match[str]) -> str:
    option = found.group()
    if option in _ONLY_FIT:
        return f"{option} of 'cordqa fit'"
    return _THINGS.get(option, option)
