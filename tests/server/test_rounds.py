"""The round as a whole: against plain PyTorch, over nodes, and when something is wrong with a reply."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from fedbatch.aggregation.sums import DivergedError
from fedbatch.api import execute
from fedbatch.core.errors import ConfigError
from fedbatch.node import train as node
from fedbatch.results.store import read_rows
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.checkpoint import load_latest
from fedbatch.setup import task


def run(config):
    """Run and return (rows, summary, final parameters)."""
    execute(config)
    folder = Path(config.run_dir)
    state = load_latest(folder / "checkpoints")
    return read_rows(folder / "rounds.jsonl"), json.loads((folder / "summary.json").read_text()), state.params


MEASURED = {
    "plan_seconds",
    "client_seconds",
    "aggregate_seconds",
    "step_seconds",
    "evaluate_seconds",
    "measured_seconds",
}


def comparable(rows):
    return [{k: v for k, v in row.items() if k not in MEASURED and v == v} for row in rows]


def torch_sgd(config, batches, lr, steps):
    """Plain PyTorch: one module, one optimizer, one batch a step."""
    model = task.load(config.to_json()).new_model()
    optimizer = torch.optim.SGD(model.module.parameters(), lr=lr)
    run = task.load(config.to_json())
    for step in range(steps):
        index = batches(step)
        optimizer.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(model.module(run.train_x[index]), run.train_y[index]).backward()
        optimizer.step()
    return model.params


def test_all_clients_and_full_batches_is_one_full_batch_step(make_config):
    config = make_config(
        "sampling=all",
        "client_batch_size=null",
        "controller=fixed",
        "rounds=1",
        "partitioner=dirichlet",
        "population=8",
    )
    _, _, params = run(config)
    data = task.load(config.to_json())
    expected = torch_sgd(config, lambda _: torch.arange(len(data.train_y)), lr=0.1, steps=1)
    start = data.new_model().params
    assert float((params - expected).norm() / (expected - start).norm()) < 1e-6


def test_fixed_run_is_torch_sgd_on_the_concatenated_batch(make_config):
    config = make_config("controller=fixed", "rounds=5")
    _, _, params = run(config)
    data = task.load(config.to_json())

    def concatenated(step):
        from fedbatch.core.random import generator

        cohort = np.sort(generator(0, "cohort", step).choice(20, size=4, replace=False, shuffle=False))
        draw = data.default_work.draw(data.partition, cohort, np.full(4, 4), 0, step)
        return torch.from_numpy(draw.positions[:, 0].ravel())

    expected = torch_sgd(config, concatenated, lr=0.1, steps=5)
    torch.testing.assert_close(params, expected, rtol=1e-6, atol=1e-7)


def test_same_seed_is_bit_equal_and_another_seed_is_not(make_config):
    first, summary, params = run(make_config(folder="a"))
    again, summary_again, params_again = run(make_config(folder="b"))
    assert comparable(first) == comparable(again) and torch.equal(params, params_again)
    assert summary["params_sha256"] == summary_again["params_sha256"]
    assert run(make_config("seed=1", folder="c"))[1]["params_sha256"] != summary["params_sha256"]


@pytest.mark.parametrize("work", ["fedsgd", "local_sgd"])
def test_one_node_or_four(make_config, work):
    one_rows, _, one = run(make_config(f"client_work={work}", "cohort_size=6", folder="one"))
    four_rows, _, four = run(make_config(f"client_work={work}", "cohort_size=6", "nodes=4", folder="four"))
    assert float((one - four).norm() / one.norm()) < 1e-6
    for a, b in zip(one_rows, four_rows, strict=True):
        assert (a["phase"], a["switch"], a["examples"]) == (b["phase"], b["switch"], b["examples"])
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-6)
        assert a["round_trace"] == pytest.approx(b["round_trace"], rel=1e-4)


def test_phases_switch_and_the_record_shows_it(make_config):
    switch = ("controller=two_phase_switch", "controller.settle_rounds=2", "controller.up=0.0001", "controller.down=0")
    config = make_config(*switch, "rounds=6")
    rows, summary, _ = run(config)
    (switch,) = summary["phase_switches"]
    phases = [row["phase"] for row in rows]
    assert switch["to"] == "large" and phases.index("large") == switch["round"] == 2
    assert [row["global_batch"] for row in rows] == [16, 16, 64, 64, 64, 64]
    assert "noise scale" in rows[1]["switch"] and switch["reason"] == rows[1]["switch"]
    assert rows[2]["lr"] > rows[1]["lr"] == pytest.approx(0.1), "the gain rule ramps up after the switch"


def test_record_and_summary_have_the_promised_names(make_config):
    config = make_config("noise_scale.halves=true", "noise_scale.cosine=true", "client_holdout=0.25")
    rows, summary, _ = run(config)
    promised = "status rounds examples bytes_up bytes_down measured_seconds simulated_seconds test_accuracy test_loss"
    promised += " noise_scale phase_switches params_sha256 versions seed"
    assert set(promised.split()) <= set(summary)
    table = pl.read_parquet(Path(config.run_dir) / "rounds.parquet")
    assert table.height == 4 and set(rows[-1]) == set(table.columns)
    last = rows[-1]
    assert last["rounds"] == 4 and last["examples"] == 4 * 16
    assert last["bytes_up"] == 4 * 4 * 4 * (64 * 8 + 8 + 80 + 10)
    # 4 examples x 1 ms, 2 x 50 ms of latency, and the model down and up
    assert last["simulated_seconds"] == pytest.approx(4 * (0.004 + 0.1 + 2440 / 2.5e6 + 2440 / 1.25e6))
    assert -1 <= last["mean_cosine"] <= 1 and last["b_within"] > 0 and "m_drift" in last
    assert 0 <= last["client_accuracy_p5"] <= last["client_accuracy_p95"] <= 1


def test_local_steps_measure_in_clients_only(make_config):
    rows, _, _ = run(make_config("client_work=local_sgd", "server_optimizer.lr=1"))
    assert {row["noise_scale_unit"] for row in rows} == {"clients"}


def test_target_ends_the_run(make_config):
    rows, summary, _ = run(make_config("target_value=0.01", "evaluate_every_rounds=2", "rounds=50"))
    assert len(rows) == 2 and summary["status"] == "finished" and summary["rounds"] == 2


def test_batch_norm_buffers_are_averaged(make_config):
    config = make_config("model=cnn", "model.channels=4", "model.hidden=8", "model.norm=batch", "rounds=1")
    run(config)
    state = load_latest(Path(config.run_dir) / "checkpoints")
    assert state.buffers.numel() == 2 * 4 + 2 * 8 + 2 and state.buffers[:4].any()
    assert state.buffers[-2:].tolist() == [1, 1], "each client has counted one batch"


def test_a_client_that_is_not_finite_is_left_out_and_named(make_config, monkeypatch):
    config = make_config("sampling=all", "controller=fixed", "rounds=1")
    data = task.load(config.to_json())
    bad = data.partition.lookup(np.array([3]), np.arange(int(data.partition.sizes(np.array([3]))[0]))[None])[0]
    data.train_x[bad] = float("nan")
    rows, _, params = run(config)
    assert rows[0]["excluded_clients"] == 1 and rows[0]["cohort_size"] == 19 and torch.isfinite(params).all()


def test_nothing_finite_is_divergence(make_config):
    config = make_config("rounds=30", "server_optimizer.lr=1e38")
    with pytest.raises(DivergedError, match=r"lower server_optimizer.lr"):
        run(config)
    summary = json.loads((Path(config.run_dir) / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["rounds"] >= 1


def poison(monkeypatch, change):
    """Let the node of the first half of the clients answer with a changed contribution."""
    honest = node.train

    def train(plan, run):
        answer = honest(plan, run)
        return change(answer) if plan.clients[0] < 10 else answer

    monkeypatch.setattr(node, "train", train)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: replace(c, update_sum=c.update_sum[:-1]), "update_sum must have length"),
        (lambda c: replace(c, update_sum=c.update_sum * float("inf")), "not finite"),
        (lambda c: replace(c, weights=-c.weights), "weights must be positive"),
        (lambda c: replace(c, clients=c.clients + 1), "not those that were asked for"),
    ],
)
def test_a_bad_reply_is_rejected_by_name_and_the_round_goes_on(make_config, monkeypatch, caplog, change, reason):
    config = make_config("nodes=2", "sampling=all", "controller=fixed", "rounds=2")
    poison(monkeypatch, change)
    rows, _, params = run(config)
    assert [row["rejected_replies"] for row in rows] == [1, 1] and rows[0]["cohort_size"] == 10
    assert reason in caplog.text and torch.isfinite(params).all()


def test_a_duplicate_reply_counts_once(make_config, monkeypatch):
    honest = LocalGrid.send_and_receive

    def twice(self, messages, *, timeout=None):
        for reply in honest(self, messages, timeout=timeout):
            yield reply
            if reply.metadata.message_type == "train":
                yield reply

    expected = run(make_config(folder="a"))[2]
    monkeypatch.setattr(LocalGrid, "send_and_receive", twice)
    assert torch.equal(run(make_config(folder="b"))[2], expected)


def test_a_round_that_nobody_joins_changes_nothing(make_config):
    config = make_config(
        "sampling=poisson", "cohort_size=1", "controller=fixed", "rounds=12", "evaluate_every_rounds=1"
    )
    rows, summary, _ = run(config)
    empty = [i for i, row in enumerate(rows) if row["cohort_size"] == 0]
    assert summary["rounds"] == 12 and empty and empty[-1] < 12
    for i in [i for i in empty if i]:
        assert rows[i]["test_loss"] == rows[i - 1]["test_loss"] and rows[i]["examples"] == rows[i - 1]["examples"]


def test_the_chosen_executor_is_recorded_and_kept(make_config, monkeypatch):
    from fedbatch.executors import choose

    rows, _, _ = run(make_config("rounds=2"))
    assert {row["executor"] for row in rows} <= set(choose.EXECUTORS)
    monkeypatch.setattr(choose.Executors, "chosen", lambda *_: "vmap")
    config = make_config("rounds=2", folder="part")
    run(config)
    monkeypatch.setattr(choose.Executors, "chosen", lambda *_: pytest.fail("measured again"))
    rows, _, _ = run(make_config("rounds=4", f"resume={config.run_dir}", folder="part"))
    assert [row["executor"] for row in rows] == ["vmap"] * 4


def test_no_answer_at_all_ends_the_run_with_the_reason(make_config, monkeypatch):
    from fedbatch.server.exchange import NoAnswerError

    monkeypatch.setattr(node, "train", lambda plan, run: 1 / 0)
    with pytest.raises(NoAnswerError, match="ZeroDivisionError: division by zero"):
        run(make_config())


def test_a_phase_may_change_the_client_work_and_averages_start_anew(make_config):
    config = make_config(
        "controller=schedule",
        "controller.starts.large=2",
        "controller.phases.large.cohort_size=6",
        "controller.phases.large.client_batch_size=4",
        "+controller.phases.large.client_work._target_=fedbatch.clients.LocalSGD",
        "+controller.phases.large.client_work.lr=0.05",
        "controller.phases.large.lr=1.0",
        "learning_rate.switch_warmup_rounds=0",
    )
    rows, _, _ = run(config)
    assert [row["noise_scale_unit"] for row in rows] == ["examples"] * 2 + ["clients"] * 2
    assert [row["noise_scale_effective_rounds"] for row in rows] == pytest.approx([1, 2, 1, 2], abs=0.01)
    assert [row["lr"] for row in rows] == [0.1, 0.1, 1.0, 1.0]


LANGUAGE = ("dataset=shakespeare_roles", "dataset.min_sequences=300", "dataset.context=8", "dataset.test_fraction=0.01")
TINY_GPT = ("model.layers=2", "model.heads=2", "model.width=4")


@pytest.mark.slow
def test_sizes_of_attention_and_the_noise_scale_in_tokens(make_config):
    task_kinds = {"model=gpt": ("dataset.task=causal", 8), "model=bert": ("dataset.task=masked", 1)}
    for model, (kind, labels) in task_kinds.items():
        record = ("record_attention=true", "evaluate_every_rounds=2", "rounds=3")
        config = make_config(*LANGUAGE, model, *TINY_GPT, kind, *record, folder=f"run{labels}")
        rows, _, _ = run(config)
        assert ["attention_logit_max" in row for row in rows] == [False, True, True]
        assert np.shape(rows[1]["attention_logit_max"]) == (2, 2)  # layers, heads
        assert np.shape(rows[1]["query_max"]) == np.shape(rows[1]["key_max"]) == (2,)
        if labels > 1:
            assert [row["noise_scale_tokens"] for row in rows] == [labels * row["noise_scale"] for row in rows]
        else:  # 15 % of 8 positions
            assert "noise_scale_tokens" not in rows[0]
    saved = pl.read_parquet(Path(config.run_dir) / "rounds.parquet")
    assert saved["attention_logit_max"].to_list()[0] is None


@pytest.mark.parametrize("more", [(), ("client_work=local_sgd",), ("sampling=poisson", "cohort_size=1")])
def test_goodput_decides_in_a_run_of_any_unit_and_through_empty_rounds(make_config, more):
    sizes = ("controller.phases.middle.cohort_size=8", "controller.phases.large.cohort_size=8")
    options = (
        "controller=goodput",
        "controller.cost=rounds",
        "controller.settle_rounds=0",
        "noise_scale.z=0.1",
        *sizes,
    )
    rows, _, _ = run(make_config(*options, "controller.phases.large.client_batch_size=8", "rounds=40", *more))
    gradient = "client_work=local_sgd" not in more
    assert rows[-1]["phase"] == ("large" if gradient else "middle") and "times the progress" in "".join(
        row["switch"] for row in rows
    )


def test_client_norms_are_recorded_when_asked_for_and_never_of_a_private_run(make_config):
    rows, _, _ = run(make_config("record_client_norms=true", "rounds=2", "cohort_size=1", "controller=fixed"))
    assert [row["client_norms"] for row in rows] == [[pytest.approx(row["mean_update_norm"])] for row in rows]
    rows, _, _ = run(make_config("record_client_norms=true", "rounds=1", "cohort_size=5", folder="five"))
    assert len(rows[0]["client_norms"]) == 5
    with pytest.raises(ConfigError, match="record_client_norms"):
        task.load(make_config("record_client_norms=true", "privacy=example_local").to_json())


def test_a_model_without_attention_has_none_to_record(make_config):
    with pytest.raises(ConfigError, match="record_attention: the model has no attention"):
        task.load(make_config("record_attention=true").to_json())


def test_evaluation_on_the_training_set_and_a_goal_on_it(make_config):
    goal = ("target_metric=training_set_loss", "target_value=2.2", "evaluate_every_rounds=2", "rounds=100")
    config = make_config("training_set_examples=1000000", "client_holdout=0.25", *goal)
    rows, summary, params = run(config)
    assert summary["training_set_loss"] == rows[-1]["training_set_loss"]  # what a sweep optimises
    told = [row["training_set_loss"] for row in rows if "training_set_loss" in row]
    assert len(told) == len(rows) // 2 and told[-1] <= 2.2 < min(told[:-1])
    loaded = task.load(config.to_json())
    model = loaded.new_model()
    model.params.copy_(params)
    clients = np.arange(len(loaded.partition))
    sizes = loaded.partition.sizes(clients)
    kept = np.concatenate(
        [loaded.partition.lookup(np.full(n, c), np.arange(n)) for c, n in zip(clients, sizes, strict=True)]
    )
    assert len(kept) < len(loaded.train_y)
    expected = nn.functional.cross_entropy(model.module(loaded.train_x[kept]), loaded.train_y[kept]).detach()
    assert told[-1] == pytest.approx(float(expected), rel=1e-5)


def losses_around_a_switch(make_config, *overrides, switch=187):
    """Test losses of the 40 rounds before a switch from 64 to 1,024 examples, and of the 60 after it."""
    schedule = ("controller=schedule", f"controller.starts.large={switch}", f"rounds={switch + 60}", *overrides)
    settings = (*schedule, "evaluate_every_rounds=1", "executor=fused")
    rows, _, _ = run(make_config(*settings, base=(), folder=f"run{len(overrides)}"))
    losses = [row["test_loss"] for row in rows]
    return np.array(losses[switch - 40 : switch]), np.array(losses[switch:])


def test_after_a_switch_the_loss_does_not_jump(make_config):
    """The default run trains near its limit of stability, and twice the rate within ten rounds threw it out."""
    before, after = losses_around_a_switch(make_config)
    assert after.max() < before.mean() and after[-10:].mean() < 0.9 * before.mean()


@pytest.mark.slow
def test_it_jumps_where_the_rate_rises_within_ten_rounds(make_config):
    """As in saved runs, where a missing ``max_growth`` means the ramp alone."""
    before, after = losses_around_a_switch(make_config, "learning_rate.max_growth=null")
    assert after.max() > 1.1 * before.mean()


def test_a_decay_over_examples_ends_the_run_where_they_are_used(make_config):
    decay = ("learning_rate.decay=linear", "learning_rate.examples=160", "rounds=100", "server_optimizer.lr=0.5")
    rows, summary, _ = run(make_config("controller=fixed", *decay))  # 16 examples a round
    assert summary["rounds"] == 10 and summary["status"] == "finished" and rows[-1]["examples"] == 160
    assert [row["lr"] for row in rows] == pytest.approx([0.5 * (1 - t / 10) for t in range(10)])


def test_a_decay_over_examples_follows_the_batch(make_config):
    decay = ("learning_rate.decay=linear", "learning_rate.examples=160", "learning_rate.rule=constant")
    sizes = ("controller=schedule", "controller.starts.large=2", "controller.phases.large.cohort_size=8")
    rows, _, _ = run(make_config(*decay, *sizes, "controller.phases.large.client_batch_size=8"))  # 16, 16, 64, 64
    assert [row["lr"] for row in rows] == pytest.approx([0.1 * (1 - n / 160) for n in (0, 16, 32, 96)])


def test_adascale_scales_the_rate_by_the_gain_and_ends_by_its_clock(make_config):
    controller = ("controller=adascale", "controller.phase.cohort_size=16", "controller.scale=4")
    rows, summary, _ = run(make_config(*controller, "rounds=20", "learning_rate.decay=linear"))
    clock, share = 0.0, 0.0
    for i, row in enumerate(rows):
        noise = rows[i - 1]["noise_scale"] / 64 if i else 0.0
        gain = (1 + 4 * max(noise, 0.0)) / (1 + max(noise, 0.0)) if i else 1.0
        assert row["lr"] == pytest.approx(0.1 * gain * (1 - share)), i
        clock += gain
        share = clock / 20
    assert summary["rounds"] == len(rows) < 20 and clock >= 20
    assert summary["phase_switches"] == [] and {row["switch"] for row in rows} == {""}


@pytest.mark.parametrize(
    "clock",
    [
        (
            *("controller=goodput", "controller.cost=examples", "controller.budget=500"),
            *("controller.phases.middle.cohort_size=8", "controller.phases.large.cohort_size=8"),
        ),
        ("learning_rate.decay=linear", "learning_rate.examples=500"),
    ],
    ids=["controller", "examples"],
)
def test_the_last_round_is_evaluated_also_where_another_clock_ends_the_run(make_config, clock):
    rows, summary, _ = run(make_config(*clock, "rounds=100", "evaluate_every_rounds=90"))
    assert len(rows) < 90 and rows[-1]["examples"] >= 500
    evaluated = [row["rounds"] for row in rows if not np.isnan(row["test_accuracy"])]
    assert evaluated == [len(rows)]
    assert summary["test_accuracy"] == rows[-1]["test_accuracy"]
