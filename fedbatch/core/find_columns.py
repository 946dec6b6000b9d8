"""Looking columns of a record up in the table of all, `fedbatch.core.columns`."""

from collections.abc import Container
from fnmatch import fnmatchcase

from fedbatch.core.columns import COLUMNS, Column


def column(name: str) -> Column | None:
    """What is known of a column of this name; None for one of somebody's own."""
    return next((each for each in COLUMNS if fnmatchcase(name, each.name)), None)


def named(place: str) -> list[str]:
    """Names, without families, of the columns that are shown in a place."""
    return [each.name for each in COLUMNS if place in each.shown and "*" not in each.name]


def seen_as(name: str, there: Container[str]) -> str:
    """The column that people see for ``name`` in a record with the columns ``there``.

    Under privacy that is the noise scale with privacy noise counted in, on which controllers decide.

    >>> seen_as("noise_scale_low", {"noise_scale_dp_low"}), seen_as("noise_scale", {"noise_scale"})
    ('noise_scale_dp_low', 'noise_scale')
    """
    found = column(name)
    return found.private if found and found.private in there else name
