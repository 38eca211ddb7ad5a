"""One HTML page per finished run, complete in itself. Needs no torch."""

from perikarya.report.html import build_report

__all__ = ["build_report"]
