"""`fedbatch.critical` and ``fedbatch critical`` on records written by hand, and on runs."""

import math
from pathlib import Path

import numpy as np
import pytest

import fedbatch
from fedbatch.cli.commands import run_command
from fedbatch.core.errors import ConfigError
from fedbatch.results.store import RunStore
from tests.conftest import run

ROUNDS, NAN = 100, float("nan")


def row(i, **more):
    """16 clients of 4 examples, N = 64 = one batch, a loss of 1 - i / 200, and 1,000 bytes each way a client."""
    return {
        "round": i,
        "rounds": i + 1,
        "phase": "fixed",
        "switch": "",
        "cohort_size": 16,
        "global_batch": 64,
        "train_loss": 1 - i / 200,
        "test_loss": NAN,
        "test_accuracy": NAN,
        "noise_scale": 64.0,
        "noise_scale_low": 60.0,
        "noise_scale_high": 70.0,
        "noise_scale_unit": "examples",
        "round_trace": 64.0,
        "round_grad_sq": 1.0,
        "examples": 64 * (i + 1),
        "bytes_up": 16_000 * (i + 1),
        "bytes_down": 16_000 * (i + 1),
        "simulated_seconds": 1.0,
        "measured_seconds": 1.0,
        **more,
    }


@pytest.fixture
def write(make_config):
    """``write("a", lambda i: row(i, round_trace=8.0), "seed=1")``: a run folder."""

    def written(name="a", each=row, *overrides, rounds=ROUNDS) -> Path:
        shape = ("population=100", "cohort_size=16", "client_batch_size=4", "controller=fixed")
        config = make_config(*shape, *overrides, folder=name)
        store = RunStore(Path(config.run_dir), config)
        with store.recording(0):
            for i in range(rounds):
                store.append(each(i))
        return store.folder

    return written


def test_numbers_by_hand(write):
    found = fedbatch.critical(write(), [0.75])
    (goal,) = found.goals  # 0.75 after 50 steps, half of each lost to noise
    assert (goal.steps, goal.s_min, goal.e_min, goal.b_crit) == pytest.approx((50, 25, 1600, 64))
    assert (found.unit, found.loss, found.batch, found.cohort) == ("examples", "train_loss", 64, 16)
    more = found.predict(256)
    assert (more.cohort, more.client_batch, more.rounds, more.examples) == pytest.approx((64, 4, 31.25, 8000))
    assert more.bytes == pytest.approx(31.25 * 64 * 2000)
    # conf/config.yaml: 1 ms an example, 2 x 50 ms latency, 1,000 bytes at 2.5e6 down and 1.25e6 up.
    assert more.seconds == pytest.approx(31.25 * (0.004 + 0.1 + 0.0004 + 0.0008))
    larger = found.predict(256, cohort=16)
    assert (larger.client_batch, larger.rounds) == pytest.approx((16, 31.25))
    assert larger.bytes == pytest.approx(31.25 * 16 * 2000)
    assert larger.seconds == pytest.approx(31.25 * (0.016 + 0.1 + 0.0004 + 0.0008))
    assert found.predict(cohort=64) == more
    assert found.predict(64).rounds == pytest.approx(50) and found.is_fixed


def test_goals_by_default_are_passed_and_fall(write):
    goals = fedbatch.critical(write()).goals
    assert [goal.steps / ROUNDS for goal in goals] == pytest.approx([0.2, 0.4, 0.7, 0.95], abs=0.06)
    assert all(f"{goal.loss:.3g}" == f"{goal.loss:.10g}" for goal in goals)


def test_a_loss_on_the_training_set_is_preferred(write):
    def evaluated(i):
        return row(i, training_set_loss=2 - i / 100 if i % 5 == 4 else NAN)

    found = fedbatch.critical(write(each=evaluated), [1.5])
    assert found.loss == "training_set_loss" and found.goals[0].steps == pytest.approx(51)  # evaluated after the step
    few = write("few", lambda i: row(i, training_set_loss=2 - i / 100 if i % 25 == 24 else NAN))
    assert fedbatch.critical(few).loss == "train_loss"


def test_local_steps_are_counted_in_clients(write, capsys):
    def local(i):
        return row(i, noise_scale_unit="clients", round_trace=16.0, global_batch=1600)

    folder = write(each=local)
    found = fedbatch.critical(folder, [0.75])
    assert (found.unit, found.goals[0].b_crit, found.goals[0].e_min) == (
        "clients",
        pytest.approx(16),
        pytest.approx(400),
    )
    more = found.predict(cohort=32)
    assert (more.rounds, more.examples, more.client_batch) == pytest.approx((37.5, 37.5 * 3200, 100))
    with pytest.raises(ValueError, match="local steps"):
        found.predict(3200, cohort=16)
    assert run_command("critical", *[str(folder), "--batches", "64"]) == 2
    assert "give --cohorts" in capsys.readouterr().err
    assert run_command("critical", *[str(folder), "--cohorts", "32,64", "--loss", "0.75"]) == 0
    assert "32 x 100" in capsys.readouterr().out


def test_drift_that_was_measured_limits_what_more_examples_bring(write):
    # Sampling noise 32 examples = 8 clients of 4, drift 8 clients: half of a client's noise.
    found = fedbatch.critical(write(each=lambda i: row(i, b_within=32.0, m_drift=8.0)), [0.75])
    assert found.drift == pytest.approx(0.5) and found.unit == "examples"
    # 16 clients of 16: their noise is 1/8 + 1/2 of before, so 16 / 0.625 = 25.6 clients' worth of averaging.
    assert found.predict(256, cohort=16).rounds == pytest.approx(25 + 1600 / (4 * 25.6))
    assert found.predict(256).rounds == pytest.approx(31.25)


def test_where_drift_dominates_the_unit_is_clients(write):
    found = fedbatch.critical(write(each=lambda i: row(i, b_within=4.0, m_drift=15.0)), [0.75])
    assert (found.unit, found.goals[0].b_crit, found.goals[0].e_min) == (
        "clients",
        pytest.approx(16),
        pytest.approx(400),
    )
    assert found.predict(256).rounds == pytest.approx(31.25) and "clients differ: 94%" in found.doubts[-1]
    everybody = write("all", lambda i: row(i, b_within=4.0, m_drift=15.0, cohort_size=100, global_batch=400))
    assert "all clients take part" in fedbatch.critical(everybody, [0.75]).doubts[-1]


def test_phases_count_at_their_own_batch(write, capsys):
    def switched(i):
        large = {"phase": "large", "cohort_size": 64, "global_batch": 192}
        return row(i, **(large if i >= 50 else {}), bytes_up=1, bytes_down=1)

    folder = write(each=switched)
    (goal,) = fedbatch.critical(folder, [0.6]).goals  # 50 rounds at N = B, 30 at N = B / 3
    assert (goal.steps, goal.s_min, goal.e_min) == pytest.approx((80, 25 + 22.5, 50 * 32 + 30 * 48))
    assert goal.examples == pytest.approx(50 * 64 + 30 * 192)
    assert run_command("critical", *[str(folder)]) == 0
    told = capsys.readouterr().out
    assert "(run)" not in told and "own batch is an input" not in told


def test_lost_rounds_and_rounds_without_an_estimate(write):
    folder = write(each=lambda i: row(i, round_trace=NAN if i % 7 == 0 else 64.0))
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    (folder / "rounds.jsonl").write_text("\n".join(lines[:10] + lines[14:]) + "\n")
    (goal,) = fedbatch.critical(folder, [0.75]).goals
    assert (goal.steps, goal.s_min) == pytest.approx((50, 25))


REFUSED = {
    "a private run": lambda i: row(i, noise_scale_dp=3.0),
    "no round_trace": lambda i: {k: v for k, v in row(i).items() if k != "round_trace"},
    "train_loss never falls": lambda i: row(i, train_loss=1 + i),
    "train_loss does not pass 0.25": row,
    "have no common unit": lambda i: row(i, noise_scale_unit="clients" if i > 50 else "examples"),
    "it needs two clients": lambda i: row(i, round_trace=NAN),
    "at least 4 finite losses": lambda i: row(i, train_loss=NAN, test_loss=1.0 if i < 2 else NAN),
}


@pytest.mark.parametrize("said", REFUSED)
def test_refusals_are_one_line_and_exit_2(write, capsys, said):
    folder = write(each=REFUSED[said])
    assert run_command("critical", *[str(folder), "--loss", "0.25" if "0.25" in said else "0.75"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fedbatch: critical: {folder}") and said in error and error.count("\n") == 1
    assert not (folder / "critical.png").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["nowhere"], ["a", "--loss", "x"], ["a", "--batches", "16,-4"], ["a", "--x"]]
)
def test_wrong_arguments_are_one_line_and_exit_2(write, capsys, monkeypatch, arguments):
    monkeypatch.chdir(write().parent)
    assert run_command("critical", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedbatch: critical: ") and error.count("\n") == 1


def test_the_command_beside_other_runs(write, capsys, caplog):
    first = write("s/64")
    # Four times the batch, and 0.75 after 32 rounds where 31.25 are predicted.
    write("s/256", lambda i: row(i, cohort_size=64, global_batch=256, train_loss=1 - i / 128), "cohort_size=64")
    write("s/broke", rounds=1)
    write("s/high", lambda i: row(i, train_loss=1 + i), "server_optimizer.lr=9")
    for seed, share in ((0, 120), (1, 152)):  # a slower rate, whose seeds need 30 and 38 rounds
        slow = (f"seed={seed}", "cohort_size=64", "server_optimizer.lr=0.01")
        write(f"s/slow{seed}", lambda i, s=share: row(i, cohort_size=64, global_batch=256, train_loss=1 - i / s), *slow)
    assert run_command("critical", *[str(first), str(first.parent), "--loss", "0.75", "--batches", "16,64,256"]) == 0
    told = capsys.readouterr().out
    assert (
        "│   256 │      64 │    3 │   32 / 31 │" in told
        and "│    64 │      16 │    2 │   50 / 50 │" in told
        and "64 (run)" in told
    )
    assert "A batch of 128 needs about 1.3 x fewer rounds than 64 for 1.5 x the examples." in told
    assert "differ by a factor of 1.02 (root mean square of 1), 1.02 at most" in told  # 32 / 31.25
    assert "left out: " in caplog.text and "broke: 1 rounds in its record" in caplog.text
    assert (first / "critical.png").stat().st_size > 10_000
    assert (
        run_command("critical", *[str(first.parent), "--loss", "0.75"]) == 0
    )  # of a folder of runs, the smallest batch with the lowest loss
    assert "s/64: train_loss" in capsys.readouterr().out.replace("\n", "")
    other = write("other", row, "model=logistic")
    assert run_command("critical", *[str(first), str(other)]) == 2
    assert "another model than" in capsys.readouterr().err


def test_a_rate_that_is_too_high_is_said(write):
    rng = np.random.default_rng(0)
    losses = 1 - np.arange(ROUNDS) / 200 + 0.1 * rng.normal(size=ROUNDS)
    jumping = write("jump", lambda i: row(i, test_loss=losses[i]))
    assert "rate is probably too high" in fedbatch.critical(jumping, [0.75]).doubts[0]
    climbing = write("climb", lambda i: row(i, train_loss=1 - i / 200 if i < 60 else 0.7 + (i - 60) / 80))
    assert "climbs back" in fedbatch.critical(climbing, [0.75]).doubts[0]


@pytest.mark.parametrize(
    "override, said",
    [
        ("server_optimizer=adam", "server_optimizer Adam: the law is that of plain SGD"),
        ("server_optimizer.momentum=0.9", "momentum 0.9: the law is that of plain SGD"),
        ("compression=qsgd", "compression: its noise is in the steps"),
        ("aggregator=median", "aggregator coordinate_median: the noise was measured of the mean"),
    ],
)
def test_servers_beyond_the_law_are_said(write, override, said):
    assert fedbatch.critical(write("a", row, override), [0.75]).doubts[-1].startswith(said)


def test_local_steps_are_not_set_beside_gradients(write, capsys):
    local = write("local", lambda i: row(i, noise_scale_unit="clients"))
    assert run_command("critical", *[str(write()), str(local), "--loss", "0.75"]) == 2
    assert "but not in both" in capsys.readouterr().err


def test_a_run_of_its_own(make_config, capsys):
    config = make_config("rounds=60", "cohort_size=8", "controller=fixed", "server_optimizer.lr=0.3")
    _, summary, _ = run(config)
    found = fedbatch.critical(config.run_dir)
    own = found.predict(found.batch)
    goal = found.goals[-1]
    assert own.rounds == pytest.approx(goal.steps) and goal.s_min + goal.e_min / found.batch == pytest.approx(
        goal.steps
    )
    assert own.bytes / own.rounds == pytest.approx((summary["bytes_up"] + summary["bytes_down"]) / 60)
    assert own.seconds / own.rounds == pytest.approx(summary["simulated_seconds"] / 60)
    assert own.examples / own.rounds == pytest.approx(summary["examples"] / 60)
    assert math.isfinite(goal.b_crit) and run_command("critical", *[config.run_dir]) == 0
    assert "picture: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "overrides, unit",
    [
        (("client_work=local_sgd", "server_optimizer.lr=1"), "clients"),
        (("sampling=poisson", "cohort_size=8"), "examples"),
    ],
)
def test_runs_of_other_kinds(make_config, overrides, unit):
    config = make_config("rounds=24", "controller=fixed", *overrides)
    run(config)
    assert fedbatch.critical(config.run_dir).unit == unit


def test_a_private_run_is_refused_in_words(make_config):
    private = ("privacy=example_local", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0")
    config = make_config("controller=fixed", *private)
    run(config)
    with pytest.raises(ConfigError, match="a private run: .*privacy=none"):
        fedbatch.critical(config.run_dir)


SPOILS = {
    "train_loss": [NAN, math.inf, -3.0, 1e300, None],
    "round_trace": [NAN, math.inf, -5.0, 0.0, None],
    "round_grad_sq": [NAN, -math.inf, -5.0, 0.0, 1e-300],
    "global_batch": [0, 1, 10**9],
    "cohort_size": [1, 2, 500],
    "phase": ["[b]", ""],
    "round": [0, 3, 500],
}


def test_spoilt_records_give_numbers_or_one_line(write, capsys, monkeypatch):
    monkeypatch.setattr("fedbatch.cli.critical.save_critical_figure", lambda *_: None)  # most of the time
    rng = np.random.default_rng(0)
    for trial in range(20):
        names = rng.choice(list(SPOILS), 2, replace=False)
        share = rng.choice([0.02, 0.3, 1.0])

        def spoilt(i, names=names, share=share):
            chosen = {name: SPOILS[name][rng.integers(len(SPOILS[name]))] for name in names if rng.random() < share}
            return row(i, **chosen)

        folder = write(f"spoilt{trial}", spoilt, rounds=int(rng.integers(2, 60)))
        code = run_command("critical", *[str(folder)])
        error = capsys.readouterr().err
        assert (code, error) == (0, "") or (code == 2 and error.count("\n") == 1), names


def test_overwriting_a_run_deletes_its_picture(write):
    from fedbatch.results.folder import clear

    folder = write()
    run_command("critical", *[str(folder)])
    clear(folder)
    assert not (folder / "critical.png").exists()


def test_no_client_is_given_more_examples_than_the_largest_has():
    from types import SimpleNamespace

    from fedbatch.results.critical_table import is_possible

    found = SimpleNamespace(largest_client=16, client_batch=4.0, population=100)
    way = SimpleNamespace(cohort=10.0, client_batch=16.0)
    assert is_possible(found, way)
    for changes in ({"client_batch": 64.0}, {"client_batch": 0.5}, {"cohort": 101.0}, {"cohort": 0.5}):
        assert not is_possible(found, SimpleNamespace(**{**vars(way), **changes}))
    assert is_possible(
        SimpleNamespace(**{**vars(found), "client_batch": 20.0}), SimpleNamespace(cohort=1, client_batch=20.0)
    )


def test_proposed_clients_and_examples_are_whole(write):
    from fedbatch.results.critical_table import ways

    def of_ten(i):
        return {"cohort_size": 10, "global_batch": 60}

    found = fedbatch.critical(write("ten", lambda i: row(i, **of_ten(i)), "population=100", "cohort_size=10"))
    assert (found.cohort, found.client_batch) == (10, 6)
    for batch in (15.0, 17.0, 100.0, 250.0):
        shown = [(way.cohort, way.client_batch) for way in ways(found, batch)]
        assert all(cohort == int(cohort) and each == int(each) for cohort, each in shown), shown
        assert all(way.batch == way.cohort * way.client_batch for way in ways(found, batch))
    assert [(way.cohort, way.client_batch) for way in ways(found, 250.0)] == [(42, 6), (10, 25)]
    assert [(way.cohort, way.client_batch) for way in ways(found, 60.0)] == [(10, 6)]
