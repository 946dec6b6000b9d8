"""Whole runs in which clients come, go, are slow or are chosen: against plain runs and against hands."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from fedbatch.config.schema import identity_of, parse
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.core.random import generator, key
from fedbatch.samplers import Candidates, Sample, Weighted, inclusion
from fedbatch.server.there import reachable
from fedbatch.setup import task
from tests.conftest import run
from tests.server.test_resume import on

FIXED = ("controller=fixed", "executor=fused", "metrics=accuracy")
LINK = ("time_model.latency_seconds=1", "time_model.bandwidth_down_bytes_per_second=1e18")
CLOCK = (*LINK, "time_model.bandwidth_up_bytes_per_second=1e18", "time_model.compute_seconds_per_example=0.5")
"""A round of clients with 4 examples lasts 4 seconds."""
EACH = ("evaluate_every_rounds=1",)
MARKOV = ("availability=markov", "availability.step_seconds=7", "availability.arrive=0.3", "availability.leave=0.4")


def trace(tmp_path, rows):
    file = tmp_path / "trace.parquet"
    pl.DataFrame(rows, schema=["client", "start", "end"], orient="row").write_parquet(file)
    return ("availability=trace", f"availability.file={file}")


def speeds(tmp_path, seconds):
    file = tmp_path / "speeds.parquet"
    pl.DataFrame({"client": range(len(seconds)), "seconds_per_example": seconds}).write_parquet(file)
    return f"time_model.speeds={file}"


def same_bits(state, other):
    return torch.equal(state.params, other.params) and state.totals.simulated_seconds == other.totals.simulated_seconds


def comparable(rows):
    """Columns whose values do not depend on this machine's clock."""
    kept = [
        name for name in rows[0] if not name.endswith("_seconds") or name in ("simulated_seconds", "waiting_seconds")
    ]
    return [{name: repr(row[name]) for name in kept} for row in rows]


def test_who_is_always_there_makes_the_run_of_today(make_config, tmp_path):
    plain, _, state = run(make_config(*FIXED, folder="plain"))
    everyone = trace(tmp_path, [(k, 0.0, 1e9) for k in range(20)])
    rows, _, other = run(make_config(*FIXED, *everyone, folder="trace"))
    assert same_bits(state, other)
    new = {"available_clients": 20, "waiting_seconds": 0.0, "late_clients": 0, "gone_clients": 0}
    assert all({name: row[name] for name in new} == new for row in rows)
    assert set(rows[0]) - set(plain[0]) == set(new)
    assert comparable([{n: r[n] for n in plain[0]} for r in rows]) == comparable(plain)


def test_keys_of_cohorts_leave_identities_as_they_were(make_config):
    values = json.loads(make_config("controller=goodput", "controller.phases.large.cohort_size=8").to_json())
    before = json.loads(json.dumps(values))
    for name in ("availability", "sampler", "over_selection", "deadline_seconds"):
        del before[name]
    del before["time_model"]["speeds"], before["controller"]["time_model"]["speeds"]
    assert identity_of(values) == identity_of(before) == parse(before).identity()
    assert identity_of(values | {"deadline_seconds": 1.0}) != identity_of(values)
    assert identity_of(values | {"time_model": values["time_model"] | {"speeds": "x"}}) != identity_of(values)


def test_a_round_waits_until_somebody_is_there_and_the_run_ends_when_nobody_comes(make_config, tmp_path, caplog):
    """Rounds of 4 seconds. 0..4: three clients; nobody from 5 to 30; two clients from 30, one of whom leaves at 33."""
    rows = [(3, 0.0, 5.0), (4, 0.0, 5.0), (7, 0.0, 5.0), (11, 30.0, 33.0), (12, 30.0, 36.0)]
    config = make_config(*FIXED, *CLOCK, *trace(tmp_path, rows), "rounds=9")
    with caplog.at_level("INFO", logger="fedbatch"):
        found, summary, _ = run(config)
    names = ("waiting_seconds", "available_clients", "cohort_size", "gone_clients", "simulated_seconds")
    assert [tuple(round(row[name], 9) for name in names) for row in found] == [
        (0, 3, 3, 0, 4),
        (0, 3, 0, 3, 8),  # all have left at 5, and are missed when their answers are due
        (22, 2, 1, 1, 34),
        (0, 1, 0, 1, 38),
    ]
    assert summary["rounds"] == 4 and summary["test_accuracy"] > 0
    assert "no client is there any more after 38 simulated seconds" in caplog.text


def test_seconds_and_costs_by_hand(make_config, tmp_path):
    """Twelve of twenty clients are asked; those with 8 examples' seconds within 6 seconds count."""
    seconds = np.linspace(0.25, 2.6, 20)
    options = (*FIXED, *CLOCK, speeds(tmp_path, seconds), "cohort_size=12", "rounds=3")
    config = make_config(*options, "deadline_seconds=6")
    rows, summary, _ = run(config)
    clock, down, size = 0.0, 0, 4 * task.load(config.to_json()).new_model().params.numel()
    for row in rows:
        asked = generator(0, "cohort", row["round"]).choice(20, size=12, replace=False, shuffle=False)
        times = 2 + 4 * seconds[asked]
        late = int((times > 6).sum())
        assert 0 < late < 12
        clock, down = clock + 6.0, down + 12 * size
        assert (row["late_clients"], row["cohort_size"]) == (late, 12 - late)
        assert row["simulated_seconds"] == pytest.approx(clock, rel=1e-12) and row["bytes_down"] == down
    assert summary["bytes_up"] == summary["examples"] // 4 * size
    rows, _, _ = run(make_config(*options, "over_selection=1.5", "cohort_size=8", folder="first"))
    clock = 0.0
    for row in rows:
        asked = generator(0, "cohort", row["round"]).choice(20, size=12, replace=False, shuffle=False)
        clock += np.sort(2 + 4 * seconds[asked])[7]  # the eighth answer ends the round
        assert (row["late_clients"], row["cohort_size"]) == (4, 8)
        assert row["simulated_seconds"] == pytest.approx(clock, rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        (*MARKOV, "nodes=3"),
        (*MARKOV, "sampler=power_of_choice", "partitioner=dirichlet", "deadline_seconds=3.9"),
        ("availability=diurnal", "availability.period_seconds=40", "availability.share=0.2", "sampling=poisson"),
    ],
    ids=lambda options: " ".join(options[-3:]),
)
def test_a_resumed_run_is_the_unbroken_one(make_config, options):
    config = make_config(*FIXED, *CLOCK, "time_model.speed_spread=0.3", *EACH, "rounds=12", *options, folder="whole")
    rows, _, whole = run(config)
    assert len({row["available_clients"] for row in rows}) > 1
    broken = replace(config, run_dir=config.run_dir + "_broken")
    run(replace(broken, rounds=5))
    task.forget()
    again, _, resumed = run(on(broken, rounds=12))
    assert same_bits(whole, resumed) and comparable(again) == comparable(rows)
    assert torch.equal(whole.losses.nan_to_num(-1), resumed.losses.nan_to_num(-1))


@pytest.mark.parametrize("weighting", ["uniform", "examples"])
def test_a_corrected_step_is_the_sum_of_horvitz_and_thompson(make_config, weighting):
    """Gradients over all of each client's examples by plain torch: sum of w_k g_k / chance_k over the weight of all."""
    options = ("sampler=weighted", "sampler.correct=true", "partitioner=dirichlet", "client_batch_size=null", "nodes=2")
    plain = ("controller=fixed", "rounds=1", "server_optimizer.lr=1", "server_optimizer.momentum=0")
    written = f"runtime.by_reference={str(weighting == 'examples').lower()}"  # or as messages to SuperNodes are
    config = make_config(*plain, *options, f"weighting={weighting}", written)
    _, _, state = run(config)
    data, clients = task.load(config.to_json()), np.arange(20)
    sizes = data.partition.sizes(clients)
    cohort = Weighted()(Candidates(clients, sizes, np.full(20, np.nan)), 4, key(0, "cohort", 0)).clients
    chances, weights = inclusion(sizes, 4), sizes if weighting == "examples" else np.ones(20)
    model, total = data.new_model(), 0.0
    start = model.params.clone()
    for client in cohort:
        model.module.zero_grad()
        index = torch.from_numpy(data.partition.lookup(np.full(sizes[client], client), np.arange(sizes[client])))
        nn.functional.cross_entropy(model.module(data.train_x[index]), data.train_y[index]).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.module.parameters()])
        total = total + float(weights[client] / chances[client]) * gradient
    assert len(set(sizes[cohort])) > 1
    torch.testing.assert_close(start - state.params, total / float(weights.sum()), rtol=1e-4, atol=1e-6)


def test_losses_are_those_of_the_last_rounds(make_config):
    config = make_config(*FIXED, "sampler=power_of_choice", "sampler.ratio=5", "rounds=5", "record_client_norms=true")
    rows, _, state = run(config)
    # Twenty clients, of whom all are candidates: five rounds of four who had never taken part, so all have.
    assert not state.losses.isnan().any()
    first, _, before = run(replace(config, rounds=1, run_dir=config.run_dir + "_1"))
    known = before.losses[~before.losses.isnan()]
    assert len(known) == 4 and float(known.mean()) == pytest.approx(first[0]["train_loss"], rel=1e-6)
    assert rows[0]["train_loss"] == first[0]["train_loss"]


def test_another_trace_is_another_run(make_config, tmp_path):
    config = make_config(*FIXED, *CLOCK, *trace(tmp_path, [(k, 0.0, 1e9) for k in range(20)]), "rounds=2")
    run(config)
    trace(tmp_path, [(k, 0.0, 1e8) for k in range(20)])
    task.forget()
    with pytest.raises(ConfigError, match="the data have changed since this run started"):
        run(on(config, rounds=3))


class Own:
    """A sampler and a model of availability of one's own, as wrong as asked for."""

    is_unbiased = True

    def __init__(self, answer: str = ""):
        self.answer = answer

    def __call__(self, candidates, count, key):
        first = candidates.clients[:count]
        return {
            "strangers": Sample(np.array([99])),
            "twice": Sample(first[[0, 0]]),
            "factors": Sample(first, np.ones(count)),
        }.get(self.answer, Sample(first))

    def is_there(self, clients, seconds, seed):
        return np.zeros(len(clients), dtype=bool)

    def next_seconds(self, clients, seconds, seed):
        return seconds + 1


@pytest.mark.parametrize("answer", ["strangers", "twice", "factors"])
def test_a_sampler_of_ones_own_is_checked(make_config, answer):
    config = replace(make_config(*FIXED), sampler={"_target_": f"{__name__}.Own", "answer": answer})
    with pytest.raises(RunFailedError, match="sampler: Own"):
        run(config)
    own = replace(config, sampler={"_target_": f"{__name__}.Own"}, run_dir=config.run_dir + "_right")
    assert run(own)[1]["rounds"] == 4


def test_availability_that_contradicts_itself_ends_the_run(make_config):
    config = replace(make_config(*FIXED), availability={"_target_": f"{__name__}.Own"})
    with pytest.raises(RunFailedError, match="availability: Own says that a client comes at 1 seconds, and nobody"):
        run(config)


def test_what_cannot_be_is_refused_in_one_line(make_config, tmp_path):
    strangers = trace(tmp_path, [(77, 0.0, 9.0)])
    slow = speeds(tmp_path, np.ones(7))
    private = ("privacy=client_central", "controller=fixed", "privacy.target_epsilon=null")
    noise = "privacy.noise_multiplier=1.0"
    for options, words in (
        (strangers, "availability: no client with examples is ever there.*0 to 19"),
        ((slow,), "time_model.speeds: .* has no row for client 7; the run has clients 0 to 19"),
        (("deadline_seconds=0.01",), "deadline_seconds=0.01: nobody is done by then in phase fixed.*takes 0.1"),
        (("sampler=stratified", "sampling=uniform"), "sampling=uniform and sampler both say"),
        (("over_selection=2", "sampling=all"), "over_selection=2 asks for more"),
        (("sampler=weighted", "sampler.correct=true", "aggregator=median"), "sampler: Weighted corrects the weights"),
        ((*private, noise, "sampler=weighted"), "sampler: the cost is that of clients drawn by sampling=uniform"),
        ((*private, noise, *MARKOV), "availability, deadline_seconds, over_selection: "),
        ((*private, noise, "deadline_seconds=9"), "availability, deadline_seconds, over_selection: "),
        (("availability._target_=fedbatch.losses.Focal", *MARKOV), "availability"),
    ):
        try:
            run(make_config("controller=fixed", *options))
        except ConfigError as error:
            assert re.search(words, str(error)) and "\n" not in str(error), str(error)
        else:
            pytest.fail(f"{options} was not refused")
        task.forget()


def test_clients_of_nodes_that_are_not_connected_are_not_asked():
    hosts = SimpleNamespace(
        clients=np.arange(6),
        nodes=np.array([2**63 + 1] * 3 + [2**63 + 2] * 3, dtype=np.uint64),
        num_examples=np.array([3, 0, 3, 3, 3, 3]),
    )
    for connected, expected in (([2**63 + 2], [3, 4, 5]), ([2**63 + 1, 5], [0, 2]), ([], [0, 2, 3, 4, 5])):
        server = SimpleNamespace(hosts=hosts, grid=SimpleNamespace(get_node_ids=lambda c=connected: c))
        assert reachable(server).tolist() == expected
