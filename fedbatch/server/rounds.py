"""The loop: plan -> send -> client work -> aggregate -> measure -> step -> evaluate -> record."""

import logging
from collections.abc import Iterator
from dataclasses import replace

from fedbatch.controllers.phase import ControlState, Observation, Phase
from fedbatch.server import measure
from fedbatch.server.algorithm import bytes_sent
from fedbatch.server.average import moved
from fedbatch.server.best import plateau, waited_enough
from fedbatch.server.charging import BudgetSpent
from fedbatch.server.collect import collect
from fedbatch.server.collect_private import collect_private
from fedbatch.server.evaluate import evaluate, is_evaluated
from fedbatch.server.label import with_labels
from fedbatch.server.noised_accuracy import noised_accuracy
from fedbatch.server.server import Collected, Row, Server
from fedbatch.server.state import ServerState, Totals
from fedbatch.server.stopwatch import Stopwatch
from fedbatch.server.there import NobodyComesError
from fedbatch.setup.learning import Target

log = logging.getLogger("fedbatch")


def run_rounds(server: Server, state: ServerState) -> Iterator[tuple[ServerState, Row]]:
    """Rounds from ``state`` to the configured number, the target or the privacy budget, each with its row."""
    config = server.task.config
    while not is_over(server, state):
        trained, state = with_labels(server, state)
        try:
            state, row = run_round(trained, state)
        except (BudgetSpent, NobodyComesError) as reason:
            log.info("%s", reason)
            return
        target = server.task.target
        state = replace(state, best=state.best.after(row, target, config.min_delta))
        yield state, row
        if reached_target(row, target, config.target_value):
            return
        if waited_enough(state.best, config.patience):
            log.info("%s", plateau(state.best, target))
            return


def run_round(server: Server, state: ServerState) -> tuple[ServerState, Row]:
    """One round. Parameters and optimizer tensors of ``state`` are stepped in place."""
    phase, privacy = server.phase(state.control), server.task.privacy
    clock = Stopwatch(coarse=privacy is not None)
    if privacy is None:
        collected = collect(server, state, phase, clock)
    else:
        collected = collect_private(server, privacy, state, phase, clock)
    found = collected.measured
    averages = state.averages.update(found.noise, found.drift, found.groups, server.task.config.noise_scale.every)

    factor, before, lr = learning_rate(server, state, phase)
    steps = server.optimizer.step(collected.update, lr)
    if collected.buffers.numel():
        server.optimizer.model.load(state.params, collected.buffers)
    clock.lap("step_seconds")
    average = moved(server, state.average, relative_size(server, phase))
    trace, grad_sq = measure.raw(found)
    seen = Observation(
        state.round,
        found.size,
        measure.deciding(averages.noise, found),
        found.unit,
        model_bytes(state),
        trace,
        grad_sq,
        server.task.config.rounds,
        averages.half() if found.groups is not None else None,
    )
    control, kept = server.task.controller.next(state.control, seen), averages
    changed = control.is_change_of(state.control)
    if server.task.work(control.phase).is_gradient != server.task.work(phase.name).is_gradient:
        kept = averages.restarted()  # examples and clients have no common average
    totals = add_costs(server, state, collected, sum(clock.laps.values()), bytes_sent(server, phase, state))
    executor = collected.executor
    after = replace(
        state,
        round=state.round + 1,
        optimizer=server.optimizer.state_dict(),
        average=average,
        control=control,
        averages=kept,
        lr_factor=factor,
        lr_factor_before=factor if changed else before,
        totals=totals,
        executors=state.executors | ({phase.name: executor} if executor else {}),
        switches=state.switches + tuple(switch(state, control)),
        **collected.changes,
    )
    clock.lap("step_seconds")

    is_due = is_over(server, after) or is_evaluated(server.task.config, state.round)
    tests = evaluate(server, replace(state, **collected.changes), average, is_due)
    if privacy is not None and is_due:
        noised, ledger = noised_accuracy(server, privacy, replace(state, **collected.changes))
        tests, after = tests | noised, replace(after, ledger=ledger)
    clock.lap("evaluate_seconds")  # the experimenter's cost, and no part of the totals
    row: Row = {"round": state.round, "phase": phase.name, "lr": lr}
    row |= collected.columns | steps | tests | measure.columns(found, averages)
    if (labels := server.task.labels_per_example) > 1 and found.unit == "examples":
        row |= {"noise_scale_tokens": labels * row["noise_scale"]}
    if privacy is not None:  # by the accountant of the guarantee, which takes its time
        row |= {"epsilon": privacy.epsilon(after.ledger) if is_due else float("nan")}
    row |= {"rounds": after.round, **vars(totals), **clock.laps}
    row |= {"switch": control.reason if changed else "", **state.labels.columns}
    return after, row


def learning_rate(server: Server, state: ServerState, phase: Phase) -> tuple[float, float, float]:
    """Batch factor now, batch factor before the last switch, and the learning rate of this round."""
    rule, base_lr = server.learning_rate, server.optimizer.base_lr
    before, age = state.lr_factor_before, state.round - state.control.since_round
    if state.control.lr_factor is not None:
        target = state.control.lr_factor
    elif phase.lr is not None:
        target = phase.lr / base_lr
    elif state.control.since_round == 0:
        target = 1.0
    else:
        gradient = server.task.work(phase.name).is_gradient
        size, base_size = (size_of(server, p, gradient) for p in (phase, first_phase(server)))
        target = rule.batch_factor(size, base_size, state.control.lr_noise_scale)
        if hasattr(rule, "most"):  # a rule of one's own need not have it
            target = min(target, rule.most(before, age))
    factor = rule.blend(before, target, age) if state.control.since_round else target
    share = share_done(server, state)
    clock = {} if share is None else {"share": share}
    schedule = rule.schedule_factor(state.round, server.task.config.rounds, **clock)
    return factor, before, base_lr * factor * schedule


def is_over(server: Server, state: ServerState) -> bool:
    """Whether the run has had all its rounds, or is over by another clock."""
    return state.round >= server.task.config.rounds or (share_done(server, state) or 0) >= 1


def share_done(server: Server, state: ServerState) -> float | None:
    """Share of the run by another clock than rounds: the controller's own, or examples; None where rounds count."""
    if state.control.share is not None:
        return state.control.share
    examples = getattr(server.learning_rate, "examples", None)  # a rule of one's own need not have it
    return state.totals.examples / examples if examples else None


def first_phase(server: Server) -> Phase:
    """The phase of round 0."""
    return server.phase(server.task.controller.start())


def relative_size(server: Server, phase: Phase) -> float:
    """Expected examples of a phase over those of the first."""
    size, base_size = (size_of(server, each, gradient=True) for each in (phase, first_phase(server)))
    return size / base_size


def size_of(server: Server, phase: Phase, gradient: bool) -> float:
    """Expected size of a phase in the unit of the noise scale: examples, or clients after local steps."""
    per_client = phase.client_batch_size or float(server.hosts.num_examples.mean())
    return phase.cohort_size * (per_client if gradient else 1.0)


def add_costs(
    server: Server, state: ServerState, collected: Collected, measured_seconds: float, sent: tuple[int, int]
) -> Totals:
    """Totals after this round: what each client would have sent, received and computed on its own device.

    ``sent`` are bytes up and down of one client.
    """
    clients, num_examples = collected.clients, collected.num_examples
    up, down = sent
    old = state.totals
    end = collected.end_seconds
    if end is None:
        start = old.simulated_seconds if collected.start_seconds is None else collected.start_seconds
        seconds = server.time_model.round_seconds(server.task.config.seed, clients, num_examples, down, up)
        end = start + max(seconds, collected.least_seconds)
    return Totals(
        examples=old.examples + int(num_examples.sum()),
        bytes_up=old.bytes_up + up * len(clients),
        bytes_down=old.bytes_down + down * (len(clients) + collected.unused),
        simulated_seconds=end,
        measured_seconds=old.measured_seconds + measured_seconds,
    )


def model_bytes(state: ServerState) -> int:
    """Of parameters and buffers, one way."""
    return int(state.params.element_size() * (state.params.numel() + state.buffers.numel()))


def switch(state: ServerState, control: ControlState) -> list[Row]:
    """The entry of the record for a change of phase, or none."""
    if not control.is_change_of(state.control):
        return []
    return [
        {
            "round": control.since_round,
            "from": state.control.phase,
            "to": control.phase,
            "reason": control.reason,
        }
    ]


def reached_target(row: Row, target: Target, value: float | None) -> bool:
    """Whether the target is reached: at least where a higher score is better, else at most. NaN never is."""
    if value is None:
        return False
    now = row.get(target.column, float("nan"))
    return bool(now >= value) if target.is_higher_better else bool(now <= value)
