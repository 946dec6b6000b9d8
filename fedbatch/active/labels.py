"""What the server knows of the labels of a run."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Labels:
    """Counts over all queries so far; which examples they are is known to the clients alone.

    Attributes:
        num_labelled: int64 (P,) labels of each client, in the order of ids; (0,) before the seed labels.
        groups: int64 (C,) global cluster of each local one, node after node.
        node_clusters: int64 (nodes,) local clusters of each node.
        columns: of the record.
    """

    num_labelled: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    groups: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    node_clusters: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    columns: dict[str, Any] = field(default_factory=dict)
