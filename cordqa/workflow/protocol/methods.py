"""What a compliance report says of its methods, and what it cites."""

from __future__ import annotations

from collections.abc import Sequence

from cordqa.protocol.records import Protocol
from cordqa.workflow.protocol.observe import Observed

__all__ = ["methods", "references"]


def methods(protocols: Sequence[Protocol], observed: Observed) -> tuple[str, ...]:
    """Return the methods as paragraphs."""
    named = "; ".join(f"{one.title} (version {one.version})" for one in protocols)
    return (
        f"Headers were read from {observed.source} and compared with {named}. "
        + " ".join(one.rationale for one in protocols),
        "Every value is compared two-sided, in SI units, with the interval that the protocol allows for "
        "the vendor and model of the scanner; both ends count. A value outside it that would lie inside "
        "in another unit is called suspect of a wrong unit. What is not recorded, or recorded in a form "
        "that is no number, is never a pass.",
        "Compliance is the number of passes over the number of values that could be judged; coverage is "
        "the number that could be judged over the number that the protocol asks for. A high compliance "
        "with a low coverage says little.",
        *(
            ("Where headers give no scan time, that of the protocol's sheet stands for it and is marked.",)
            if any(one.time_budget for one in protocols)
            else ()
        ),
    )


def references(protocols: Sequence[Protocol]) -> tuple[str, ...]:
    """Return the sources of the protocols' numbers."""
    found: dict[str, None] = {}
    for protocol in protocols:
        for source in protocol.sources:
            parts = [source.text]
            parts += [f"doi:{source.doi}"] if source.doi and source.doi not in source.text else []
            parts += [f"commit {source.commit[:12]}"] if source.commit else []
            parts += [f"licence: {source.licence}"] if source.licence else []
            found.setdefault("; ".join(parts))
    return tuple(found)
