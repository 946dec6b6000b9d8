import json
import shlex
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from fedbatch.config.compose import config_json


def rows(critical=40.0, told=60.0):
    """Runs by the law R = R_min (1 + M_crit (1/M - 1/N)), three seeds, one that tunes."""
    found = []
    for seed in (100, 0, 1, 2):
        for cohort in (4, 16, 64, 256):
            steps = 20 * (1 + critical * (1 / cohort - 1 / 1000)) * (1 if seed < 100 else 7)
            row = {"method": "FedSGD", "partition": "IID", "cohort": cohort, "population": 1000.0, "seed": seed}
            row |= {"tuning": seed == 100, "steps": steps, "local_lr": None, "goal": 0.6}
            found.append(row | {"told": told * 2.0 ** (seed - 1) if cohort == 16 and seed < 100 else float("nan")})
    return pl.DataFrame(found, infer_schema_length=None)


def test_the_law_gives_its_critical_cohort():
    from simulations.critical_cohort_report import fit, markdown, speedup, told

    found = fit(rows())
    assert (found.b_crit, found.s_min) == (pytest.approx(40, rel=1e-5), pytest.approx(20, rel=1e-5))
    assert told(rows())[0] == pytest.approx(60)  # the geometric mean of 30, 60 and 120
    expected = (1 + 40 * (1 / 4 - 1 / 1000)) / (1 + 40 * (1 / 256 - 1 / 1000))
    assert speedup(rows())[0] == pytest.approx(expected)
    assert "rms factor 1.50, within 2 in 1 of 1" in markdown(rows())


def test_a_cohort_of_which_a_seed_did_not_arrive_is_left_out():
    from simulations.critical_cohort_report import fit

    late = (pl.col("cohort") == 4) & (pl.col("seed") == 1)
    lost = rows().with_columns(steps=pl.when(late).then(float("nan")).otherwise(pl.col("steps")))
    wrong = lost.with_columns(steps=pl.when(pl.col("cohort") == 4).then(9 * pl.col("steps")).otherwise(pl.col("steps")))
    assert fit(wrong).b_crit == pytest.approx(40, rel=1e-5)


def test_every_method_takes_as_many_examples_of_a_client():
    from simulations.critical_cohort import BATCH, FULL, METHODS, PARTITIONS, overrides

    for name, method in METHODS.items():
        for split in PARTITIONS:
            options = overrides(SimpleNamespace(device="cpu"), FULL, method, split, method.local, 64, 0.5, 3)
            config = json.loads(config_json({"overrides": shlex.join([*options, "run_dir=."])}))
            steps = config["client_work"].get("steps") or 1
            assert config["client_batch_size"] * steps == BATCH, name
            assert not config["client_work"].get("epochs"), name
            assert (config["cohort_size"], config["seed"], config["server_optimizer"]["lr"]) == (64, 3, 0.5)


@pytest.mark.slow
def test_the_quick_form(tmp_path, capsys):
    from simulations import critical_cohort

    critical_cohort.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    found = pl.read_parquet(tmp_path / "results" / "critical_cohort.parquet")
    own = found.filter(~pl.col("tuning"))
    assert own["steps"].is_finite().all()
    assert np.isfinite(own["told"].to_numpy()).sum() >= 2
    assert "M_crit, one run" in capsys.readouterr().out
    assert (tmp_path / "figures" / "critical_cohort.png").stat().st_size > 10_000
