"""Whole private runs: who is charged when, what is recorded, and what ends or refuses a run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fedbatch import client_app
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.node import private as node_private
from fedbatch.privacy import epsilon, ledger
from fedbatch.privacy.randomness import fingerprint
from fedbatch.server.checkpoint import load, save
from fedbatch.setup import task
from fedbatch.wire.messages import PrivateContribution
from tests.conftest import run

FIXED = ("controller=fixed", "executor=fused", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0")
NO_NOISE = "privacy.noise_multiplier=0"  # costs infinity, and no second to compute
EVERY = [
    ("example_local",),
    ("example_distributed", "privacy.min_clients=2"),
    ("client_central",),
    ("example_central",),
]


@pytest.fixture
def private(make_config):
    def make(mechanism, *overrides, **options):
        return make_config(f"privacy={mechanism}", *FIXED, *overrides, **options)

    return make


@pytest.mark.parametrize("mechanism", EVERY, ids=lambda m: m[0])
def test_the_summary_states_the_guarantee_of_what_was_released(private, mechanism):
    config = private(*mechanism, "rounds=3")
    rows, summary, state = run(config)
    guarantee = summary["privacy"]
    phases = [(p["sample_rate"], p["noise_multiplier"], p["steps"]) for p in guarantee["schedule"]]
    assert summary["epsilon"] == guarantee["epsilon"] == pytest.approx(epsilon(phases, guarantee["delta"]))
    assert guarantee["epsilon_rdp"] >= guarantee["epsilon"]
    assert guarantee["planned_epsilon"] == pytest.approx(guarantee["epsilon"])
    assert guarantee["unit"] == mechanism[0].split("_")[0] and guarantee["not_covered"]
    assert [row["epsilon_rdp"] for row in rows] == sorted(row["epsilon_rdp"] for row in rows)
    on_disk = ledger.read(Path(config.run_dir) / ledger.FILE)
    assert on_disk == list(state.ledger.releases) and len(on_disk) == 3


def test_examples_are_charged_by_client_and_the_busiest_counts(private):
    _, summary, state = run(private("example_local", "rounds=6"))
    charged = np.bincount(np.concatenate([r.clients for r in state.ledger.releases]), minlength=20)
    assert charged.sum() == 6 * 4 and summary["privacy"]["schedule"][0]["steps"] == charged.max() < 6


def test_local_steps_are_charged_one_by_one(private):
    _, summary, _ = run(
        private(
            "example_local",
            "client_work=local_sgd",
            "client_work.epochs=null",
            "client_work.steps=5",
            "client_work.lr=0.1",
            "sampling=all",
            "cohort_size=20",
            "rounds=2",
        )
    )
    assert summary["privacy"]["schedule"][0]["steps"] == 10


def test_one_node_and_several_release_the_same(private):
    for mechanism in ("example_local", "client_central"):
        one = run(private(mechanism, "rounds=1", "nodes=1", folder=f"{mechanism}1"))[2].params
        three = run(private(mechanism, "rounds=1", "nodes=3", folder=f"{mechanism}3"))[2].params
        assert (one - three).norm() < 1e-5 * one.norm()


@pytest.mark.parametrize("mechanism", EVERY, ids=lambda m: m[0])
def test_resumed_is_unbroken_and_charged_once(private, mechanism):
    whole_rows, whole, state = run(private(*mechanism, "rounds=4", folder="whole"))
    config = private(*mechanism, "rounds=2", folder="parts")
    run(config)
    # The crash: rounds 2 and 3 were released and charged, and then lost with their checkpoints.
    folder = Path(config.run_dir)
    saved = {f.name: f.read_bytes() for f in (folder / "checkpoints").iterdir()}
    run(private(*mechanism, "rounds=4", f"resume={folder}", folder="parts"))
    for file in (folder / "checkpoints").iterdir():
        file.unlink()
    for name, content in saved.items():
        (folder / "checkpoints" / name).write_bytes(content)
    rows, summary, again = run(private(*mechanism, "rounds=4", f"resume={folder}", folder="parts"))
    assert summary["params_sha256"] == whole["params_sha256"]
    assert list(again.ledger.releases) == list(state.ledger.releases) == ledger.read(folder / ledger.FILE)
    assert summary["epsilon"] == whole["epsilon"]
    assert rows[-1]["epsilon_rdp"] == whole_rows[-1]["epsilon_rdp"]


def test_a_release_is_charged_before_it_is_asked_for_and_stays_charged(private, monkeypatch):
    config = private("example_local", "rounds=2")
    path = Path(config.run_dir) / ledger.FILE

    def crash(plan, run, privacy):
        assert len(ledger.read(path)) == 1
        raise RuntimeError("power cut")

    monkeypatch.setattr(client_app, "train_private", crash)
    with pytest.raises(RunFailedError, match="power cut"):
        run(config)
    assert len(ledger.read(path)) == 1


def test_a_folder_with_a_ledger_is_not_started_over(private):
    config = private("client_central", "rounds=1")
    run(config)
    with pytest.raises(ConfigError, match="run_dir: .* has the ledger of an earlier private run"):
        run(config)


def test_other_parameters_at_a_resumed_round_are_another_release(private):
    config = private("client_central", "rounds=2")
    run(config)
    folder = Path(config.run_dir)
    saved, header = load(folder / "checkpoints")
    save(replace(saved, params=saved.params + 1), folder / "checkpoints", header)
    (folder / ledger.FILE).write_text((folder / ledger.FILE).read_text() + json.dumps(vars(due(saved))) + "\n")
    run(private("client_central", "rounds=3", f"resume={folder}"))
    assert [release.round for release in ledger.read(folder / ledger.FILE)] == [0, 1, 2, 2]


def due(saved):
    """What a round after this state releases, had a crash undone it."""
    last = list(saved.ledger.releases)[-1]
    return replace(last, round=saved.round, params=fingerprint(saved.params))


def test_poisson_cohorts_are_secret_and_have_the_right_law(private):
    config = private(
        "client_central", "rounds=100", "evaluate_every_rounds=0", "model=logistic", "cohort_size=2", NO_NOISE
    )
    sizes = []
    original = node_private.client_sums

    def spy(plan, *rest):
        sizes.append(len(plan.clients))
        return original(plan, *rest)

    node_private.client_sums = spy
    try:
        rows, _, _ = run(config)
    finally:
        node_private.client_sums = original
    sizes += [0] * (100 - len(sizes))  # nobody was asked
    assert {row["cohort_size"] for row in rows} == {2} and {row["global_batch"] for row in rows} == {8}
    assert abs(np.mean(sizes) - 2) < 5 * (1.8 / 100) ** 0.5
    assert 1e-6 < stats.chi2.sf(np.var(sizes) * 100 / 1.8, 99) < 1 - 1e-6
    assert 0 in sizes and len({row["executor"] for row in rows}) == 1  # 0.9^20 a round, and nobody sees which


def test_adjacent_data_change_nothing_in_the_record_but_released_values(private, monkeypatch):
    def record(folder, change):
        config = private("client_central", "rounds=1", "cohort_size=20", "sampling=all", folder=folder)
        loaded = task.load(config.to_json())
        if change:
            size = int(loaded.privacy.terms.sizes[0])
            loaded.train_x[loaded.partition.lookup(np.zeros(size, np.int64), np.arange(size))] = float("nan")
        return run(config)[0][0]

    one = record("one", False)
    task.load.cache_clear()
    two = record("two", True)
    released = {"mean_update_norm", "gradient_snr", "test_loss", "test_accuracy"}
    released |= {name for name in one if name.startswith(("round_", "noise_scale"))}
    different = {name for name in one if one[name] != two[name] and one[name] == one[name]}
    assert {name for name in different if not name.endswith("_seconds")} <= released
    assert "mean_update_norm" in different


def test_private_replies_have_no_place_for_raw_values():
    fields = set(PrivateContribution.__dataclass_fields__)
    assert fields == {"update_sum", "extra_sums", "clients", "executor", "round"}


@pytest.mark.parametrize(("mechanism", "survives"), [("example_local", True), ("example_distributed", False)])
def test_half_the_nodes_drop_out(private, monkeypatch, mechanism, survives):
    needed = ["privacy.min_clients=15"] if mechanism == "example_distributed" else []
    config = private(mechanism, *needed, "nodes=2", "sampling=all", "cohort_size=20", "rounds=1")
    original = node_private.train_private

    def half(plan, run, privacy):
        if plan.clients[0] == 0:
            raise RuntimeError("gone")
        return original(plan, run, privacy)

    monkeypatch.setattr(client_app, "train_private", half)
    if survives:
        rows, _, _ = run(config)
        assert rows[0]["rejected_replies"] == 1
    else:
        with pytest.raises(RunFailedError, match=r"10 contributions are fewer than privacy.min_clients=15"):
            run(config)


@pytest.mark.parametrize("wrong", [0, 2])
def test_a_reply_with_other_extra_coordinates_is_left_out(private, monkeypatch, wrong):
    original = node_private.train_private

    def other(plan, run, privacy):
        reply = original(plan, run, privacy)
        extras = reply.extra_sums.new_zeros(wrong) if plan.clients[0] else reply.extra_sums
        return replace(reply, extra_sums=extras)

    monkeypatch.setattr(client_app, "train_private", other)
    rows, _, _ = run(private("example_local", "nodes=2", "sampling=all", "cohort_size=20", "rounds=1"))
    assert rows[0]["rejected_replies"] == 1 and np.isfinite(rows[0]["round_trace"])


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_the_clip_norm_finds_its_quantile(private, factor):
    overrides = (
        "client_batch_size=8",
        "server_optimizer.lr=1e-6",
        "evaluate_every_rounds=0",
        "model=logistic",
        "sampling=all",
        "cohort_size=20",
    )  # the model stands still, so the quantile does
    lengths = []
    config = private(
        "client_central",
        *overrides,
        "privacy.clip_norm=1e6",
        "rounds=30",
        "privacy.noise_multiplier=0",
        "privacy.target_epsilon=null",
        folder="lengths",
    )
    loaded = task.load(config.to_json())
    from tests.privacy.releases import sum_of

    for client in range(20):
        lengths += [float(sum_of(loaded, [client], round_=r, clip_norm=1e6).norm()) for r in range(5)]
    median = float(np.median(lengths))
    task.load.cache_clear()
    config = private(
        "client_central",
        *overrides,
        f"privacy.clip_norm={median * factor}",
        "rounds=90",
        "privacy.clip_quantile=0.5",
        "privacy.count_noise=1.0",
    )
    rows, _, _ = run(config)
    found = np.exp(np.mean(np.log([row["clip_norm"] for row in rows[45:]])))
    share = np.mean(np.array(lengths) <= found)
    assert abs(share - 0.5) < 0.1 and found == pytest.approx(median, rel=0.2)


def test_an_adaptive_run_stops_before_the_budget(make_config):
    config = make_config(
        "privacy=client_central",
        "privacy.target_epsilon=3",
        "privacy.noise_multiplier=1.0",
        "rounds=40",
        "controller=noise_scale_switch",
    )
    rows, summary, state = run(config)
    assert 0 < len(rows) < 40 and len(state.ledger.releases) == len(rows)
    assert rows[-1]["epsilon_rdp"] <= 3 and summary["epsilon"] == 3
    assert summary["privacy"]["accountant"].startswith("rdp filter at order ")
    more = run(
        make_config(
            "privacy=client_central",
            "privacy.target_epsilon=3",
            "privacy.noise_multiplier=1.0",
            "rounds=40",
            "controller=noise_scale_switch",
            f"resume={config.run_dir}",
        )
    )
    assert more[1]["rounds"] == len(rows) and more[2].ledger == state.ledger  # resuming buys nothing


@pytest.mark.slow
def test_noise_is_calibrated_to_the_target(make_config):
    config = make_config("privacy=example_local", "privacy.target_epsilon=2", "controller=fixed", "rounds=2")
    _, summary, _ = run(config)
    assert 1.99 < summary["epsilon"] <= 2


TWO_EPOCHS = "{_target_: fedbatch.clients.LocalSGD, epochs: 2, steps: null, lr: 0.1, proximal: 0.0}"
SCHEDULE = (
    "controller=schedule",
    "controller.phases.large.cohort_size=8",
    "controller.phases.large.client_batch_size=8",
)
REFUSED = [
    ("client_central", ["sampling=uniform"], "sampling=uniform draws a fixed number of clients"),
    ("client_central", ["sampling=all"], "sampling=all takes part with everyone; set cohort_size=20"),
    ("client_central", ["weighting=examples"], "weighting=examples would let a client with many examples"),
    ("example_local", ["weighting=uniform"], "weighting=uniform: at example level"),
    ("example_local", ["model=cnn", "model.norm=batch", "model.channels=4"], "model: running statistics"),
    ("example_local", ["privacy.delta=0.01"], r"privacy.delta must be in \(0, 1/"),
    ("client_central", ["privacy.delta=0.05"], r"privacy.delta must be in \(0, 1/20\)"),
    ("example_local", ["privacy.noise_multiplier=-1"], "privacy.noise_multiplier must be in"),
    ("example_local", ["privacy.clip_norm=0"], "privacy.clip_norm must be in"),
    ("example_local", ["privacy.clip_norm=inf"], "privacy.clip_norm=inf bounds nothing"),
    ("example_local", ["privacy.clipping=layer"], "privacy.clipping must be one of flat, per_layer"),
    ("example_local", ["privacy.noise_multiplier=null"], "privacy: set noise_multiplier or target_epsilon"),
    ("example_local", ["privacy.target_epsilon=1e-3"], r"privacy: noise_multiplier=1 costs epsilon .* above target"),
    ("example_local", ["precision=bf16"], "precision=bf16 .*; set it to float32"),
    ("client_central", ["precision=bf16"], "precision=bf16 .*; set it to float32"),
    ("example_local", ["matmul_precision=high"], "matmul_precision=high .*; set it to highest"),
    ("client_central", ["matmul_precision=medium"], "matmul_precision=medium .*; set it to highest"),
    ("example_local", ["noise_scale.halves=true"], "noise_scale: halves and cosine"),
    ("example_local", ["client_holdout=0.2"], "client_holdout: accuracy on clients' own data"),
    (
        "example_local",
        ["target_metric=train_loss", "target_value=1", "privacy.target_epsilon=50"],
        "target_metric=train_loss",
    ),
    (
        "example_local",
        ["controller=noise_scale_switch", "privacy.accountant=pld"],
        "privacy.accountant=pld needs phases",
    ),
    ("example_local", ["controller=noise_scale_switch"], "privacy.target_epsilon is needed when the controller"),
    ("example_local", ["target_value=0.9"], "privacy.target_epsilon is needed when the controller"),
    ("example_distributed", ["privacy.min_clients=5"], "privacy.min_clients is larger than the cohort"),
    ("example_distributed", ["privacy.min_clients=2", "privacy.colluders=2"], "need 0 <= colluders < min_clients"),
    (
        "example_distributed",
        ["privacy.min_clients=2", "privacy.secure_aggregation=none"],
        "shares of noise protect nobody",
    ),
    (
        "example_distributed",
        ["privacy.min_clients=2", "client_work=local_sgd", "client_work.epochs=null", "client_work.steps=2"],
        r"client_work: 2 noised steps a round .* use client_work=fedsgd .* or privacy=example_local",
    ),
    (
        "example_distributed",
        ["privacy.min_clients=2", *SCHEDULE, f"controller.phases.large.client_work={TWO_EPOCHS}"],
        r"client_work: .* noised steps a round \(phase large\)",
    ),
    ("client_central", ["privacy.clip_quantile=0.5", "privacy.count_noise=0.5"], "privacy.count_noise"),
    ("client_central", ["privacy.clip_quantile=0.5", "privacy.clipping=per_layer"], "clip_quantile is of the length"),
]


@pytest.mark.parametrize(("mechanism", "overrides", "message"), REFUSED, ids=lambda v: None)
def test_refused_before_the_first_round_with_the_remedy(private, tmp_path, mechanism, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        run(private(mechanism, *overrides))
    assert "\n" not in str(caught.value) and not list(tmp_path.rglob("rounds.jsonl"))


class BatchCoupled:
    per_example = False

    def __call__(self, logits, labels):
        return logits.std()


def test_a_loss_that_couples_examples_is_refused_at_example_level_only(private):
    coupled = f"loss._target_={__name__}.BatchCoupled"
    drop = ["~loss.label_smoothing"]
    with pytest.raises(ConfigError, match="loss couples the examples of a batch"):
        task.load(private("example_local", coupled, *drop).to_json())
    task.load(private("client_central", coupled, *drop, "executor=loop").to_json())


def test_ghost_clipping_refuses_the_layout_that_opacus_misreads(private):
    with pytest.raises(ConfigError, match=r"Opacus misreads convolutions.*channels_last=false"):
        task.load(private("example_local", "executor=ghost", "model=cnn", "model.channels=4").to_json())
    with pytest.raises(ConfigError, match="it clips single examples"):
        task.load(private("client_central", "executor=ghost").to_json())
