"""The noise scale in other people's Flower apps: a strategy around theirs, which reads the replies on their way in."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedbatch.batch.average import RunningNoiseScale
from fedbatch.batch.noise_scale import NoiseScale as Estimate
from fedbatch.batch.noise_scale import estimate_weighted
from fedbatch.controllers.phase import Controller, ControlState, Observation, phase_of

log = logging.getLogger("fedbatch")

NOT_TRAINED = ("running_mean", "running_var", "num_batches_tracked")
"""Arrays of a torch ``state_dict`` that follow the data and not a gradient; they end so."""

Update = npt.NDArray[np.float64]


class NoiseScale(Strategy):
    """Measures the noise scale in any strategy of Flower's Message API, and can steer the batch by it.

    The update of a client is what it was sent minus what it replied; nothing changes for clients. Each round's train
    metrics gain ``noise_scale``, ``noise_scale_low`` and ``noise_scale_high``, averaged over rounds, and the round's
    batch in the same unit as ``batch_clients`` or ``batch_examples``.

    Args:
        strategy: does the work: FedAvg, FedAdam ...
        unit: "clients" is valid for any client work: a client's update is one draw, and the noise is what clients
            differ by, so the noise scale says how many clients' mean is worth its round. "examples" is valid only
            where updates are gradients up to a common factor: one local step, on as many examples as the weight of
            the reply says, at the same learning rate everywhere. After several steps or epochs it means nothing.
        weight_key: metric of a reply that holds its number of examples, by which updates are averaged.
        decay: of the averages, in [0, 1); see `fedbatch.batch.average.RunningNoiseScale`.
        z: half-width of the interval in standard errors.
        controller: phase controller of `fedbatch.controllers` for the next round's nodes (``fraction_train``)
            and batch; None only measures. Its ``cohort_size`` counts nodes, as far as ``min_train_nodes`` allows.
        batch_size_key: key of the train config that tells clients the phase's ``client_batch_size``, where it has
            one; they must heed it.

    Raises:
        ValueError: an unknown unit, or a controller over a strategy without ``fraction_train``.

    Source: McCandlish et al. 2018, app. A.1; see docs/noise_scale.md.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        unit: str = "clients",
        weight_key: str = "num-examples",
        decay: float = 0.9,
        z: float = 1.645,
        controller: Controller | None = None,
        batch_size_key: str = "batch-size",
    ):
        if unit not in ("clients", "examples"):
            raise ValueError(f"unit must be clients or examples (got {unit!r})")
        if controller is not None and not hasattr(strategy, "fraction_train"):
            raise ValueError(f"{type(strategy).__name__} has no fraction_train to control; use controller=None")
        self.strategy: Any = strategy
        self.unit = unit
        self.weight_key = weight_key
        self.tracker = RunningNoiseScale(decay, z)
        self.controller = controller
        self.control: ControlState | None = controller.start() if controller else None
        self.batch_size_key = batch_size_key
        self._sent: ArrayRecord = ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages of the strategy, with the cohort and batch size of the current phase."""
        self._sent = arrays
        if self.controller is not None and self.control is not None:
            phase = phase_of(self.controller.phases, self.control)
            nodes = max(len(list(grid.get_node_ids())), 1)
            # Strategies round nodes * fraction down, and that must not lose a node to rounding.
            self.strategy.fraction_train = min((phase.cohort_size + 0.5) / nodes, 1.0)
            if phase.client_batch_size is not None:
                config[self.batch_size_key] = phase.client_batch_size
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What the strategy makes of the replies, and the noise scale among its metrics."""
        replies = list(replies)
        size, measured = self._measure(replies)  # first: a strategy may change the replies
        arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        noise = self.tracker.interval()
        if noise is not None and metrics is not None:
            metrics["noise_scale"] = noise.value
            metrics["noise_scale_low"], metrics["noise_scale_high"] = noise.low, noise.high
            metrics[f"batch_{self.unit}"] = size
        if self.controller is not None and self.control is not None and size:
            model_bytes = sum(len(array.data) for array in self._sent.values())
            raw = (measured.trace, measured.grad_sq) if measured else ()
            before, seen = self.control, Observation(server_round - 1, size, noise, self.unit, model_bytes, *raw)
            self.control = self.controller.next(before, seen)
            if self.control.is_change_of(before):
                log.info("after round %d: %s", server_round, self.control.reason)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy has it."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As the strategy has it."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """As the strategy has it."""
        self.strategy.summary()

    def _measure(self, replies: list[Message]) -> tuple[float, Estimate | None]:
        """Put this round into the averages; its batch in ``unit``, and what it says of two replies or more."""
        total: Update | float = 0.0
        weights, sq_norms = [], []
        for weight, update in self._updates(replies):
            total = total + weight * update
            weights.append(weight)
            sq_norms.append(float(update @ update))
        sizes = np.array(weights) if self.unit == "examples" else np.ones(len(weights))
        noise = None
        if len(weights) >= 2:
            mean = np.asarray(total) / sum(weights)
            noise = estimate_weighted(sq_norms, sizes, float(mean @ mean), weights=weights)
            self.tracker = self.tracker.update(noise)
        return float(sizes.sum()), noise

    def _updates(self, replies: list[Message]) -> Iterator[tuple[float, Update]]:
        """Weight and flat update of each reply that can be read; what cannot is the strategy's to complain of."""
        sent = _flat(self._sent, list(self._sent))
        for reply in replies:
            if reply.has_error() or not reply.content.array_records or not reply.content.metric_records:
                continue
            arrays = next(iter(reply.content.array_records.values()))
            weight = next(iter(reply.content.metric_records.values())).get(self.weight_key)
            if set(arrays) != set(self._sent) or not isinstance(weight, int | float) or not weight > 0:
                continue
            answered = _flat(arrays, list(self._sent))
            if answered.shape == sent.shape and np.isfinite(answered).all():
                yield float(weight), sent - answered


def _flat(record: ArrayRecord, names: list[str]) -> Update:
    arrays = [record[name].numpy() for name in names if not name.endswith(NOT_TRAINED)]
    trained = [array.astype(np.float64).ravel() for array in arrays if array.dtype.kind == "f"]
    return np.concatenate([np.zeros(0), *trained])
