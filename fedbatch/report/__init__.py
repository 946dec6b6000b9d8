"""The page with charts and tables of one run or of several: it opens from disk and asks the network for nothing."""

from fedbatch.report.at_end import ReportAtEnd
from fedbatch.report.sweep import SweepInTerminal

__all__ = ["ReportAtEnd", "SweepInTerminal"]
