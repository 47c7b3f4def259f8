"""The report: one self-contained HTML page per run. It renders Results and computes nothing."""

from tremorscope.instruments.report.page import report as report

__all__ = ["report"]
