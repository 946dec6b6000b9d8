import math

import numpy as np
import pytest

from fedbatch.controllers import seesaw
from tests.controllers.played import played

ARGUMENTS = {
    "cohort_size": 16,
    "client_batch_size": 4,
    "rounds": 600,
    "lr": 0.1,
    "rate_factor": 1.0,
    "decay": "cosine",
    "decay_share": 0.2,
    "times": 2,
    "double": "cohort",
}


@pytest.mark.parametrize(
    ("decay", "rate"),
    [
        ("cosine", lambda s: 0.5 * (1 + np.cos(math.pi * s))),
        ("linear", lambda s: 1 - s),
        ("wsd", lambda s: np.minimum(1, (1 - s) / 0.2)),
    ],
)
def test_batches_double_at_the_examples_at_which_the_decay_halves_the_rate(decay, rate):
    sizes = np.array(played(seesaw(**{**ARGUMENTS, "decay": decay}), 600))
    share = np.cumsum(sizes) / sizes.sum()
    for batch, factor in ((64, 0.5), (128, 0.25)):
        cut = share[sizes == batch][-1]
        assert float(rate(cut)) == pytest.approx(factor, abs=0.02 if decay != "wsd" else 0.05)
    assert set(sizes) == {64, 128, 256}


def test_noise_falls_as_under_the_decay_for_sgd_and_for_adam():
    """Rate over batch for SGD, rate over its root for normalised steps (lemma of the source), halve at each cut."""
    for factor, power in ((1.0, 1.0), (2**-0.5, 0.5)):
        schedule = seesaw(**{**ARGUMENTS, "rate_factor": factor})
        lr, batch = np.array(played(schedule, 600, by="lr")), np.array(played(schedule, 600))
        kinds = sorted(set(zip(batch.tolist(), lr.tolist(), strict=True)))
        noise = [rate / size**power for size, rate in kinds]
        steps = np.array(noise[:-1]) / np.array(noise[1:])
        assert steps == pytest.approx([2.0, 2.0])


def test_the_client_batch_doubles_too():
    sizes = {(p.cohort_size, p.client_batch_size) for p in seesaw(**{**ARGUMENTS, "double": "batch"}).phases}
    assert sizes == {(16, 4), (16, 8), (16, 16)}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rate_factor": 0.0}, "controller.rate_factor"),
        ({"rate_factor": 2.0}, "controller.rate_factor"),
        ({"times": 0}, "controller.times must be at least 1"),
        ({"times": 30}, r"controller.times \(30\) is too many doublings for 600 rounds"),
        ({"decay": "none"}, "controller.decay must be cosine, linear or wsd"),
        ({"decay": "steps"}, "controller.decay must be"),
        ({"client_batch_size": None, "double": "batch"}, "double must be cohort or batch"),
    ],
)
def test_what_cannot_work_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        seesaw(**{**ARGUMENTS, **kwargs})
