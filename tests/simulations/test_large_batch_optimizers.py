import json
import shlex
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from fedbatch.config.compose import config_json

GROWTH = {"AdamW": 0.02, "LAMB": 0.01, "MERIT": 0.005}


def rows(logits=None):
    """Losses that rise by a fixed share at each fourfold of the batch, three seeds and one that tunes."""
    found = []
    for name, growth in GROWTH.items():
        for step, batch in enumerate((8, 32, 128)):
            for seed in (100, 0, 1, 2):
                loss = (2 + 0.1 * seed) * (1 + growth * step) if seed < 100 else 7.0
                row = {"optimizer": name, "batch": batch, "rounds": 10, "tokens": 1000, "rate": 0.01, "seed": seed}
                row |= {"tuning": seed == 100, "status": "finished", "loss": loss, "seconds": 1.0}
                row |= {"evaluated": [5, 10], "logits": [[9.0, 2.0], [3.0, (logits or {}).get(name, 4.0)]]}
                row |= {f"trust_ratio_{which}": 0.5 for which in ("min", "median", "max")}
                tells = batch == 32 and seed < 100
                names = ("told_loss", "told_noise_scale", "told_b_half")
                found.append(row | {told: 20.0 * 2 ** (seed - 1) if tells else None for told in names})
    return pl.DataFrame(found, infer_schema_length=None)


def test_the_largest_batch_within_one_per_cent_is_interpolated_on_its_logarithm():
    from simulations.large_batch_optimizers_report import best, geometric, kept, largest_within

    # 1 % is reached after half a fourfold of AdamW, one of LAMB, and two of MERIT, the end of the grid.
    for name, expected in {"AdamW": 16.0, "LAMB": 32.0, "MERIT": 128.0}.items():
        assert geometric(kept(rows(), name)) == pytest.approx((expected,) * 3, rel=1e-6), name

    def worse(factor):  # AdamW and LAMB stay best at 8
        return rows().with_columns(
            loss=pl.when(pl.col("optimizer") == "MERIT").then(factor * pl.col("loss")).otherwise("loss")
        )

    shifted = worse(1.00746)  # another 0.25 % come after half a fourfold
    assert best(shifted) == "LAMB"
    assert geometric(kept(shifted, "MERIT", "LAMB"))[0] == pytest.approx(16.0, rel=0.01)
    assert np.isnan(kept(worse(1.02), "MERIT", "LAMB")).all()
    falling_then_lost = np.array([2.0, 1.9, np.inf])
    assert largest_within(np.array([1.0, 2.0, 4.0]), falling_then_lost, 2.02) == 2.0


def test_the_verdicts_are_those_of_the_intervals():
    from simulations.large_batch_optimizers_report import claims, differences, largest_logits

    for batch, (mean, low, high) in differences(rows(), "MERIT", "AdamW"):
        step = {8: 0, 32: 1, 128: 2}[batch]
        gaps = np.array([2.0, 2.1, 2.2]) * 0.015 * step
        half = 2.919986 * gaps.std(ddof=1) / 3**0.5  # Student's t of two degrees of freedom at 95 %
        assert (mean, low, high) == pytest.approx((gaps.mean(), gaps.mean() - half, gaps.mean() + half), abs=1e-6)
    answers = [answer for _, answer, _ in claims(rows({"AdamW": 90.0, "LAMB": 80.0}))]
    # MERIT's 128 are 16 times 8. Its layers' logits are at most 9 in either evaluation, the others' 80 and 90.
    assert answers == ["holds"] * 5
    assert largest_logits(rows(), "LAMB", 32).tolist() == [[9.0, 4.0]] * 3  # over training, by layer
    small = [answer for _, answer, _ in claims(rows({"MERIT": 50.0}))]
    assert small[-1] == "does not hold at this scale"


def test_a_failed_run_counts_as_a_loss_without_bound():
    from simulations.large_batch_optimizers_report import kept, markdown

    lost = (pl.col("optimizer") == "LAMB") & (pl.col("batch") == 32) & (pl.col("seed") == 1)
    failed = rows().with_columns(
        loss=pl.when(lost).then(float("nan")).otherwise("loss"),
        status=pl.when(lost).then(pl.lit("failed")).otherwise("status"),
    )
    assert kept(failed, "LAMB")[1] == pytest.approx(8.0)
    assert "1 runs failed" in markdown(failed)


def test_every_run_sees_the_same_tokens_and_its_warm_up_is_a_tenth():
    from simulations.large_batch_optimizers import FULL, OPTIMIZERS, overrides

    for name, batches in FULL.batches.items():
        for batch in batches:
            options = overrides(SimpleNamespace(device="cpu"), FULL, name, batch, 0.01, 0)
            config = json.loads(config_json({"overrides": shlex.join([*options, "run_dir=."])}))
            each = config["cohort_size"] * config["client_batch_size"]
            assert each == batch and config["rounds"] * each == FULL.sequences
            assert config["learning_rate"]["warmup_rounds"] == config["rounds"] // 10
            assert config["server_optimizer"]["betas"] == [0.9, 0.99 if "0.99" in name else 0.95]
            assert (config["noise_scale"]["groups"] > 0) == (batch == FULL.told and name == "AdamW")
    assert set(FULL.batches) == set(OPTIMIZERS)


@pytest.mark.slow
def test_the_quick_form(tmp_path, capsys):
    from simulations import large_batch_optimizers as study

    study.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--report", "none"])
    found = pl.read_parquet(tmp_path / "results" / "large_batch_optimizers.parquet")
    own = found.filter(~pl.col("tuning"))
    assert own.height == sum(map(len, study.QUICK.batches.values()))
    assert (own["status"] == "finished").all() and (own["loss"] < 4.3).all()  # 82 symbols: 4.4 nats at the start
    assert (
        own.filter((pl.col("batch") == study.QUICK.told) & (pl.col("optimizer") == "AdamW"))["told_b_half"]
        .is_finite()
        .all()
    )
    assert "largest batch within 1 %" in capsys.readouterr().out
    assert (tmp_path / "figures" / "large_batch_optimizers.png").stat().st_size > 10_000
