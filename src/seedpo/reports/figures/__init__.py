"""Figures as files: the series of the page, drawn for print, with a table of the very numbers beside them."""

from __future__ import annotations

from seedpo.reports.figures.writing import KINDS, FigureOptions, write_figure

__all__ = ["KINDS", "FigureOptions", "write_figure"]
