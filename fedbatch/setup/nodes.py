"""What the config of one node says, beside that of the run: which clients it hosts, and where their data lies."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedbatch.config.build import build
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.core.random import Ints

COUNTS = ("num_partitions", "population")
"""What partitioners call the number of clients."""


def hosted_clients(population: int, node_config: Mapping[str, Any]) -> Ints:
    """Clients of a node, ``(clients,)``: an equal, contiguous share of the population.

    Raises:
        ConfigError: the node does not say which share is its own.

    >>> hosted_clients(5, {"partition-id": 1, "num-partitions": 2})
    array([3, 4])
    """
    return np.arange(*hosted_range(population, node_config), dtype=np.int64)


def hosted_range(population: int, node_config: Mapping[str, Any]) -> tuple[int, int]:
    """The first client of a node, and the first that is not its own any more; the first nodes have the larger shares.

    Raises:
        ConfigError: the node does not say which share is its own.

    >>> [hosted_range(5, {"partition-id": index, "num-partitions": 2}) for index in (0, 1)]
    [(0, 3), (3, 5)]
    """
    for name in ("partition-id", "num-partitions"):
        if name not in node_config:
            raise ConfigError(f"node-config lacks {name}; start each node with --node-config 'partition-id=0 ...'")
    index, count = int(node_config["partition-id"]), int(node_config["num-partitions"])
    if not 0 <= index < count:
        raise ConfigError(f"node-config: partition-id must be in 0 .. {count - 1} (got {index})")
    each, more = divmod(population, count)
    return index * each + min(index, more), (index + 1) * each + min(index + 1, more)


def on_own_data(config: RunConfig, node_config: Mapping[str, Any]) -> RunConfig:
    """The config as a node reads it whose ``data`` names a folder of its own.

    The folder takes the place of ``dataset.source``, and the partitioner divides it among the clients of this node.

    Raises:
        ConfigError: the data set of the run is not one that lies in a folder, a node alone cannot scale its labels, or
            the node hosts no client.
    """
    if "source" not in config.dataset:
        raise ConfigError(
            "node-config data: the run's data set has no folder; use dataset=hugging_face or dataset=arrays"
        )
    for field, node, remedy in (("task", config.task, "centre and task.scale"), ("loss", config.loss, "class_weights")):
        if node and getattr(build(field, node), "needs_all_labels", False):
            raise ConfigError(
                f"node-config data: the {field} reads the labels of everybody, which a node with data of its own has "
                f"not; give numbers as {field}.{remedy}"
            )
    clients = hosted_clients(config.population, node_config)
    if not len(clients):
        raise ConfigError(f"node-config: no client of the {config.population} is left for this node; start fewer nodes")
    counts = {name: len(clients) for name in COUNTS if name in config.partitioner}
    partitioner = {
        "_target_": "fedbatch.data.own.own_clients",
        "partitioner": {**config.partitioner, **counts, "_partial_": True},
        "first": int(clients[0]),
        "count": len(clients),
        "population": config.population,
    }
    return replace(config, dataset={**config.dataset, "source": str(node_config["data"])}, partitioner=partitioner)
