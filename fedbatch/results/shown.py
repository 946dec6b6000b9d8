"""Which noise scale people are shown."""

from collections.abc import Mapping
from typing import Any


def noise_column(row: Mapping[str, Any]) -> str:
    """The column that controllers decide on: under privacy the one with privacy noise counted in."""
    return "noise_scale_dp" if "noise_scale_dp" in row else "noise_scale"
