"""The budget is a cap: no release is made whose ledger would pass target_epsilon, whatever the controller."""

import logging
import shutil
from pathlib import Path

import pytest

from fedbatch.privacy import epsilon, ledger
from fedbatch.privacy.ledger import LedgerEntry
from fedbatch.privacy.plan import is_part
from fedbatch.privacy.statement import headline
from fedbatch.server.charging import how_computed
from fedbatch.setup import task
from tests.conftest import run
from tests.privacy.test_private_temperature import start

TARGET, SIGMA, ROUNDS, DELTA = 2.0, 2.0, 6, 1e-5
COMMON = (
    "controller=fixed",
    f"privacy.noise_multiplier={SIGMA}",
    f"privacy.target_epsilon={TARGET}",
    f"rounds={ROUNDS}",
)
TERMS = (*COMMON, f"privacy.delta={DELTA}", "checkpoint_every_rounds=1", "evaluate_every_rounds=0", "model=logistic")


def broken_off(make_config, mechanism, *overrides, at=2, lost=4):
    """A run that was killed after ``lost`` rounds, with the last checkpoint at round ``at``."""
    config = make_config(f"privacy={mechanism}", *TERMS, *overrides, f"rounds={at}")
    run(config)
    folder = Path(config.run_dir)
    saved = folder.with_name("saved")
    shutil.copytree(folder / "checkpoints", saved)
    run(make_config(f"privacy={mechanism}", *TERMS, *overrides, f"rounds={lost}", f"resume={folder}"))
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(saved, folder / "checkpoints")
    return folder


def spent(folder, client=None):
    """Epsilon of what is in the file, computed here: every line once, for one account."""
    lines = set(ledger.read(folder / ledger.FILE))
    own = [r for r in lines if client is None or client in r.clients]
    return epsilon([(own[0].sample_rate, SIGMA, sum(r.steps for r in own))], DELTA)


@pytest.mark.parametrize("mechanism", ["client_central", "example_local"])
@pytest.mark.parametrize("change", ["executor=vmap", "nodes=2", "threads=2"])
def test_resuming_on_other_terms_says_what_it_costs_and_stops_at_the_target(make_config, caplog, mechanism, change):
    everybody = ("cohort_size=20",) if mechanism == "example_local" else ()
    target = bound(make_config, mechanism)
    tight = (f"privacy.target_epsilon={target}", "executor=fused", *everybody)
    folder = broken_off(make_config, mechanism, *tight)
    client, q = 0 if everybody else None, ledger.read(folder / ledger.FILE)[0].sample_rate
    with caplog.at_level(logging.INFO, "fedbatch"):
        last = run(make_config(f"privacy={mechanism}", *TERMS, *tight, change, f"resume={folder}"))
    told = [r.getMessage() for r in caplog.records]
    assert any("charged again" in t and "executor=fused nodes=1" in t and "epsilon" in t for t in told)
    (whole,) = [t for t in told if t.startswith("resume: ")]
    before, after = (epsilon([(q, SIGMA, steps)], DELTA) for steps in (4, 6))
    assert "rounds 2-3 were released before with executor=fused nodes=1" in whole
    assert f"epsilon {before:.4g} becomes {after:.4g} of {target:g}" in whole
    assert any("would pass the privacy budget" in t for t in told)
    assert last[1]["epsilon"] == pytest.approx(spent(folder, client)) and spent(folder, client) <= target * (1 + 1e-6)
    assert last[1]["rounds"] == ROUNDS - 2, "two rounds were paid for twice"


def test_where_nothing_is_left_it_says_how_to_go_on_for_nothing(make_config, caplog):
    target = f"privacy.target_epsilon={bound(make_config, 'client_central')}"
    folder = broken_off(make_config, "client_central", target, "executor=fused", lost=ROUNDS)
    same = ("privacy=client_central", *TERMS, target, f"resume={folder}")
    with caplog.at_level(logging.INFO, "fedbatch"):
        assert run(make_config(*same, "executor=vmap"))[1]["rounds"] == 2
    assert "executor=fused nodes=1 device=cpu threads=1, with which it would cost nothing" in caplog.text
    caplog.clear()
    assert run(make_config(*same, "executor=fused"))[1]["rounds"] == ROUNDS
    assert "charged again" not in caplog.text
    assert len(ledger.read(folder / ledger.FILE)) == ROUNDS


def bound(make_config, mechanism):
    """A target a little above the cost of the six planned rounds, and below that of seven."""
    loaded = task.load(make_config(f"privacy={mechanism}", *TERMS, "privacy.target_epsilon=null").to_json())
    q = loaded.privacy.terms.sample_rate(loaded.controller.phases[0])
    return sum(epsilon([(q, SIGMA, rounds)], DELTA) for rounds in (ROUNDS, ROUNDS + 1)) / 2


def test_the_plan_itself_takes_no_accountant(make_config, monkeypatch):
    config = make_config("privacy=client_central", *TERMS)
    from fedbatch.privacy import plan

    asked = []
    monkeypatch.setattr(plan, "worst_epsilon", lambda *arguments: asked.append(arguments) or 0.0)
    rows, _, _ = run(config)
    assert len(rows) == ROUNDS
    assert len(asked) == 2, "for the evaluated last row and for the guarantee, and for nothing that was planned"


def test_part_of_a_plan():
    planned = [[(0.1, 1.0, 5), (0.2, 2.0, 1)], [(0.1, 1.0, 6)]]
    assert is_part([[]], planned) and is_part([[(0.1, 1.0, 6)], [(0.2, 2.0, 1)]], planned)
    assert not is_part([[(0.1, 1.0, 7)]], planned) and not is_part([[(0.1, 1.0, 6), (0.2, 2.0, 1)]], planned)
    assert not is_part([[(0.1, 1.1, 1)]], planned) and not is_part([[(0.3, 1.0, 1)]], planned)


def test_only_the_same_question_is_done_again():
    spent_ = ledger.Ledger().charge(LedgerEntry(3, "aa", 0.1, 1.0, 1)).charge(LedgerEntry(4, "bb/0.5", 1.0, 4.0, 1))
    assert spent_.done_before(LedgerEntry(3, "cc", 0.1, 1.0, 1)).params == "aa"
    assert spent_.done_before(LedgerEntry(4, "cc", 0.1, 1.0, 1)) is None, "a round is not a slope"
    assert spent_.done_before(LedgerEntry(4, "cc/0.25", 1.0, 4.0, 1)) is None, "nor one slope another"
    assert spent_.done_before(LedgerEntry(4, "cc/0.5", 1.0, 4.0, 1)).params == "bb/0.5"


def test_a_change_of_device_is_a_change_of_terms(make_task, monkeypatch):
    server, _ = start(make_task("client_central"))
    now = how_computed(server, "")
    assert now == "executor=fused nodes=1 device=cpu threads=1"
    monkeypatch.setattr(server.optimizer.model, "params", server.optimizer.model.params.to("meta"))
    assert how_computed(server, "") == now.replace("cpu", "meta")
    assert how_computed(server, "0123456789abcdef").endswith("nonce=01234567")


@pytest.mark.parametrize("again", [1, 2])
def test_overwriting_a_private_run_keeps_what_it_spent(make_config, again):
    options = ("privacy=client_central", *TERMS, "privacy.target_epsilon=null", "rounds=1")
    config = make_config(*options)
    run(config)
    folder = Path(config.run_dir)
    lines = (folder / ledger.FILE).read_bytes()
    for _ in range(again):
        _, summary, state = run(make_config(*options, "overwrite=true"))
    kept = sorted(folder.glob("ledger-*.jsonl"))
    assert [path.name for path in kept] == [f"ledger-{number + 1}.jsonl" for number in range(again)]
    assert kept[0].read_bytes() == lines and len(state.ledger.releases) == 1, "another run has another account"
    words = "1 private run lies beside this one or was" if again == 1 else "2 private runs lie beside this one or were"
    assert f"({words} overwritten; fedbatch spent" in headline(summary["privacy"])
