"""How inversion times of synthetic images were chosen, as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cordqa import figures
from cordqa.figures import InversionPanel
from cordqa.models.synthetic.choice import Choice, magnetization_curves
from cordqa.models.synthetic.nulling import Tissue
from cordqa.records import Figure

__all__ = ["inversion_figures"]

_WORDS = {"white": "white matter", "fluid": "fluid", "lesion": "lesion"}
_NULLS = (
    "Magnetization along the field when the signal is made, as a fraction of equilibrium, by the "
    "inversion time. Where a line crosses zero the tissue gives no signal. Of two inversions it is "
    "the time of the first, while the second keeps its own."
)
_SEARCH = (
    "Signal of the lesion less that of white matter, in units of the proton density map. Within the shaded "
    "times the contrast keeps 95 % of the best, so that the choice does not matter there. For two inversions "
    "the second follows from the first so that fluid stays nulled; there is no line where none does that."
)


def inversion_figures(choices: Sequence[Choice], tissues: Mapping[str, Tissue | None]) -> list[Figure]:
    """Show which tissues are nulled, and where a lesion was given its contrast over the time."""
    known = {_WORDS[name]: tissue for name, tissue in tissues.items() if tissue is not None}
    inverted = [one for one in choices if one.contrast.first_s is not None]
    searched = [one for one in choices if one.curve is not None]
    drawn = []
    if inverted:
        drawn.append(
            figures.inversion(
                "nulling",
                "Which tissues are nulled",
                panels=[_levels(one, known) for one in inverted],
                y_label="Magnetization (fraction of equilibrium)",
                caption=_NULLS,
                alt="Magnetization of the tissues over the inversion time",
            )
        )
    if searched:
        drawn.append(
            figures.inversion(
                "contrast-search",
                "Contrast of the lesion by inversion time",
                panels=[_search(one) for one in searched],
                y_label="Lesion less white matter (unit of PD)",
                caption=_SEARCH,
                alt="Contrast of the lesion over the inversion time",
            )
        )
    return drawn


def _levels(one: Choice, tissues: Mapping[str, Tissue]) -> InversionPanel:
    contrast = one.contrast
    time, levels = magnetization_curves(contrast, tissues)
    second = "" if contrast.second_s is None else f"of the first; the second is at {contrast.second_s:.3g} s"
    return InversionPanel(
        label=contrast.name, time=time, lines=levels, used=contrast.first_s or 0.0, note=second
    )


def _search(one: Choice) -> InversionPanel:
    if one.curve is None or one.contrast.first_s is None:
        raise ValueError(f"{one.contrast.name} was not searched")
    best = one.curve.best
    return InversionPanel(
        label=one.contrast.name,
        time=one.curve.first_s,
        lines={"lesion less white matter": one.curve.contrast},
        used=one.contrast.first_s,
        best=best.first_s,
        flat=best.flat_s,
        note=_remark(one),
    )


def _remark(one: Choice) -> str:
    words = ["of the first"] if one.contrast.second_s is not None else []
    if one.curve is not None and one.curve.best.at_edge:
        words.append("best at the edge: not used")
    return "; ".join(words)
