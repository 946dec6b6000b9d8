import math
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedbatch.batch.loss_curve import loss_curve
from fedbatch.batch.noiseless import Rounds
from fedbatch.batch.one_run import to_losses

RESULTS = Path(__file__).parents[2] / "docs" / "results"
NOISE, BEST = 100.0, 0.8
"""Of a task on which the law holds: its noise scale, and the best rate of an endless batch."""


def lawful(batch, rate, seed, length, told=NOISE):
    """A run that the law describes: it makes 1 / (1 + N/B) of a step at the best rate, less at any other."""
    from simulations.critical_runs import Run

    off = rate * (1 + NOISE / batch) / BEST
    if off > 4:
        return None
    progress = 4 * off / (1 + off) ** 2 / (1 + NOISE / batch)
    steps = np.arange(0, length.rounds + 1, length.every)
    each = np.ones(length.rounds)
    rounds = Rounds(told * each, each, batch * each, np.zeros(length.rounds, np.int64))
    return Run(rounds, loss_curve(steps, np.exp(-0.02 * progress * steps)))


def task(name="a task", batches=(8, 32, 128, 512)):
    from simulations.critical_tasks import Task

    return Task(name, "natural", "SGD", (), 10**12, batches, 0.2)


def tables(names=("a task",), told=(NOISE,)):
    from simulations.critical_reading import rows
    from simulations.critical_runs import measured

    found = []
    for name, noise in zip(names, told, strict=True):
        of = task(name)
        found.append(rows(of, *measured(partial(lawful, told=noise), of.batches, of.rate, of.steps)))
    return [pl.DataFrame([row for pair in found for row in pair[i]], infer_schema_length=None) for i in (0, 1)]


def test_where_the_law_holds_the_smallest_batch_tells_what_all_batches_say():
    from simulations.critical_reading import costs, points

    runs, windows = tables()
    found = points(runs, windows)
    assert found["number"].to_list() == [1, 2, 3, 4]
    for row in found.iter_rows(named=True):
        assert row["b_crit"] == pytest.approx(NOISE, rel=0.15)
        for name in ("told", "one", "second", "largest", "quarter"):
            assert row[name] == pytest.approx(NOISE, rel=1e-6), name
    spent = costs(runs, found)
    assert set(spent["times"].to_list()) == {4.0, 16.0, 64.0}
    assert (spent["predicted"] / spent["steps"]).to_numpy() == pytest.approx(1, abs=0.15)


def test_windows_give_what_fedbatch_says_of_the_run():
    from simulations.critical_reading import sums, windows_of
    from simulations.critical_runs import Length, Run

    rng, run = np.random.default_rng(1), lawful(32, 0.2, 0, Length(400, 3))
    noisy = Rounds(rng.normal(100, 30, 400), rng.normal(0.1, 0.3, 400), run.rounds.batch_sizes, run.rounds.phases)
    run = Run(noisy, run.curve)
    (expected,) = to_losses(noisy, run.curve, [0.3])
    found = pl.DataFrame([window | {"batch": 32} for window in windows_of(run, 0.3)])
    assert sums(found) == pytest.approx((expected.s_min, expected.e_min))
    assert 0 < expected.saturated < 1


def test_a_walk_finds_the_best_rate_and_does_not_wait_for_slow_runs():
    from simulations.critical_runs import PATIENCE, SEEDS, measured

    asked = []

    def launch(batch, rate, seed, length):
        asked.append((batch, rate, seed, length.rounds))
        return lawful(batch, rate, seed, length)

    _, found = measured(launch, (8, 32, 128, 512), 0.2, 100)
    for at in found:
        for goal, rate in at.best.items():
            assert rate * (1 + NOISE / at.batch) / BEST == pytest.approx(1, rel=0.5)
            assert [seed for seed, _ in at.counted(goal)] == list(SEEDS)
    hardest = min(found[0].best)
    steps = found[0].counted(hardest)[0][1].steps_to(hardest)
    first, *others = [rounds for batch, *_, rounds in asked if batch == 8]
    assert max(others) <= max(PATIENCE * max(steps, first), 12) + 1


def test_a_goal_that_too_few_batches_reach_is_left_out():
    from simulations.critical_reading import points

    runs, windows = tables()
    lost = (pl.col("number") == 4) & (pl.col("batch") > 32)
    kept = runs.with_columns(counts=pl.col("counts") & ~lost)
    assert points(kept, windows)["number"].to_list() == [1, 2, 3]


def test_batches_without_replacement_have_less_noise():
    from simulations.critical_reading import effective

    assert effective(pl.Series([8, 512]), 1024.0) == pytest.approx([8 * 1024 / 1016, 1024])


def test_agreement_of_equal_sizes_and_of_sizes_that_are_off_by_two():
    from simulations.critical_agreement import agreement

    sizes = np.geomspace(10, 10_000, 12)
    tasks = np.repeat(["a", "b", "c", "d"], 3)
    same, off = agreement(sizes, sizes, tasks), agreement(2 * sizes, sizes, tasks)
    assert (same.r2, same.equality, same.factor, same.within_2) == pytest.approx((1, 1, 1, 12))
    assert (off.r2, off.factor, off.median, off.decades) == pytest.approx((1, 2, 2, 3))
    assert off.equality == pytest.approx(1 - 12 * math.log(2) ** 2 / (12 * np.var(np.log(sizes))))
    assert same.within_tasks == pytest.approx(1) and same.between_tasks == pytest.approx(1)


def test_tasks_may_agree_between_and_not_within():
    from simulations.critical_agreement import agreement

    steps = np.repeat([0.0, 5.0, 10.0], 3)
    found = agreement(np.exp(steps + np.tile([1, 0, 1], 3)), np.exp(steps + np.tile([0, 1, 2], 3)), list("aaabbbccc"))
    assert found.between_tasks == pytest.approx(1) and found.within_tasks == pytest.approx(0, abs=1e-12)
    assert found.median == pytest.approx(math.exp(-1)) and found.factor == pytest.approx(math.e)
    assert found.r2_interval[0] <= found.r2 <= found.r2_interval[1]


def test_agreement_leaves_out_what_was_lost_in_noise_and_needs_three_tasks():
    from simulations.critical_agreement import agreement

    assert agreement([1, 2, 3, math.inf], [1, 2, 3, 4], list("abcd")).goals == 3
    with pytest.raises(ValueError, match="three tasks"):
        agreement([1, 2, 3], [1, 2, 3], list("aab"))


@pytest.mark.parametrize(
    ("ways", "largest"), [((1, 1, 0.9, 0.5, 0.1), 32), ((1, 1, 1, 0.95, 1.1), 128), ((1, 0.8, 1, 1, 1), 2**3.5)]
)
def test_the_largest_batch_without_loss_is_where_a_tenth_of_the_way_is_lost(ways, largest):
    from simulations.critical_branching import largest_without_loss

    rows = [
        {"batch": batch, "before": 2.0, "after": 2.0 - way + shift}
        for batch, way in zip((8, 16, 32, 64, 128), ways, strict=True)
        for shift in (-0.05, 0.05)
    ]
    assert largest_without_loss(pl.DataFrame(rows)) == pytest.approx(largest)


def test_the_report_has_its_tables_and_pictures(tmp_path):
    from simulations.critical_batch_size_report import markdown
    from simulations.critical_figures import save_costs, save_figure
    from simulations.critical_reading import costs, points

    runs, windows = tables(("one", "two", "three"), (50.0, 100.0, 200.0))
    found = points(runs, windows)
    spent = costs(runs, found)
    text = markdown(found, spent, pl.DataFrame())
    judged = found.filter(pl.col("fit_s_min") >= 30)
    assert f"| SGD | all | {len(judged)} | 3 |" in text and "| SGD | one |" in text
    save_figure(found, tmp_path / "a.png")
    save_costs(spent, tmp_path / "b.png")
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("a.png", "b.png"))


def test_tasks_are_as_registered():
    from simulations.critical_tasks import OPTIMIZERS, tasks

    registered = tasks("momentum")
    assert len(registered) + 1 >= 15  # and the quadratic
    assert sum(task.kind == "natural" for task in registered) >= (len(registered) + 1) / 2
    for task_ in [task for name in OPTIMIZERS for task in tasks(name)]:
        assert task_.batches[0] >= 8 and task_.steps >= 100 and len(task_.batches) >= 4
        assert all(batch % min(batch, 64) == 0 for batch in task_.batches)
        assert {round(b / a) for a, b in zip(task_.batches, task_.batches[1:], strict=False)} == {4}


def test_regression_is_the_residual_and_its_square():
    import torch

    from simulations.critical_data import Square, line, residual

    data = line(features=5, examples=400, noise=0.5)
    model = residual((6,), 2)
    assert model(torch.from_numpy(data.train_x)).detach().numpy() == pytest.approx(-np.tile(data.train_x[:, 5:], 2))
    loss = Square()(torch.tensor([[1.0, 3.0], [0.0, 2.0]]), torch.zeros(2), "none")
    assert loss.tolist() == [2.5, 1.0]


def test_the_next_character_follows_its_context():
    from simulations.critical_data import TEST, next_character

    data = next_character(context=3, examples=300)
    assert data.train_x.shape == (300, 3) and data.test_x.shape == (TEST, 3)
    assert data.num_classes > data.train_y.max()


def test_committed_points_follow_from_the_committed_runs_and_windows():
    from simulations.critical_reading import KEYS, points, sums

    found, runs, windows = (
        pl.read_parquet(RESULTS / f"critical_batch_size{suffix}.parquet") for suffix in ("", "_runs", "_windows")
    )
    again = points(runs, windows)
    for name in ("b_crit", "told", "second", "largest", "quarter"):
        assert again[name].to_numpy() == pytest.approx(found[name].to_numpy(), rel=1e-6), name
    told = runs.filter("counts").filter(pl.col("s_min").is_not_null())
    for row in told.sample(20, seed=0).iter_rows(named=True):
        own = windows.filter(
            *(pl.col(name) == row[name] for name in ("optimizer", "task", "number", "batch", "rate", "seed"))
        )
        assert sums(own) == pytest.approx((row["s_min"], row["e_min"]), rel=1e-6), [row[name] for name in KEYS]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["SGD", "momentum"])
def test_the_known_answer_of_the_quadratic_is_recovered(optimizer):
    from fedbatch.batch.critical import fit_critical_batch_size
    from simulations import quadratic
    from simulations.critical_reading import points, rows
    from simulations.critical_runs import measured

    of, momentum = quadratic.task(optimizer), quadratic.MOMENTUM[optimizer]
    goals, found = measured(partial(quadratic.launched, momentum), of.batches, of.rate, of.steps)
    told = points(*(pl.DataFrame(table, infer_schema_length=None) for table in rows(of, goals, found)))
    for row in told.head(2).iter_rows(named=True):
        exact = [quadratic.exact_steps(batch, row["goal"], momentum) for batch in of.batches]
        known = fit_critical_batch_size(of.batches, exact)
        for name in ("s_min", "e_min"):
            assert row[f"fit_{name}"] == pytest.approx(getattr(known, name), rel=0.35), name


@pytest.mark.slow
def test_the_quick_form_ends_with_its_table(tmp_path, capsys):
    from simulations import critical_batch_size

    critical_batch_size.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    assert "digits, linear" in capsys.readouterr().out
    found = pl.read_parquet(tmp_path / "results" / "critical_batch_size.parquet")
    assert {"goal", "b_crit", "told", "fit_s_min"} <= set(found.columns) and found["b_crit"].is_finite().all()
    branched = pl.read_parquet(tmp_path / "results" / "critical_batch_size_branches.parquet")
    assert np.isfinite(branched["after"].to_numpy()).all()
