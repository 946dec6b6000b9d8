import numpy as np
import polars as pl
import pytest


def rows(curves, batch=500, seeds=3):
    """Runs with 200, 700 and 1,200 labels; ``curves`` has the accuracies of each selector, of each seed a bit later."""
    found = []
    for selector, accuracies in curves.items():
        for seed in range(seeds):
            for stage, accuracy in enumerate(accuracies):
                row = {"redundancy": 4, "pool": 20_000, "batch": batch, "selector": selector, "seed": seed}
                row |= {"status": "finished", "stage": stage, "labels_used": 200 + batch * stage}
                found.append(row | {"test_accuracy": accuracy - 0.001 * seed * (stage > 0)})
    return pl.DataFrame(found)


CURVES = {
    "random": [0.5, 0.7, 0.8],  # the worst seed ends at 0.798, which is the goal
    "margin": [0.5, 0.75, 0.85],
    "cluster_margin": [0.5, 0.85, 0.9],
    "cluster_margin, tight": [0.5, 0.6, 0.7],
}


def test_labels_are_those_for_the_end_of_the_worst_random_run_paired_by_seed():
    from simulations.cluster_margin_report import goal, needed, next_best, share

    cell = rows(CURVES)
    assert goal(cell) == pytest.approx(79.8)
    found = needed(cell)
    seeds = np.arange(3)
    margin = 700 + 500 * (0.798 - 0.75 + 0.001 * seeds) / 0.1
    wide = 200 + 500 * 0.298 / (0.35 - 0.001 * seeds)
    np.testing.assert_allclose(found["margin"], margin)
    np.testing.assert_allclose(found["cluster_margin"], wide)
    assert next_best(found) == "margin"
    ratios = np.log(wide / margin)
    half = 2.9199856 * ratios.std(ddof=1) / 3**0.5  # Student's t with two degrees of freedom
    expected = np.exp(ratios.mean() + np.array([0, -half, half]))
    np.testing.assert_allclose(share(found, "cluster_margin"), expected, rtol=1e-6)


def test_a_goal_that_one_seed_misses_is_not_reached():
    from simulations.cluster_margin_report import markdown, needed, share

    found = needed(rows(CURVES))
    assert np.isinf(found["cluster_margin, tight"]).all()
    assert share(found, "cluster_margin, tight")[0] == np.inf
    told = markdown(rows(CURVES))
    assert "- cluster_margin, tight, 4 copies: cannot be told" not in told
    assert "not reached by 3 of 3" in told


@pytest.mark.parametrize("last, expected", [(0.9, "holds (from a query batch of 100 on)"), (0.78, "does not hold")])
def test_the_answer_is_that_of_the_largest_query_batch(last, expected):
    from simulations.cluster_margin_report import markdown

    worse = CURVES | {"cluster_margin": [0.5, 0.72, last + 0.02], "margin": [0.5, 0.79, 0.86]}
    larger = CURVES if last == 0.9 else worse
    told = markdown(pl.concat([rows(CURVES, 100), rows(larger)]))
    assert f"cluster_margin, 4 copies: {expected}" in told


def test_pools_are_equally_large_and_hold_fewer_images_the_more_copies_there_are():
    from simulations.cluster_margin import FULL, POOL, SELECTORS, WIDE

    assert f"+dataset.examples={POOL}" in FULL.pools[1]
    assert {f"dataset.originals={POOL // 4}", f"dataset.examples={POOL}"} <= set(FULL.pools[4])
    assert [queries.labels / POOL for queries in FULL.queries] == [0.001, 0.005, 0.025, 0.1]
    assert all(any(word == f"active={name}" for word in SELECTORS[name]) for name in SELECTORS if "," not in name)
    assert WIDE in SELECTORS


@pytest.mark.slow
def test_the_quick_form(tmp_path, capsys):
    from simulations import cluster_margin

    cluster_margin.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    found = pl.read_parquet(tmp_path / "results" / "cluster_margin.parquet")
    assert set(found["status"]) == {"finished"}
    assert set(found["labels_used"]) == {20, 40, 60, 80, 160}
    assert "Fewest labels" in capsys.readouterr().out
    assert (tmp_path / "figures" / "cluster_margin.png").stat().st_size > 10_000
