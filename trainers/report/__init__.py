"""The training report: report.json for scripts and report.html for people, of the same values."""

from trainers.report.lines import ReportLine
from trainers.report.page import write_report

__all__ = ["ReportLine", "write_report"]
