import json
import math
from pathlib import Path

import polars as pl
import pytest

from fedbatch.privacy import epsilon
from simulations import dp_accuracy as study
from simulations import dp_accuracy_report as report
from simulations.dp_accuracy_cells import ADAM, CLIPPED, FREE, FULL, QUICK, lines

DOCS = Path(__file__).parents[2] / "docs"


def given(cell):
    return dict(o.lstrip("+").split("=", 1) for o in cell.overrides if "=" in o)


def test_the_grid_has_every_batch_at_every_level_and_as_many_examples_as_it_says():
    grid = [cell for line in lines(FULL) for cell in line if cell.part == "grid"]
    assert {(c.batch, c.level) for c in grid} == {(b, e) for b in FULL.batches for e in FULL.levels}
    assert len(grid) == len(FULL.batches) * len(FULL.levels)
    for cell in grid:
        options = given(cell)
        assert int(options["cohort_size"]) * int(options["client_batch_size"]) == cell.batch
        assert (options["dataset.start"], options["dataset.stop"]) == ("0", "60000")


def test_levels_are_what_they_are_called():
    by_level = {cell.level: given(cell) for line in lines(FULL) for cell in line if cell.part == "grid"}
    assert by_level["0.5"]["privacy.target_epsilon"] == "0.5" and "privacy.noise_multiplier" not in by_level["0.5"]
    assert by_level[CLIPPED]["privacy"] == "example_central" and by_level[CLIPPED]["privacy.noise_multiplier"] == "0"
    assert by_level[FREE]["privacy"] == "none" and by_level[FREE]["server_optimizer"] == "sgd"
    assert by_level[ADAM]["privacy"] == "none" and by_level[ADAM]["server_optimizer"] == "adam"


def test_the_warm_start_trains_privately_on_none_of_the_public_examples():
    cells = {cell.name: cell for line in lines(FULL) for cell in line if cell.part == "warm start"}
    public, warm, cold = (
        cells["public examples alone"],
        cells["from the public model"],
        cells["from nothing"],
    )
    assert warm.public == public and cold.public is None and warm.overrides == cold.overrides
    assert int(given(public)["dataset.stop"]) <= int(given(warm)["dataset.start"])
    assert public.level == FREE and warm.level != FREE


def test_clients_have_as_many_examples_at_every_population():
    cells = [cell for line in lines(FULL) for cell in line if cell.part in ("clients", "client level")]
    assert {int(given(c)["dataset.stop"]) // int(given(c)["population"]) for c in cells} == {FULL.each}


def test_every_cell_is_tuned_with_a_seed_that_is_not_reported_and_its_trials_are_counted(monkeypatch, tmp_path):
    asked = []

    def run(runs, cell, rate, seed):
        asked.append((rate, seed))
        return tmp_path / str(rate)

    monkeypatch.setattr(study, "run", run)
    monkeypatch.setattr(study, "final", lambda folder, column: 1 - abs(math.log2(float(folder.name)) - 3))
    monkeypatch.setattr(study, "status", lambda folder: "finished")
    monkeypatch.setattr(study, "spent", lambda folder, cell, trials: {})
    first = lines(QUICK)[0]
    rows = study.measure(tmp_path, first)
    # The best rate is 8; the first cell starts at 2: 2, 4, 1, then 8, then 16. The second starts where the first ended.
    assert {row["rate"] for row in rows} == {8.0}
    assert [row["trials"] for row in rows] == [5, 5, 3, 3]
    assert {rate for rate, seed in asked if seed in QUICK.seeds} == {8.0}
    assert {seed for _, seed in asked} == {*QUICK.seeds, study.TUNING_SEED} and study.TUNING_SEED not in QUICK.seeds


def test_trials_and_the_run_are_composed(tmp_path):
    schedule = [{"sample_rate": 0.1, "noise_multiplier": 1.5, "steps": 20}]
    told = {"schedule": schedule, "delta": 1e-5, "epsilon": 2.0}
    (tmp_path / "summary.json").write_text(json.dumps({"status": "finished", "privacy": told}))
    private = next(cell for line in lines(QUICK) for cell in line if cell.level == "2")
    row = study.spent(tmp_path, private, 3)
    assert row["epsilon_with_trials"] == epsilon([(0.1, 1.5, 80)], 1e-5) > epsilon([(0.1, 1.5, 20)], 1e-5)
    free = next(cell for line in lines(QUICK) for cell in line if cell.level == FREE)
    assert set(study.spent(tmp_path, free, 3).values()) == {None}


def clients(accuracies, free=0.8):
    rows = [
        {"part": "clients", "level": "8", "batch": p, "rounds": 100, "accuracy": a + shift, "rate": 0.5}
        for p, a in accuracies.items()
        for shift in (-0.01, 0.01)
    ]
    reference = {"part": "clients", "level": FREE, "batch": 250, "rounds": 100, "accuracy": free, "rate": 1.0}
    # Of the references the best counts, that of Adam here.
    best = {**reference, "level": ADAM, "rate": 0.004}
    return pl.DataFrame([*rows, {**reference, "accuracy": free - 0.1}, best])


def test_the_population_is_extrapolated_in_its_logarithm():
    # Two points a doubling: from 71 % at 2,000 the goal of 79 % is four doublings away.
    found = clients({500: 0.60, 1000: 0.69, 2000: 0.71})
    assert report.enough_clients(found) == pytest.approx(32_000)
    assert study.check(FULL, found).batch == 4000, "no more than the data make"
    # Between two that were run it is interpolated: 79 % lies half-way from 77 to 81 %.
    found = clients({500: 0.75, 1000: 0.77, 2000: 0.81})
    assert report.enough_clients(found) == pytest.approx(1000 * math.sqrt(2))
    assert study.check(FULL, found).batch == 1420
    assert report.enough_clients(clients({500: 0.7, 1000: 0.7})) == math.inf


def test_the_report_shows_intervals_failures_and_the_cost_of_trials(tmp_path):
    common = {"name": "example_central", "rounds": 200, "rate": 2.0, "trials": 3, "status": "finished"}
    rows = []
    for batch in (128, 512):
        for level in ("1", "8", CLIPPED, FREE, ADAM):
            private = level in ("1", "8")
            cost = {"noise_multiplier": 1.5 if private else None, "epsilon_with_trials": 4.2 if private else None}
            for seed, accuracy in enumerate((0.70, 0.80, 0.90)):
                row = {**common, **cost, "part": "grid", "level": level, "batch": batch, "seed": seed}
                rows.append({**row, "accuracy": accuracy})
    rows.append({**rows[-1], "level": FREE, "status": "failed", "accuracy": math.nan})
    table = pl.DataFrame(rows, infer_schema_length=None)
    # Standard error 10 / sqrt(3), times 4.303, the 97.5 % point of t with two degrees of freedom: 24.8.
    assert "| 128 | 80.0 +- 24.8 | 80.0 +- 24.8 | 80.0 +- 24.8 | 80.0 +- 24.8 | 80.0 +- 24.8 |" in report.grid_table(
        table
    )
    text = report.part_table(table)
    assert "| example_central | 1 | 128 | 200 | 80.0 +- 24.8 | 1.5 | 2 | 3 | 4.20 |" in text
    assert "| example_central | not private | 512 | 200 | 80.0 +- 24.8 (1 failed) | - | 2 | 3 | - |" in text
    report.save_figure(table, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def found():
    return pl.read_parquet(DOCS / "results" / "dp_accuracy.parquet")


@pytest.fixture(scope="module")
def page():
    return " ".join((DOCS / "privacy_study.md").read_text().split())


def shown(found, **where):
    rows = found.filter(pl.col(name) == value for name, value in where.items())
    assert rows.select("name", "level", "batch", "rounds").unique().height == 1
    return report.spread(rows).replace("+-", "±")


def test_the_tables_are_those_of_the_rows(found):
    assert (DOCS / "results" / "dp_accuracy.md").read_text() == report.markdown(found)
    assert report.grid_table(found).replace("+-", "±") in (DOCS / "privacy_study.md").read_text()


def test_the_page_quotes_rounds_mechanisms_and_the_public_start(found, page):
    for rounds in (50, 200, 800):
        part = "grid" if rounds == 200 else "rounds"
        cells = [shown(found, part=part, level=e, batch=2048, rounds=rounds) for e in ("2", ADAM)]
        assert f"| {rounds} | {cells[0]} | {cells[1]} |" in page
    for name in ("example_central", "example_ftrl", "example_local"):
        part = "grid" if name == "example_central" else "mechanism"
        cells = [shown(found, part=part, name=name, level=e, batch=2048) for e in ("1", "8")]
        assert f"| {cells[0]} | {cells[1]} |" in page
    for name in ("from the public model", "from nothing", "public examples alone"):
        assert shown(found, part="warm start", name=name) + " %" in page


def test_the_page_quotes_what_privacy_costs_in_clients(found, page):
    for part in ("clients", "clients, SGD"):
        cells = [shown(found, part=part, level="8", batch=count) for count in FULL.populations]
        assert f"| {' | '.join(cells)} |" in page
    for cohort in FULL.cohorts:
        names = ("client_central", "client_ftrl") if cohort < 1000 else ("client_central",)
        cells = [shown(found, part="client level", name=n, level=e, batch=cohort) for n in names for e in ("1", "8")]
        assert f"| {cohort:,} | {' | '.join(cells)} |" in page
    assert f"puts it at {report.enough_clients(found):,.0f}," in page
    assert f"below the reference is {100 * report.clients_goal(found):.1f} %" in page
    assert f"1,310 clients gives {shown(found, part='clients, check', batch=1310)} %" in page


def test_the_page_quotes_what_tuning_costs(found, page):
    largest = found.filter(pl.col("part") == "grid", pl.col("batch") == 8192, pl.col("epsilon").is_not_null())
    costs = largest.group_by("level", maintain_order=True).agg(pl.col("epsilon_with_trials").first())
    assert "| " + " | ".join(f"{cost:.2f}" for cost in costs["epsilon_with_trials"]) + " |" in page
    assert (found["trials"].min(), found["trials"].max()) == (3, 5)
    assert found.filter(pl.col("part") == "grid")["seed"].n_unique() == 3


@pytest.mark.slow
def test_the_quick_form_runs(tmp_path):
    study.main(["--quick", "--out", str(tmp_path)])
    table = pl.read_parquet(tmp_path / "results" / "dp_accuracy.parquet")
    assert set(table["status"]) == {"finished"}
    private = table.filter(pl.col("epsilon").is_not_null())
    assert (private["epsilon"] <= private["level"].cast(pl.Float64)).all()
    assert (private["epsilon_with_trials"] > private["epsilon"]).all()
