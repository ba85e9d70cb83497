"""Steps of the toolbox that make rows: the shape of the cord, and the values of regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cordqa.engines.grids import covered_slices
from cordqa.engines.protocol import EngineResult, EngineRow, Estimator, Grouping, Step
from cordqa.engines.sct import commands
from cordqa.engines.sct.checks import (
    beside_atlas,
    check_atlas,
    check_levels,
    check_mask,
    check_same,
    volume_grid,
)
from cordqa.engines.sct.commands import Command
from cordqa.engines.sct.rows import extraction_rows, shape_rows, unit_factor
from cordqa.engines.sct.runner import Runner, text_of
from cordqa.engines.sct.tables import SctTable
from cordqa.errors import ConfigError
from cordqa.records import Notice, Severity

__all__ = ["extract", "morphometry"]


def morphometry(
    runner: Runner,
    segmentation: Path,
    workdir: Path,
    *,
    group_by: Grouping = Grouping.SLICE,
    levels: Sequence[int] = (),
    level_image: Path | None = None,
    angle_correction: bool = True,
) -> EngineResult:
    """Measure area, diameters, eccentricity, orientation, solidity and length of the cord."""
    runner.need(Step.MORPHOMETRY)
    grid = volume_grid(segmentation)
    check_mask(segmentation, grid)
    if level_image is not None:
        check_same(grid, level_image, "level image")
    if group_by is Grouping.LEVEL and not levels:
        raise ConfigError("rows per level need the levels", where="cord shape", todo="name the levels")
    command = commands.process_segmentation(
        text_of(segmentation),
        output="shape.csv",
        levels=commands.number_range(levels) if levels else None,
        level_image=text_of(level_image),
        per_level=True if group_by is Grouping.LEVEL else None,
        per_slice=True if group_by is Grouping.SLICE else None,
        angle_correction=angle_correction,
    )
    table, run, files = runner.table(command, workdir, f"shape_{group_by}")
    method = f"sct shape, {'with' if angle_correction else 'without'} angle correction"
    rows = shape_rows(table, version=runner.version, method=method, levels=levels)
    return EngineResult(
        files=files, rows=_grouped(rows, group_by), runs=(run,), notices=_table_notices(table, command)
    )


def extract(
    runner: Runner,
    metric: Path,
    workdir: Path,
    *,
    atlas: Path,
    labels: Sequence[int],
    quantity: str,
    unit: str,
    estimator: Estimator = Estimator.MAXIMUM_A_POSTERIORI,
    group_by: Grouping = Grouping.ALL,
    levels: Sequence[int] = (),
    slices: tuple[int, int] | None = None,
    level_image: Path | None = None,
    combine: bool = False,
) -> EngineResult:
    """Extract a metric per region; ``atlas`` is the folder of the warped atlas, or one mask."""
    runner.need(Step.EXTRACT)
    unit_factor(unit, quantity)
    grid = volume_grid(metric)
    names = check_atlas(atlas, labels, estimator, grid)
    level_image = level_image or beside_atlas(atlas, "levels")
    if level_image is not None:
        check_same(grid, level_image, "level image")
    check_levels(levels, group_by, level_image, where=metric.name)
    command = commands.extract_metric(
        text_of(metric),
        text_of(atlas),
        output="extracted.csv",
        labels=commands.number_range(labels) if atlas.is_dir() else None,
        estimator=estimator,
        per_slice=_per_slice(group_by, levels),
        slices=f"{slices[0]}:{slices[1]}" if slices else None,
        levels=commands.number_range(levels) if levels else None,
        level_image=text_of(level_image),
        per_level=True if group_by is Grouping.LEVEL else None,
        combine=True if combine else None,
    )
    table, run, files = runner.table(command, workdir, f"{quantity}_{estimator}_{group_by}")
    cord = beside_atlas(atlas, "cord")
    rows = extraction_rows(
        table,
        version=runner.version,
        quantity=quantity,
        unit=unit,
        covered=covered_slices(cord) if cord is not None else None,
        levels=levels,
        labels=names,
    )
    return EngineResult(
        files=files, rows=_grouped(rows, group_by), runs=(run,), notices=_table_notices(table, command)
    )


def _grouped(rows: tuple[EngineRow, ...], group_by: Grouping) -> tuple[EngineRow, ...]:
    return tuple(replace(row, grouping=group_by) for row in rows)


def _per_slice(group_by: Grouping, levels: Sequence[int]) -> bool | None:
    if group_by is Grouping.SLICE:
        return True
    # Without levels the program would give one row per slice if it were not told otherwise.
    return None if levels else False


def _table_notices(table: SctTable, command: Command) -> tuple[Notice, ...]:
    if not table.note:
        return ()
    return (Notice(severity=Severity.WARNING, message=table.note, where=command.program, code="table.empty"),)
