"""Averages of the global parameters over rounds, which are often better than the last ones."""

from fedbatch.averaging.averaging import Averaging
from fedbatch.averaging.ema import EMA
from fedbatch.averaging.polynomial import Polynomial

__all__ = ["EMA", "Averaging", "Polynomial"]
