"""``cordqa list``: what cordqa knows."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["list_things"]


class Things(StrEnum):
    """What can be listed."""

    PHANTOMS = "phantoms"
    PROTOCOLS = "protocols"
    QUANTITIES = "quantities"
    ENGINES = "engines"
    MODELS = "models"


def list_things(
    things: Annotated[Things, typer.Argument(help="What to list.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the phantoms, protocols, quantities, engines or models that cordqa knows."""
    makers = {
        Things.PHANTOMS: _phantoms,
        Things.PROTOCOLS: _protocols,
        Things.QUANTITIES: _quantities,
        Things.ENGINES: _engines,
        Things.MODELS: _models,
    }
    rows = makers[things]()
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    width = max(len(row["id"]) for row in rows)
    for row in rows:
        print(f"{row['id']:<{width}}  {row['description']}")


def _phantoms() -> list[dict[str, str]]:
    from cordqa.phantom.definition import list_phantoms, load_phantom

    return [{"id": name, "description": load_phantom(name).name} for name in list_phantoms()]


def _protocols() -> list[dict[str, str]]:
    from cordqa.protocol.definition import list_protocols, load_protocol

    found = [load_protocol(name) for name in list_protocols()]
    return [{"id": one.id, "version": one.version, "description": one.title} for one in found]


def _quantities() -> list[dict[str, str]]:
    from cordqa.quantities import QUANTITIES

    return [
        {"id": q.id, "unit": q.unit, "scale": q.scale, "description": f"[{q.unit}] {q.description}"}
        for q in QUANTITIES.values()
    ]


def _engines() -> list[dict[str, str]]:
    from cordqa.engines.registry import ENGINES

    words = {
        "builtin": "Built in: no other program, no download",
        "sct": "The Spinal Cord Toolbox, called as a program",
    }
    return [{"id": name, "description": words.get(name, "")} for name in ENGINES]


def _models() -> list[dict[str, str]]:
    from cordqa.workflow.fit.registry import list_models

    return [
        {
            "id": model.id,
            "description": f"{model.description}{' (experimental)' if model.experimental else ''}",
            "maps": ", ".join(model.produces),
            "experimental": model.experimental,
            "usage": f"cordqa fit {model.id} {model.usage}",
        }
        for model in list_models().values()
    ]
