"""What a field of a message may hold, said beside the field: dtype, range and length."""

from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np

Vector = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        dtype: "int64", "float64" or "uint8".
        sign: "any", "not negative" or "positive"; numbers must be finite too.
        length: "clients", one for each client; "clients or none"; or "any".
    """

    dtype: str
    sign: str = "any"
    length: str = "clients"


Ids = Annotated[Vector, Column("int64", "not negative")]
Counts = Annotated[Vector, Column("int64", "not negative")]
Listed = Annotated[Vector, Column("int64", "not negative", length="any")]
"""Whole numbers that are not one a client, such as one a group."""
Numbers = Annotated[Vector, Column("float64")]
Squares = Annotated[Vector, Column("float64", "not negative")]
Positive = Annotated[Vector, Column("float64", "positive")]
IfKept = Annotated[Vector, Column("int64", "not negative", length="clients or none")]
"""One for each client, or none where clients keep nothing."""
IfWeighted = Annotated[Vector, Column("float64", "positive", length="clients or none")]
"""One for each client, or none where all count as the run's weighting says."""
IfHalved = Annotated[Vector, Column("float64", length="clients or none")]
"""One for each client, or none where batches were not halved."""

IfCompressed = Annotated[Vector, Column("float64", "not negative", length="clients or none")]
"""One for each client, or none where updates are not compressed."""
Bytes = Annotated[Vector, Column("uint8", length="any")]


def columns_of(kind: Any) -> dict[str, Column]:
    """The columns of a message, by name."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: get_args(hint)[1] for name, hint in hints.items() if get_origin(hint) is Annotated}


def types_of(kind: Any) -> dict[str, type]:
    """The type of each field of a message: Tensor, an array, or a plain value's."""
    columns = columns_of(kind)
    return {name: np.ndarray if name in columns else hint for name, hint in get_type_hints(kind).items()}
