"""The loop: plan -> send -> client work -> aggregate -> measure -> step -> evaluate -> record."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from flwr.serverapp import Grid

from fedbatch import measure
from fedbatch.aggregate import Aggregate, combine, nobody
from fedbatch.batch.learning_rate import LearningRate
from fedbatch.batch.phases import ControlState, Observation, Phase
from fedbatch.batch.tracker import Tracker
from fedbatch.exchange import exchange, per_client_accuracy
from fedbatch.hosts import Hosts, sample_cohort
from fedbatch.keys import Ints
from fedbatch.messages import Contribution, TrainPlan
from fedbatch.metrics.evaluate import ExampleSums, example_sums
from fedbatch.server_step import ServerOptimizer
from fedbatch.state import ServerState, Totals
from fedbatch.task import Task
from fedbatch.time_model import TimeModel

Row = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """The fixed parts of a run's server side."""

    task: Task
    grid: Grid
    hosts: Hosts
    optimizer: ServerOptimizer
    learning_rate: LearningRate
    time_model: TimeModel

    def phase(self, control: ControlState) -> Phase:
        """The phase a controller's state stands for."""
        phase = next(p for p in self.task.controller.phases if p.name == control.phase)
        return phase if control.cohort_size is None else replace(phase, cohort_size=control.cohort_size)


def run_rounds(server: Server, state: ServerState) -> Iterator[tuple[ServerState, Row]]:
    """Rounds from ``state`` to the configured number or the target, each with its row of the record."""
    config = server.task.config
    while state.round < config.rounds:
        state, row = run_round(server, state)
        yield state, row
        if reached_target(row, config.target_metric, config.target_value):
            return


def run_round(server: Server, state: ServerState) -> tuple[ServerState, Row]:
    """One round. Parameters and optimizer tensors of ``state`` are stepped in place."""
    clock = Stopwatch()
    phase = server.phase(state.control)
    cohort, sizes = plan_cohort(server, phase, state.round)
    plans = make_plans(server, state, phase, cohort, sizes)
    clock.lap("plan_seconds")

    contributions, rejected = exchange(server.grid, plans, Contribution, server.task.config, state.round)
    executor = contributions[0].executor if contributions else ""
    clock.lap("client_seconds")

    total = combine(contributions) if plans else nobody(state.params, state.buffers)
    measured = measure.measure(total, server.task.work(phase.name), len(server.hosts.clients))
    averages = noise, within, between = measure.update_averages(state, measured)
    clock.lap("aggregate_seconds")

    factor, before, lr = learning_rate(server, state, phase)
    server.optimizer.step(total.mean_update, lr)
    if total.mean_buffers.numel():
        state.buffers.copy_(total.mean_buffers)
    clock.lap("step_seconds")

    tests = evaluate(server, state)
    clock.lap("evaluate_seconds")

    seen = Observation(state.round, measured.size, noise.interval())
    control = server.task.controller.next(state.control, seen)
    if server.task.work(control.phase).is_gradient != server.task.work(phase.name).is_gradient:
        noise = within = between = Tracker(noise.decay, noise.z)  # examples and clients have no common average
    seconds = sum(clock.laps.values()) - clock.laps["evaluate_seconds"]  # evaluation is the experimenter's cost
    totals = add_costs(server, state, total, seconds)
    after = replace(
        state,
        round=state.round + 1,
        optimizer=server.optimizer.state_dict(),
        control=control,
        noise=noise,
        within=within,
        between=between,
        lr_factor=factor,
        lr_factor_before=factor if control != state.control else before,
        totals=totals,
        executors=({phase.name: executor} if executor else {}) | state.executors,
        switches=state.switches + tuple(switch(state, control)),
    )
    row: Row = {"round": state.round, "phase": phase.name, "cohort_size": len(total.clients)}
    row |= {"global_batch": int(total.num_examples.sum()), "train_loss": total.loss, "lr": lr}
    row |= tests | measure.columns(total, measured, *averages)
    row |= {"executor": executor}
    row |= {"excluded_clients": len(total.excluded), "rejected_replies": len(rejected)}
    row |= {"rounds": after.round, **vars(totals), **clock.laps}
    row |= {"switch": control.reason if control != state.control else ""}
    return after, row


def plan_cohort(server: Server, phase: Phase, round_: int) -> tuple[Ints, Ints]:
    """Clients of the round and their batch sizes."""
    config = server.task.config
    cohort = sample_cohort(server.hosts, config.sampling, phase.cohort_size, config.seed, round_)
    available = server.hosts.num_examples[np.searchsorted(server.hosts.clients, cohort)]
    sizes = available if phase.client_batch_size is None else np.minimum(phase.client_batch_size, available)
    return cohort[sizes > 0], sizes[sizes > 0]


def make_plans(server: Server, state: ServerState, phase: Phase, cohort: Ints, sizes: Ints) -> dict[int, TrainPlan]:
    """One plan for each node that hosts a client of the cohort."""
    noise = server.task.config.noise_scale
    halves = noise.halves and server.task.work(phase.name).is_gradient
    executor = server.task.config.executor
    measured = state.executors.get(phase.name, "auto")
    return {
        node: TrainPlan(
            params=state.params,
            buffers=state.buffers,
            clients=clients,
            batch_sizes=sizes[np.searchsorted(cohort, clients)],
            round=state.round,
            phase=phase.name,
            halves=halves,
            cosine=noise.cosine,
            executor=measured if executor == "auto" else executor,
        )
        for node, clients in server.hosts.by_node(cohort).items()
    }


def learning_rate(server: Server, state: ServerState, phase: Phase) -> tuple[float, float, float]:
    """Batch factor now, batch factor before the last switch, and the learning rate of this round."""
    rule, base_lr = server.learning_rate, server.optimizer.base_lr
    if phase.lr is not None:
        target = phase.lr / base_lr
    elif state.control.since_round == 0:
        target = 1.0
    else:
        gradient = server.task.work(phase.name).is_gradient
        first = server.phase(server.task.controller.start())
        size, base_size = (size_of(server, p, gradient) for p in (phase, first))
        target = rule.batch_factor(size, base_size, state.control.lr_noise_scale)
    age = state.round - state.control.since_round
    factor = rule.blend(state.lr_factor_before, target, age) if state.control.since_round else target
    schedule = rule.schedule_factor(state.round, server.task.config.rounds)
    return factor, state.lr_factor_before, base_lr * factor * schedule


def size_of(server: Server, phase: Phase, gradient: bool) -> float:
    """Expected size of a phase in the unit of the noise scale: examples, or clients after local steps."""
    per_client = phase.client_batch_size or float(server.hosts.num_examples.mean())
    return phase.cohort_size * (per_client if gradient else 1.0)


def evaluate(server: Server, state: ServerState) -> Row:
    """Test loss and accuracy, and per-client accuracy where clients hold examples out; NaN in rounds without."""
    config, every = server.task.config, server.task.config.evaluate_every_rounds
    last = state.round + 1 == config.rounds
    if not last and (not every or (state.round + 1) % every):
        sums = ExampleSums(0, 0, 0.0)
        return {"test_loss": sums.loss, "test_accuracy": sums.accuracy}
    sums = example_sums(server.optimizer.model, server.task.loss, server.task.test_x, server.task.test_y)
    row: Row = {"test_loss": sums.loss, "test_accuracy": sums.accuracy}
    if config.client_holdout:
        row |= per_client_accuracy(server.grid, server.hosts, state, config)
    return row


def add_costs(server: Server, state: ServerState, total: Aggregate, measured_seconds: float) -> Totals:
    """Totals after this round: what each client would have sent, received and computed on its own device."""
    model_bytes = state.params.element_size() * (state.params.numel() + state.buffers.numel())
    seconds = server.time_model.round_seconds(
        server.task.config.seed, total.clients, total.num_examples, model_bytes, model_bytes
    )
    old = state.totals
    return Totals(
        examples=old.examples + int(total.num_examples.sum()),
        bytes_up=old.bytes_up + model_bytes * len(total.clients),
        bytes_down=old.bytes_down + model_bytes * len(total.clients),
        simulated_seconds=old.simulated_seconds + seconds,
        measured_seconds=old.measured_seconds + measured_seconds,
    )


def switch(state: ServerState, control: ControlState) -> list[Row]:
    """The entry of the record for a change of phase, or none."""
    if control == state.control:
        return []
    return [
        {
            "round": control.since_round,
            "from": state.control.phase,
            "to": control.phase,
            "reason": control.reason,
        }
    ]


def reached_target(row: Row, metric: str, value: float | None) -> bool:
    """Whether the target is reached: accuracy at least, loss at most. NaN never is."""
    if value is None:
        return False
    return bool(row[metric] <= value) if metric.endswith("loss") else bool(row[metric] >= value)


Stage = Literal["plan_seconds", "client_seconds", "aggregate_seconds", "step_seconds", "evaluate_seconds"]


class Stopwatch:
    """Seconds by stage of one round."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, stage: Stage) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now
