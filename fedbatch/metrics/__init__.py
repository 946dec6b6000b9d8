"""Metrics, computed from sums over examples so that they are exact over clients."""

from fedbatch.metrics.bins import BinSums, mass_edges, width_edges
from fedbatch.metrics.calibration import brier, calibration_error, classwise_ece, nll

__all__ = ["BinSums", "brier", "calibration_error", "classwise_ece", "mass_edges", "nll", "width_edges"]
