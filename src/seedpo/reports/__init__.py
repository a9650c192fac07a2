"""Run folders in, one self-contained HTML page out."""

from __future__ import annotations

from seedpo.reports.page import write_report

__all__ = ["write_report"]
