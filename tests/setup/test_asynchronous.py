"""What asynchronous rounds refuse, each in one line with the remedy."""

from dataclasses import replace

import pytest

from fedbatch.core.errors import ConfigError
from tests.conftest import run

FEDBUFF = ("asynchronous=fedbuff", "controller=fixed")


def minus(staleness):
    return -1.0 - staleness


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("privacy=client_central",), "asynchronous: the accountant"),
        (("aggregator=median",), "asynchronous: stale updates"),
        (("sampler=weighted",), "asynchronous: clients at work"),
        (("sampling=all",), "asynchronous: clients at work"),
        (("availability=markov",), "asynchronous: who is done first"),
        (("deadline_seconds=1",), "asynchronous: who is done first"),
        (("over_selection=1.5",), "asynchronous: who is done first"),
        (("active=random",), "asynchronous: queries"),
        (("faults=some",), "faults: nodes"),
        (("noise_scale.groups=4",), "noise_scale.groups: "),
        (("client_work=scaffold",), "client_work: Scaffold"),
        (("client_work=ditto",), "client_work: Ditto"),
        (("compression=top_k", "compression.error_feedback=true"), "compression.error_feedback: "),
        (("asynchronous.concurrency=5.2",), "asynchronous.concurrency: 21 clients .* lower it to 5 at most"),
        (
            (
                *("controller=schedule", "controller.phases.large.cohort_size=6", "controller.phases.large.lr=0.1"),
                "controller.phases.large.client_work={_target_:fedbatch.clients.FedSGD}",
            ),
            "controller.large.client_work: ",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_would_be_wrong_is_refused(make_config, options, line):
    with pytest.raises(ConfigError, match=line) as refused:
        run(make_config(*FEDBUFF, *options))
    assert "\n" not in str(refused.value)


def test_factors_that_are_not_positive_are_refused(make_config):
    config = make_config(*FEDBUFF)
    own = {"_target_": "hydra.utils.get_method", "path": f"{__name__}.minus"}
    with pytest.raises(ConfigError, match="asynchronous.staleness: function must give a positive number"):
        run(replace(config, asynchronous=config.asynchronous | {"staleness": own}))
