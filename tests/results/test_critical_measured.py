"""What one run predicts against what runs at other batches then need, on the default data and model."""

import math
from pathlib import Path

import pytest

import fedbatch
from fedbatch.results.critical_points import points
from tests.conftest import run

GOALS = (0.8, 0.6, 0.5)
BEST = {16: (1, 0.05, 800), 64: (4, 0.1, 320), 256: (16, 0.2, 200), 1024: (64, 0.2, 160)}
"""Examples of a client, the best learning rate on a grid of factor two (docs/critical.md), and rounds."""


@pytest.fixture
def trained(make_config):
    def folder(each, lr, rounds):
        evaluated = ("training_set_examples=2000", "evaluate_every_rounds=4", "controller=fixed")
        sizes = (f"client_batch_size={each}", f"server_optimizer.lr={lr}", f"rounds={rounds}")
        config = make_config(*sizes, *evaluated, base=(), folder=f"{each}_{lr}")
        run(config)
        return Path(config.run_dir)

    return folder


@pytest.mark.slow
def test_one_run_predicts_the_others_and_a_wrong_rate_is_said(trained):
    folders = {batch: trained(*shape) for batch, shape in BEST.items()}
    errors = []
    for predictor in (16, 64):
        found = fedbatch.critical(folders[predictor], GOALS)
        assert not any("learning rate" in doubt for doubt in found.doubts)
        for point in points(found, [folders[batch] for batch in BEST if batch != predictor]):
            errors += [math.log(told / was) for told, was in zip(point.predicted, point.rounds, strict=True)]
    assert len(errors) == 18 and max(map(abs, errors)) < math.log(1.5)
    assert math.exp(math.sqrt(sum(e * e for e in errors) / 18)) < 1.25

    wrong = fedbatch.critical(trained(1, 0.2, 700), [0.8])
    assert "learning rate is probably too high" in wrong.doubts[0]
    assert wrong.predict(1024).rounds > 2 * points(wrong, [folders[1024]])[0].rounds[0]
