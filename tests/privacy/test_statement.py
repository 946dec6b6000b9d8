"""What a run says of its privacy: exact words, one accountant, and what was spent by a run that breaks off."""

import json
import math
from pathlib import Path

import dp_accounting
import dp_accounting.pld
import pytest

from fedbatch import client_app
from fedbatch.core.errors import RunFailedError
from fedbatch.node import private as node_private
from fedbatch.privacy import epsilon
from fedbatch.privacy.accounting import worst_epsilon
from fedbatch.privacy.plan import default_delta
from fedbatch.privacy.statement import headline
from fedbatch.results.table import phase_table
from tests.conftest import run

FIXED = ("controller=fixed", "executor=fused", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0")


def reference(phases, delta):
    """By the library's own accountant, which our quicker sum of the same distributions must meet."""
    accountant = dp_accounting.pld.PLDAccountant()
    for q, sigma, steps in phases:
        step = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
        accountant.compose(step, steps)
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize("phases", [[(0.2, 1.0, 7)], [(0.01, 0.8, 300), (0.05, 1.5, 20)], [(1.0, 4.0, 3)]])
def test_epsilon_is_the_librarys(phases):
    assert epsilon(phases, 1e-5) == pytest.approx(reference(phases, 1e-5), rel=1e-7)


@pytest.mark.parametrize("mechanism", ["client_central", "example_local"])
def test_curve_table_and_guarantee_are_of_one_accountant(make_config, mechanism):
    rows, summary, _ = run(make_config(f"privacy={mechanism}", *FIXED, "rounds=4", "evaluate_every_rounds=2"))
    guarantee = summary["privacy"]
    phases = [(p["sample_rate"], p["noise_multiplier"], p["steps"]) for p in guarantee["schedule"]]
    expected = reference(phases, guarantee["delta"])
    assert summary["epsilon"] == guarantee["epsilon"] == rows[-1]["epsilon"] == pytest.approx(expected, rel=1e-7)
    assert [math.isnan(row["epsilon"]) for row in rows] == [True, False, True, False], "with the evaluation"
    assert rows[1]["epsilon"] <= rows[3]["epsilon"] < rows[3]["epsilon_rdp"]
    column = phase_table(rows).columns[-1]
    assert column.header == "epsilon" and list(column.cells) == [f"{expected:.3g}"]


def test_the_words_say_what_is_implemented(make_config):
    _, summary, _ = run(make_config("privacy=example_local", *FIXED, "rounds=1"))
    words = headline(summary["privacy"])
    assert "one example's contribution there or zeroed out" in words and "is public and the same in both" in words
    assert "honest but curious" in words and "nodes keep a budget of their own only where" in words
    for part in ("test split", "stopping or choosing", "standardisation", "lists of classes", "hold out", "trials"):
        assert part in words, part
    assert "beside this one" not in words, "there is no other run"


def test_runs_beside_are_counted(make_config):
    for folder in ("one", "two", "three"):
        _, summary, _ = run(make_config("privacy=client_central", *FIXED, "rounds=1", folder=folder))
    assert "(2 private runs lie beside this one or were overwritten; fedbatch spent" in headline(summary["privacy"])


@pytest.mark.parametrize("privacy", ["client_central", "example_local"])
def test_delta_is_small_by_default_and_a_large_one_is_said(make_config, privacy):
    _, summary, _ = run(make_config(f"privacy={privacy}", *FIXED, "rounds=1"))
    assert summary["privacy"]["delta"] == 1e-5 < 0.1 / 1438
    delta = 0.02 if privacy == "client_central" else 5e-4
    large = run(make_config(f"privacy={privacy}", *FIXED, f"privacy.delta={delta}", "rounds=1", folder="large"))[1]
    assert f"with probability delta = {delta:g}, large for" in headline(large["privacy"])
    assert "probability delta" not in headline(summary["privacy"])


def test_delta_is_a_tenth_of_one_over_many_units():
    assert [default_delta(units) for units in (100, 10**4, 10**6)] == pytest.approx([1e-5, 1e-5, 1e-7])


def test_the_costliest_account_is_stated():
    cheap, dear = [(0.1, 1.0, 5)], [(0.1, 1.0, 9)]
    expected = reference(dear, 1e-5)
    assert worst_epsilon([cheap, dear], 1e-5, "pld") == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("own", [False, True])
def test_the_seed_and_the_generator_are_named_where_they_matter(make_config, tmp_path, own):
    secret = (f"privacy.secret_file={tmp_path / 'secret'}", "privacy.generator=chacha20") if own else ()
    _, summary, _ = run(make_config("privacy=client_central", *FIXED, *secret, "rounds=1"))
    words = headline(summary["privacy"])
    assert ("whoever knows the seed" in words) == ("not cryptographic" in words) == (not own)
    assert (words.splitlines()[1].startswith("  noise follows from the seed")) == (not own), "the second line"


def test_a_client_that_knows_its_own_share_is_named_unless_it_is_counted(make_config):
    shared = ("privacy=example_distributed", *FIXED, "rounds=1", "cohort_size=20", "privacy.min_clients=10")
    for colluders, named in ((0, True), (2, False)):
        _, summary, _ = run(make_config(*shared, f"privacy.colluders={colluders}", folder=str(colluders)))
        assert ("take its own share of the noise away" in headline(summary["privacy"])) == named


@pytest.mark.parametrize("end", [RuntimeError("power cut"), KeyboardInterrupt()])
def test_a_run_that_breaks_off_says_what_was_spent(make_config, monkeypatch, end):
    config = make_config("privacy=example_local", *FIXED, "rounds=4", "cohort_size=20")
    original = node_private.train_private

    def breaks(plan, run_, privacy):
        if plan.round == 2:
            raise end
        return original(plan, run_, privacy)

    monkeypatch.setattr(client_app, "train_private", breaks)
    with pytest.raises((RunFailedError, KeyboardInterrupt)):
        run(config)
    summary = json.loads((Path(config.run_dir) / "summary.json").read_text())
    (spent,) = summary["privacy"]["schedule"]
    assert summary["status"] in ("failed", "interrupted") and spent["steps"] == 3, "the third was sent"
    q, delta = spent["sample_rate"], summary["privacy"]["delta"]
    assert summary["epsilon"] == pytest.approx(reference([(q, 1.0, 3)], delta), rel=1e-7)
