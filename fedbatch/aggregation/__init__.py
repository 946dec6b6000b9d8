"""Aggregation of client updates: sums, which add up over nodes, and robust rules over single updates."""

from fedbatch.aggregation.robust import Aggregator, Krum, NormBound, TrimmedMean, coordinate_median

__all__ = ["Aggregator", "Krum", "NormBound", "TrimmedMean", "coordinate_median"]
