"""``fedbatch audit``: below the claim of every mechanism as it is, above it when all noise is ten times too weak."""

import numpy as np
import pytest

from fedbatch.auditing.attack import audit
from fedbatch.cli.audit import lines
from fedbatch.cli.commands import run_command
from fedbatch.core.errors import ConfigError
from fedbatch.privacy import epsilon
from fedbatch.privacy.randomness import Randomness

TASK = ("dataset=digits", "model.width=4", "rounds=6", "privacy.target_epsilon=4")
LOCAL = ("client_work=local_sgd", "client_work.epochs=null", "client_work.steps=2")
KINDS = {
    "client_central": ("privacy=client_central", "population=20", "cohort_size=10"),
    "client_central-adaptive_clip": (
        "privacy=client_central",
        "population=20",
        "privacy.clip_quantile=0.7",
        "privacy.count_noise=9",
    ),
    "client_central-local_sgd": ("privacy=client_central", "population=20", *LOCAL),
    "client_central-filter": (
        "privacy=client_central",
        "population=20",
        "cohort_size=10",
        "controller=adaptive",
        "controller.max_cohort_size=20",
    ),
    "example_local": ("privacy=example_local", "population=20", "cohort_size=5"),
    "example_local-local_sgd": ("privacy=example_local", "population=20", *LOCAL),
    "client_central-bands": ("privacy=client_central", "population=20", "cohort_size=5", "privacy.bands=2"),
    "example_central": ("privacy=example_central", "population=20"),
    "example_central-bands": ("privacy=example_central", "population=20", "client_batch_size=8", "privacy.bands=3"),
    "example_distributed": ("privacy=example_distributed", "population=20", "privacy.min_clients=4"),
    "example_local-adaptive_clip": (
        "privacy=example_local",
        "population=20",
        "privacy.clip_quantile=0.7",
        "privacy.target_epsilon=2",
    ),
    "example_distributed-integers": (
        "privacy=example_distributed",
        "population=20",
        "privacy.min_clients=4",
        "privacy.quantum=0.001",
        "privacy.target_epsilon=2",
    ),
}


@pytest.fixture
def weaken(monkeypatch):
    """Make all noise weaker by a factor, behind the accountant's back."""
    original, integers = Randomness.normal, Randomness.skellam

    def weaken(factor):
        monkeypatch.setattr(Randomness, "normal", lambda self, n, *what, **on: original(self, n, *what, **on) / factor)
        monkeypatch.setattr(Randomness, "skellam", lambda *what: np.round(integers(*what) / factor))

    return weaken


def test_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        run_command(
            "audit", *TASK, "privacy=client_central", "population=20", "privacy.target_epsilon=1", "--canaries", "200"
        )
        == 0
    )
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("audit: 200 clients that are canaries, each there by a coin; q 1, noise ")
    assert "claim        epsilon 1 at delta 1e-05" in said[1] and "guesses      " in said[2]
    assert said[4].startswith("Nothing was found against the claim") and said[5].endswith("it would have been caught.")
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


def test_the_claim_is_that_of_the_audited_schedule():
    audited = audit(
        *TASK,
        *KINDS["client_central"],
        "privacy.noise_multiplier=2",
        "privacy.target_epsilon=null",
        number=100,
        control=False,
    ).audit
    assert audited.schedule == ((0.5, 2.0, 6),)
    assert audited.claim == pytest.approx(epsilon([(0.5, 2.0, 6)], audited.delta))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "the run has no mechanism; set privacy"),
        (("privacy=client_central", "--canaries", "5"), "--canaries: give a number from 20 to 10,000 (got '5')"),
        (("privacy=client_central", "--canary=5"), "--canary=5 is not an option"),
        (("privacy=client_central", "rounds=0"), "rounds"),
    ],
)
def test_refusals_are_one_line(tmp_path, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert run_command("audit", *arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("fedbatch: audit: ") and line in said[0]


def test_objects_may_be_given():
    with pytest.raises(ConfigError, match="no mechanism"):
        audit("dataset=digits", rounds=3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_claim_is_refuted_and_a_tenth_of_the_noise_is(kind):
    found = audit(*TASK, *KINDS[kind])
    assert 0 <= found.audit.bound < found.audit.claim and not found.audit.refuted, lines(found)
    assert found.control.refuted and found.control.bound > found.audit.claim, lines(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["client_central", "client_central-bands", "example_distributed"])
def test_noise_that_is_too_weak_by_mistake_is_caught(kind, weaken):
    weaken(10.0)
    found = audit(*TASK, *KINDS[kind], control=False)
    assert found.audit.refuted and "The claim is refuted" in lines(found)[4]


@pytest.mark.slow
def test_a_refuted_claim_is_an_exit_status(weaken, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weaken(10.0)
    with pytest.raises(SystemExit) as end:
        run_command("audit", *TASK, *KINDS["client_central"], "--no-control")
    assert end.value.code == 1 and "The claim is refuted" in capsys.readouterr().out
