"""Metrics, computed from sums over examples so that they are exact over clients."""

from fedbatch.metrics.bins import BinSums, mass_edges, width_edges
from fedbatch.metrics.calibration import brier, calibration_error, classwise_ece, nll
from fedbatch.metrics.report import Calibration
from fedbatch.metrics.scaling import ClientTemperature, PrivateTemperature, SharedTemperature, SoftBinTemperature

__all__ = [
    "BinSums",
    "Calibration",
    "ClientTemperature",
    "PrivateTemperature",
    "SharedTemperature",
    "SoftBinTemperature",
    "brier",
    "calibration_error",
    "classwise_ece",
    "mass_edges",
    "nll",
    "width_edges",
]
