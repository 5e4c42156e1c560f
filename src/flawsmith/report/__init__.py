"""What a folder holds, for people: a contact sheet, tables, and one self-contained HTML page."""

from flawsmith.report.page import write
from flawsmith.report.sheet import normal_root, overview, row, sheet, spread
from flawsmith.report.tables import adapters, statistics

__all__ = ["adapters", "normal_root", "overview", "row", "sheet", "spread", "statistics", "write"]
