"""A round's client work without privacy: plan, send, add up, measure."""

import math
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from fedbatch.aggregation.bounded import averaged, bounded, limits, longest
from fedbatch.aggregation.sums import combine, combine_single, nobody
from fedbatch.clients.job import ClientWork
from fedbatch.controllers.phase import Phase
from fedbatch.core.random import Ints
from fedbatch.server import algorithm, compressed, measure
from fedbatch.server.buffer import next_buffer
from fedbatch.server.cohort import Cohort, draw_cohort, last_losses
from fedbatch.server.exchange import exchange_in_turn, tell_once
from fedbatch.server.groups import dealt, measured_groups
from fedbatch.server.plausible import check_besides, check_update
from fedbatch.server.server import Collected, Server
from fedbatch.server.state import ServerState
from fedbatch.server.stopwatch import Stopwatch
from fedbatch.wire.check import MessageError, SquaredLengths
from fedbatch.wire.messages import Contribution, TrainPlan, Updates


def collect(server: Server, state: ServerState, phase: Phase, clock: Stopwatch) -> Collected:
    """The mean update of the round's cohort and what its norms say about noise."""
    if server.asynchronous is None:
        cohort = draw_cohort(server, state, phase)
        parts = [(state, phase, places) for places in dealt(server, state, phase, cohort.clients)]
    else:
        cohort, parts = next_buffer(server, server.asynchronous, state, phase)
    turns = [make_plans(server, then, at, cohort.select(places)) for then, at, places in parts]
    clock.lap("plan_seconds")

    kind: Any = Contribution if server.task.aggregator is None else Updates
    check = partial(check_sizes, server, server.task.work(phase.name))
    compression = server.task.compression
    spread = compressed.Spread.none(state.params if compression else state.params[:0])
    found, rejected = exchange_in_turn(
        server.grid,
        turns,
        kind,
        server.task.config,
        state.round,
        check,
        opened=partial(compressed.opened, server, spread),
    )
    clock.lap("client_seconds")
    found, norms, bounds = bound(server, state, phase, found)
    answers = list(chain.from_iterable(found))

    ran = (
        answer.executor
        for group, (_, began, _) in zip(found, parts, strict=True)
        if began.name == phase.name
        for answer in group
    )
    executor = next(ran, "")  # of this phase: clients of a buffer may have begun in an earlier one
    if not any(turns):
        total = nobody(state.params, state.buffers)
    elif server.task.aggregator is None:
        total = combine([answer for answer in answers if isinstance(answer, Contribution)])
    else:
        singles = [answer for answer in answers if isinstance(answer, Updates)]
        total = combine_single(singles, server.task.aggregator, state.buffers)
    update, changes = algorithm.aggregated(server, state, phase, total)
    if compression:
        total = replace(total, compression_overlap=spread.overlap / max(total.weight_sum, 1) ** 4)
    measured = measure.measure(total, server.task.work(phase.name), len(server.hosts.clients), compression)
    if (
        server.task.config.noise_scale.groups
        and len(turns) > 1
        and all(any(len(answer.clients) for answer in group) for group in found)
    ):
        measured = replace(measured, groups=measured_groups(server, found, measured.unit))
    clock.lap("aggregate_seconds")
    return Collected(
        update=update if cohort.scale == 1 else update * cohort.scale,
        buffers=total.mean_buffers,
        clients=total.clients,
        num_examples=total.num_examples,
        measured=measured,
        executor=executor,
        columns={
            "cohort_size": len(total.clients),
            "global_batch": int(total.num_examples.sum()),
            "train_loss": total.loss,
            "mean_update_norm": total.sq_norm_of_mean**0.5,
            "mean_cosine": total.mean_cosine,
            **({"client_norms": np.sqrt(total.sq_norms).tolist()} if server.task.config.record_client_norms else {}),
            "short_clients": sum(
                int((cohort.batch_sizes[places] < (began.client_batch_size or 0)).sum()) for _, began, places in parts
            ),
            "excluded_clients": len(total.excluded),
            "rejected_replies": len(rejected),
            "executor": answers[0].executor if answers else "",
            **({"bounded_nodes": len(bounds)} if bounds else {}),
            **({"lost_client_states": total.lost} if "versions" in changes else {}),
            **cohort.columns,
        },
        changes={"norms": norms} | changes | last_losses(server, state, total.clients, total.losses) | cohort.changes,
        start_seconds=cohort.start_seconds,
        end_seconds=cohort.end_seconds,
        least_seconds=cohort.least_seconds,
        unused=cohort.unused,
    )


def bound(
    server: Server, state: ServerState, phase: Phase, found: list[list[Any]]
) -> tuple[list[list[Any]], dict[str, float], list[str]]:
    """Answers without updates far longer than other nodes', the averages of lengths, and a line for each bounded node.

    A node goes by its first client, and lengths by phase, whose work makes them long or short.
    """
    hosts, start = server.hosts, f"{phase.name}/"
    if len(hosts.firsts) < 3:
        return found, state.norms, []
    before = {int(name.removeprefix(start)): v for name, v in state.norms.items() if name.startswith(start)}

    def node(answer: Contribution | Updates) -> int:
        return int(hosts.nodes[np.searchsorted(hosts.clients, named(answer)[0])])

    now: dict[int, float] = {}
    owners = {}
    for answer in chain.from_iterable(found):
        owner = node(answer)
        owners[hosts.firsts[owner]] = owner
        now[hosts.firsts[owner]] = max(now.get(hosts.firsts[owner], 0.0), longest(answer))
    allowed, said = limits(now, before), []
    for first, owner in owners.items():
        if math.isfinite(allowed[first]):
            said.append(f"the updates of node {owner} (client {first} and more) are far longer than those of others")
            tell_once(f"{said[-1]} and were bounded (told once; see bounded_nodes)")

    def kept(answer: Contribution | Updates) -> Contribution | Updates:
        first = hosts.firsts[node(answer)]
        if not math.isfinite(allowed[first]):
            return answer
        return bounded(answer, allowed[first] * longest(answer) / now[first])  # all of a node by the same factor

    averages = averaged({first: min(v, allowed[first]) for first, v in now.items() if v}, before)
    norms = state.norms | {f"{start}{first}": value for first, value in averages.items()}
    return [[kept(answer) for answer in answers] for answers in found], norms, said


def named(answer: Contribution | Updates) -> Ints:
    """All clients that an answer names."""
    return np.concatenate([answer.clients, answer.excluded])


def make_plans(server: Server, state: ServerState, phase: Phase, cohort: Cohort) -> dict[int, TrainPlan]:
    """One plan for each node that hosts a client of the cohort."""
    noise = server.task.config.noise_scale
    halves = noise.halves and server.task.work(phase.name).is_gradient
    besides = algorithm.asked(server, state, phase)
    hosted = server.hosts.by_node(cohort.clients)
    parts = {node: cohort.select(np.searchsorted(cohort.clients, clients)) for node, clients in hosted.items()}
    return {
        node: TrainPlan(
            params=state.params,
            buffers=state.buffers,
            clients=part.clients,
            batch_sizes=part.batch_sizes,
            factors=part.factors,
            round=state.round,
            phase=phase.name,
            halves=halves,
            cosine=noise.cosine,
            executor=state.executor(phase.name, server.task.config.executor),
            single=server.task.aggregator is not None,
            versions=algorithm.versions(server, state, phase, part.clients),
            **besides,
        )
        for node, part in parts.items()
    }


def check_sizes(
    server: Server, work: ClientWork, answer: Contribution | Updates, plan: TrainPlan, squares: SquaredLengths
) -> None:
    """Weights and numbers of examples are known beforehand: nobody gets more say by claiming more.

    Raises:
        MessageError: an answer claims others.
    """
    sizes = server.hosts.examples_of(plan.clients)
    expected, factors = work.num_examples(plan.batch_sizes, sizes), plan.factors
    if len(answer.excluded):
        some = np.isin(plan.clients, answer.clients)
        expected, factors = expected[some], factors[some] if len(factors) else factors
    if not np.array_equal(answer.num_examples, expected):
        raise MessageError("num_examples are not those that were asked for")
    weights = server.task.weights(expected) * factors if len(factors) else server.task.weights(expected)
    if isinstance(answer, Contribution) and not np.array_equal(answer.weights, weights):
        raise MessageError("weights are not those of the run's weighting")
    check_update(answer, squares)
    if isinstance(answer, Contribution):
        check_besides(work, answer, plan)
