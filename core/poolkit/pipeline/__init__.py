"""Everything of a start-up before the weights are read, and the report of what was decided."""

from poolkit.pipeline.prepare import PreparedModel, prepare_model
from poolkit.pipeline.report import report, report_quarantined

__all__ = ["PreparedModel", "prepare_model", "report", "report_quarantined"]
