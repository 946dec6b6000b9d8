import json
import math
import shlex
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from fedbatch.config.compose import config_json
from fedbatch.models import bert
from fedbatch.models.flat import FlatModel

STEPS, SIZES = 400, (64, 256, 1024, 4096)


def run(batch, epsilon=8.0, rounds=STEPS, rising="", decay=0.0, seed=0, slope=0.1, tuning=False, length=5.0):
    """A run whose accuracy rises by ``slope`` a step, and whose stream has this length."""
    told = {"batch": batch, "epsilon": epsilon, "rounds": rounds, "rising": rising, "decay": decay, "rate": 0.01}
    told |= {"seed": seed, "tuning": tuning, "loss": 2.0, "stream": length, "norms": 1.0, "rest": 2.0}
    for step in range(rounds // 20, rounds + 1, rounds // 20):
        yield told | {"step": float(step), "examples": float(batch * step), "accuracy": slope * step / 100}


def rows(saved=0.2, gain=3.0, seeds=range(3)):
    """Four times the batch gains 8 points, rising batches save ``saved`` of the examples, decay gains ``gain``."""
    found = []
    for seed in seeds:
        jitter = 1 + 0.001 * seed
        for epsilon in (8.0, math.inf):
            for place, batch in enumerate(SIZES):
                length = 5.0 if math.isinf(epsilon) else 9.0
                found += run(batch, epsilon, seed=seed, slope=(0.05 + 0.02 * place) * jitter, length=length)
        rising = run(1024, rounds=STEPS, rising="constant", seed=seed, slope=0.09 * jitter / (1 - saved))
        found += [*rising, *run(256, rounds=1600, seed=seed, slope=0.02)]
        found += run(1024, decay=0.3, seed=seed, slope=0.09 * jitter + gain / STEPS, length=5.0)
    walked = [row for e, length in ((8.0, 7.0), (math.inf, 3.0)) for row in run(64, e, tuning=True, length=length)]
    return pl.DataFrame([*found, *run(1024, decay=0.3, seed=100, tuning=True), *walked])


def test_scaling_what_is_added_to_the_stream_changes_nothing():
    from simulations.dp_language_data import group

    torch.manual_seed(0)
    model, x = bert((6,), 20, layers=2, heads=2, width=8, tie_weights=False).eval(), torch.randint(0, 20, (5, 6))
    for p in model.parameters():
        torch.nn.init.normal_(p)
    with torch.no_grad():
        before = model(x)
        for scaled in ("stream", "norms", "rest"):
            chosen = [p for name, p in model.named_parameters() if group(name) == scaled]
            for p in chosen:
                p *= 10
            same = torch.allclose(model(x), before, atol=2e-4)
            assert same == (scaled == "stream"), scaled
            for p in chosen:
                p /= 10


def test_lengths_are_those_of_the_named_parameters():
    from simulations.dp_language_data import group, lengths

    model = FlatModel(bert((6,), 20, layers=2, heads=2, width=8, tie_weights=False))
    found = lengths(model.params, model)
    for name in found:
        parts = [p.detach().numpy().ravel() for n, p in model.module.named_parameters() if group(n) == name]
        assert found[name] == pytest.approx(np.linalg.norm(np.concatenate(parts)))
    assert found["norms"] == pytest.approx((5 * 8) ** 0.5)  # gains of one in each of five norms


def test_batches_reach_the_population_and_rising_ones_see_as_many_examples():
    from simulations.dp_language import CLIENTS, FULL, overrides, settings

    def config(setting):
        options = overrides(SimpleNamespace(device="cpu"), FULL, setting, 0.01, 3)
        return json.loads(config_json({"overrides": shlex.join([*options, "run_dir=."])}))

    found = settings(FULL, FULL.epsilons[0])
    for setting in found:
        told = config(setting)
        size, controller = told["client_batch_size"] * CLIENTS, told["controller"]
        seen = size * setting.rounds
        if setting.rising:
            every = controller["every_rounds"]
            seen = size * every + 2 * size * every + 4 * size * (setting.rounds - 2 * every)
            assert told["privacy"]["noise_schedule"] == setting.rising
            assert size * 2 ** controller["times"] == setting.batch and controller["double"] == "batch"
            assert seen == pytest.approx(setting.batch * FULL.rounds, rel=0.005)
        assert told["privacy"]["target_epsilon"] == 8 and told["rounds"] == setting.rounds
        assert told["server_optimizer"]["weight_decay"] == setting.decay
    assert max(s.batch for s in found) == FULL.units == told["dataset"]["units"]
    assert 64 * min(s.batch for s in found) == FULL.units
    equal = {s.batch * s.rounds for s in found if not s.rising and s.rounds != FULL.rounds}
    assert equal == {FULL.batches[-2] * FULL.rounds}
    assert not any(s.rising for s in settings(FULL, math.inf)) and not config(settings(FULL, math.inf)[0])["privacy"]


def test_verdicts_follow_the_rows():
    from simulations.dp_language_report import markdown, needed, ratio

    told = rows()
    found = needed(told.with_columns(accuracy=100 * pl.col("accuracy")), 1024, 8.0, "constant")
    assert found["rising"].to_numpy() == pytest.approx([0.8, 0.8, 0.8], rel=0.01)
    text = markdown(told)
    assert "points better than a 64th: at epsilon 8 holds" in text and "| 8 | 20.0 +- 0.0 | 28.0 +- 0.0 |" in text
    assert "| 24.0 (24.0 to 24.1) | 0.0 (0.0 to 0.0) | 8.0" in text  # as much as without privacy
    assert "| 64 | 0.01 | 7.0 | 3.0 | 1.0 | 1.0 | 2.0 | 2.0 |" in text
    assert "14 % fewer examples: with constant noise multiplier holds" in text
    assert "gains accuracy: holds (decay 0.3" in text and "does: holds (decay 0.3)" in text
    never = rows(saved=-0.2, gain=-3.0)
    text = markdown(never)
    assert "14 % fewer examples: with constant noise multiplier does not hold" in text
    assert "gains accuracy: does not hold" in text and "does: does not hold" in text
    never = never.with_columns(accuracy=100 * pl.col("accuracy"))
    assert ratio(needed(never, 1024, 8.0, "constant"))[0] == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_the_quick_form_runs_every_setting(tmp_path, capsys):
    from simulations import dp_language

    dp_language.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--report", "none"])
    found = pl.read_parquet(tmp_path / "results" / "dp_language.parquet")
    form = dp_language.QUICK
    ends = found.filter(~pl.col("tuning") & (pl.col("step") == pl.col("rounds")))
    assert ends.height == sum(len(dp_language.settings(form, epsilon)) for epsilon in form.epsilons)
    for column in ("accuracy", "examples", "stream", "norms", "rest"):
        assert found[column].is_finite().all()
    whole = ends.filter((pl.col("rising") == "") & (pl.col("batch") == form.units))
    assert (whole["examples"] == form.units * whole["rounds"]).all()
    assert "A rising batch gets as far" in capsys.readouterr().out
    assert (tmp_path / "figures" / "dp_language.png").stat().st_size > 10_000
