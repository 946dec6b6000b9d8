"""Named test sets: each score is that of plain torch on the examples of that set, and nothing else changes."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedbatch.core.errors import ConfigError
from fedbatch.data import Dataset, digits
from tests.conftest import run

HERE = "tests.setup.test_evaluation_sets"


def night() -> Dataset:
    """Digits with half of the light."""
    day = digits()
    return Dataset("night", day.train_x, day.train_y, day.test_x[:100] - 0.5, day.test_y[:100], 10)


def wide() -> Dataset:
    """Digits of another size."""
    x, y = np.zeros((20, 1, 9, 9), np.float32), np.arange(20) % 10
    return Dataset("wide", x, y, x, y, 10)


def test_scores_are_those_of_torch_and_training_is_as_without(make_config):
    options = "controller=fixed", "rounds=4", "evaluate_every_rounds=2"
    config = make_config(*options, f"+evaluate_on.night._target_={HERE}.night")
    rows, _, state = run(config)
    plain = run(make_config(*options, folder="plain"))
    assert torch.equal(state.params, plain[2].params)
    import fedbatch

    model, data = fedbatch.load_model(config.run_dir, trust=[HERE]), night()
    logits = model(torch.from_numpy(data.test_x))
    labels = torch.from_numpy(data.test_y)
    assert rows[-1]["test_night_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert rows[-1]["test_night_accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert rows[-1]["test_night_loss"] != rows[-1]["test_loss"] == plain[0][-1]["test_loss"]
    assert "test_night_loss" not in rows[0]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (f"+evaluate_on.wide._target_={HERE}.wide", r"evaluate_on.wide: dataset: wide has inputs \(1, 9, 9\)"),
        (f"+evaluate_on.accuracy._target_={HERE}.night", "evaluate_on.accuracy: give it a name"),
        ("+evaluate_on.gone._target_=nowhere.at_all", "evaluate_on.gone: dataset._target_=nowhere.at_all cannot be"),
    ],
)
def test_what_does_not_fit_is_named(make_config, override, said):
    with pytest.raises(ConfigError, match=said):
        run(make_config(override, "controller=fixed", "rounds=1"))
