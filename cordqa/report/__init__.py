"""Reports, rendered from records only."""

from __future__ import annotations

from cordqa.report.charts import FIGURE_KINDS
from cordqa.report.page import render_report
from cordqa.report.plain import render_text

__all__ = ["FIGURE_KINDS", "render_report", "render_text"]
