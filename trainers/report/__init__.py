"""The training report: report.json for scripts and report.html for people, of the same values."""
