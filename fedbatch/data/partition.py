"""Which client has which training examples: positions in the one shared training set, never copies."""

import difflib
import inspect
import io
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedbatch.core import random as keys
from fedbatch.data import partition_cache
from fedbatch.data.dataset import Dataset

Ints = npt.NDArray[np.int64]


class Partition(Protocol):
    """A population of clients, numbered from 0, over one training set."""

    def __len__(self) -> int:
        """Number of clients in the population."""

    def sizes(self, clients: Ints) -> Ints:
        """Number of examples of each client; any shape."""

    def lookup(self, clients: Ints, slots: Ints) -> Ints:
        """Position in the training set of each client's slot-th example; the two shapes broadcast.

        Raises:
            IndexError: a client outside the population, or a slot not in ``0 .. size - 1``.
        """


@dataclass(frozen=True)
class IndexPartition:
    """Any split of the examples, held as one list of positions.

    Attributes:
        order: int64 ``(examples,)``, positions in the training set, client after client.
        offsets: int64 ``(population + 1,)``, where each client begins in ``order``.
    """

    order: Ints
    offsets: Ints

    @classmethod
    def from_assignment(cls, client_of: Ints) -> "IndexPartition":
        """From the client of each training example, ``(examples,)``; -1 leaves an example out.

        >>> IndexPartition.from_assignment(np.array([1, 0, -1, 1]))
        IndexPartition(order=array([1, 0, 3]), offsets=array([0, 1, 3]))
        """
        order = np.argsort(client_of, kind="stable")[np.count_nonzero(client_of < 0) :]
        return cls(order, np.concatenate([[0], np.cumsum(np.bincount(client_of[order]))]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def sizes(self, clients: Ints) -> Ints:
        """See Partition."""
        _check_within("client", clients, len(self))
        return self.offsets[clients + 1] - self.offsets[clients]

    def lookup(self, clients: Ints, slots: Ints) -> Ints:
        """See Partition."""
        _check_within("slot", slots, self.sizes(clients))
        return self.order[self.offsets[clients] + slots]


@dataclass(frozen=True)
class DrawnPartition:
    """A population of any size, each client holding examples drawn uniformly with replacement.

    Nothing is stored: a client's examples are computed when asked for. Clients share examples, so what a run
    says about one example's privacy does not hold here; each *client* still counts once.
    """

    num_examples: int
    population: int
    examples_per_client: int
    seed: int

    def __len__(self) -> int:
        return self.population

    def sizes(self, clients: Ints) -> Ints:
        """See Partition."""
        _check_within("client", clients, self.population)
        return np.full(np.shape(clients), self.examples_per_client, np.int64)

    def lookup(self, clients: Ints, slots: Ints) -> Ints:
        """See Partition."""
        _check_within("slot", slots, self.sizes(clients))
        words = keys.bits(keys.key(self.seed, "drawn"), clients, slots)
        return (words % np.uint64(self.num_examples)).astype(np.int64)


def drawn(dataset: Dataset, *, population: int, examples_per_client: int, seed: int) -> DrawnPartition:
    """A population larger than the data could fill: see DrawnPartition."""
    for name, value in {"population": population, "examples_per_client": examples_per_client}.items():
        if value < 1:
            raise ValueError(f"partitioner.{name} must be at least 1 (got {value})")
    return DrawnPartition(len(dataset.train_y), population, examples_per_client, seed)


def from_flower(dataset: Dataset, *, kind: str, seed: int, **arguments: Any) -> IndexPartition:
    """A split by one of Flower's partitioners, computed once and then read from a cache.

    The partitioner sees the columns ``idx``, ``label`` where an example has one class, ``label_bin`` where its label is
    one number (see `tenths`), and ``owner`` for a data set with natural clients.

    Args:
        dataset: only its training labels and owners matter.
        kind: name of a class of ``flwr_datasets.partitioner``, e.g. ``DirichletPartitioner``.
        seed: of the order in which the partitioner sees the examples, and of its own draws if it has any.
        **arguments: the other arguments of that class.

    Raises:
        ValueError: no such kind, or the data cannot be split this way.
    """
    path = partition_cache.path_of(dataset, kind, seed, arguments)
    client_of = partition_cache.read(path, len(dataset.train_y))
    if client_of is None:
        client_of = _assign(dataset, kind, seed, arguments)
        partition_cache.write(path, client_of)
    return IndexPartition.from_assignment(client_of)


def _assign(dataset: Dataset, kind: str, seed: int, arguments: dict[str, Any]) -> Ints:
    # Some partitioners cut the examples in the order they come: shuffle, as files are often sorted by label.
    order = keys.generator(seed, "partition").permutation(len(dataset.train_y))
    count = arguments.get("num_partitions", 0)
    if kind == "IidPartitioner" and arguments.keys() == {"num_partitions"} and count in range(1, len(order) + 1):
        return evenly(order, int(count))  # what it refuses goes on to Flower

    import datasets  # 3 seconds and 250 MB: only when there is something to compute
    from flwr_datasets import partitioner as flower

    kinds = [name for name in flower.__all__ if name != "Partitioner" and not name.startswith("Vertical")]
    if kind not in kinds:
        near = difflib.get_close_matches(kind, kinds, cutoff=0.4) or kinds
        raise ValueError(f"partitioner.kind={kind} is not a partitioner of Flower; did you mean {' or '.join(near)}?")

    columns: dict[str, npt.NDArray[Any]] = {"idx": np.arange(len(dataset.train_y))}
    if dataset.train_y.ndim == 1:
        columns["label"] = dataset.train_y
    elif dataset.num_classes is None and dataset.train_y.shape[1] == 1:
        columns["label_bin"] = tenths(dataset.train_y[:, 0].astype(np.float64))
    if dataset.owner is not None:
        columns["owner"] = dataset.owner
    by = arguments.get("partition_by")
    if by in ("label", "label_bin") and dataset.num_classes is None and by not in columns:
        told = "set partitioner.partition_by=label_bin to go by tenths of their ranks, or use partitioner=iid"
        raise ValueError(
            f"partitioner.partition_by={by}: the labels of {dataset.name} are no classes; "
            + (told if "label_bin" in columns else "use partitioner=iid, or owners and partitioner=natural")
        )
    if by is not None and by not in columns:
        raise ValueError(
            f"partitioner.partition_by={by}: data set {dataset.name} has only {', '.join(columns)}; "
            "for natural clients choose a data set with owners (dataset.owner_column)"
        )

    rows = datasets.Dataset.from_dict({name: column[order] for name, column in columns.items()})
    flower_class = getattr(flower, kind)
    if "seed" in inspect.signature(flower_class).parameters:
        arguments = {**arguments, "seed": keys.key(seed, "partition/flower")}
    client_of = np.full(len(dataset.train_y), -1)
    try:
        # Failed Dirichlet draws warn though the next may succeed, and natural ids draw a progress bar.
        with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
            split = flower_class(**arguments)
            split.dataset = rows
            parts = [np.array(split.load_partition(k)["idx"][:], np.int64) for k in range(split.num_partitions)]
    except Exception as error:  # whatever a partitioner of Flower raises, it is about these arguments
        raise ValueError(_remedy(dataset, kind, arguments, " ".join(str(error).split()))) from error
    for client, examples in enumerate(parts):
        client_of[examples] = client
    if empty := sum(len(examples) == 0 for examples in parts):
        raise ValueError(_remedy(dataset, kind, arguments, f"{empty} of {len(parts)} clients get no example."))
    return client_of


def evenly(order: Ints, count: int) -> Ints:
    """The client of each example, of ``order`` (N,) cut into ``count`` runs, of which the first may be one longer.

    It is what Flower's IidPartitioner gives, without its table of all examples: half the time and a quarter of the
    memory for 10^7.

    >>> evenly(np.array([4, 2, 0, 1, 3]), 2).tolist()
    [0, 1, 0, 1, 0]
    """
    client_of = np.empty(len(order), np.int64)
    client_of[order] = np.repeat(np.arange(count), [len(each) for each in np.array_split(order, count)])
    return client_of


def tenths(labels: npt.NDArray[np.float64]) -> Ints:
    """Which tenth of all labels, by rank, each label (N,) is in, 0 .. 9; equal labels are in one tenth.

    >>> tenths(np.array([5.0, 1.0, 1.0, 9.0])).tolist()
    [5, 0, 0, 7]
    """
    ordered = np.sort(labels)
    return np.searchsorted(ordered, labels) * 10 // len(labels)


def _remedy(dataset: Dataset, kind: str, arguments: dict[str, Any], reason: str) -> str:
    given = ", ".join(f"{name}={value}" for name, value in arguments.items() if name != "seed")
    remedy = "lower population or change these partitioner fields"
    if "alpha" in arguments:
        remedy = "raise partitioner.alpha, lower partitioner.min_partition_size (at least 1), or lower population"
    subject = f"{kind}({given}) cannot split the {len(dataset.train_y)} examples of {dataset.name}"
    return f"partitioner: {subject}: {reason.rstrip('.')}; {remedy}"


def _check_within(name: str, values: Ints, limits: Ints | int) -> None:
    outside = (values < 0) | (values >= limits)
    if np.any(outside):
        value, limit = (np.broadcast_to(array, outside.shape)[outside][0] for array in (values, limits))
        raise IndexError(f"{name} {value} is not in 0 .. {limit - 1}")
