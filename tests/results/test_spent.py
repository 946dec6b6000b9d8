"""What runs have spent together: composed from all ledgers, those of overwritten and running runs too."""

import json
import math

import pytest

from fedbatch.cli.commands import run_command
from fedbatch.core.errors import ConfigError
from fedbatch.privacy import epsilon, epsilon_of_best, ledger
from fedbatch.privacy.ledger import LedgerEntry
from fedbatch.results.spent import sentences, spent, together


def write(folder, releases, name="ledger.jsonl", **said):
    folder.mkdir(parents=True, exist_ok=True)
    for release in releases:
        ledger.write(folder / name, release)
    if said:
        (folder / "summary.json").write_text(json.dumps({"status": "finished", "privacy": said}))


def releases(q, sigma, rounds, clients=None):
    return [LedgerEntry(r, f"p{r}", q, sigma, 1, clients) for r in range(rounds)]


SAID = {"delta": 1e-5, "unit": "client", "accountant": "pld"}


def test_all_releases_are_composed_and_equal_ones_of_two_runs_are_two(tmp_path):
    write(tmp_path / "a", releases(0.1, 1.0, 5), **SAID)
    write(tmp_path / "b", releases(0.1, 1.0, 5), **SAID)
    write(tmp_path / "b", releases(1.0, 4.0, 2), "ledger-1.jsonl")
    runs = spent([tmp_path])
    assert len(runs) == 3
    assert together(runs) == (pytest.approx(epsilon([(0.1, 1.0, 10), (1.0, 4.0, 2)], 1e-5)), 1e-5)
    assert "All 3 together" in sentences(runs)[0]


def test_the_costliest_client_counts(tmp_path):
    some = [*releases(0.1, 1.0, 4, (0, 3)), LedgerEntry(9, "x", 0.1, 1.0, 1, (3,))]
    write(tmp_path, some, **SAID | {"unit": "example"})
    (run,) = spent([tmp_path])
    assert run.phases == [(0.1, 1.0, 5)] and run.epsilon == pytest.approx(epsilon([(0.1, 1.0, 5)], 1e-5))
    assert sentences([run])[0].startswith("This run: ")


def test_budgets_are_added_with_their_deltas(tmp_path):
    write(tmp_path / "a", releases(0.1, 1.0, 5), **SAID | {"accountant": "rdp filter at order 4", "epsilon": 2.0})
    write(tmp_path / "b", releases(0.1, 1.0, 5), **SAID | {"accountant": "rdp filter at order 4", "epsilon": 3.0})
    write(tmp_path / "c", releases(0.1, 1.0, 5), **SAID)
    total, delta = together(spent([tmp_path]))
    assert total == pytest.approx(5 + epsilon([(0.1, 1.0, 5)], 1e-5)) and delta == pytest.approx(3e-5)


def test_a_running_runs_ledger_is_left_as_it_is(tmp_path):
    write(tmp_path, releases(0.1, 1.0, 2))
    with open(tmp_path / "ledger.jsonl", "a") as file:
        file.write('{"round": 2, "par')
    before = (tmp_path / "ledger.jsonl").read_bytes()
    (run,) = spent([tmp_path])
    assert run.phases == [(0.1, 1.0, 2)] and (tmp_path / "ledger.jsonl").read_bytes() == before


def test_the_best_of_many_is_cheaper_than_all_and_dearer_than_one(tmp_path):
    for run in range(30):
        write(tmp_path / str(run), releases(0.1, 2.0, 20), **SAID)
    runs = spent([tmp_path])
    one, best, (all_of_them, _) = runs[0].epsilon, epsilon_of_best(runs[0].phases, 30, 1e-5), together(runs)
    assert one < best < all_of_them
    assert f"If the best alone is released: epsilon {best:.3g}" in sentences(runs)[1]


def test_best_of_agrees_with_papernot_and_steinke():
    """Their corollary for a geometric number of runs: order a costs twice (1 - 1 / (a - 1)) / ... of the run's own.

    Theorem 2 with shape 1: D_a <= D_a(run) + 2 (1 - 1/b) D_b(run) + 2 ln(1/gamma) / b + ln(mean) / (a - 1).
    """
    sigma, steps, mean, delta = 5.0, 10, 8.0, 1e-5
    gamma = 1 / mean
    mu = steps / (2 * sigma**2)  # D_a of the composed Gaussians is a * mu

    def cost(a):
        by_b = min(2 * (1 - 1 / b) * b * mu + 2 * math.log(1 / gamma) / b for b in [1 + k / 50 for k in range(1, 5000)])
        return a * mu + by_b + math.log(mean) / (a - 1)

    def converted(a):
        return cost(a) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)

    expected = min(converted(1 + k / 20) for k in range(1, 2000))
    assert epsilon_of_best([(1.0, sigma, steps)], mean, delta) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("mean", [0, 1, math.nan])
def test_a_mean_that_is_none_is_refused(mean):
    with pytest.raises(ValueError, match="mean_runs must be > 1"):
        epsilon_of_best([(0.1, 1.0, 1)], mean, 1e-5)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command("spent", "nowhere") == 2
    assert "no private run in nowhere" in capsys.readouterr().err
    write(tmp_path / "[red]a", releases(0.1, 1.0, 2), **SAID)
    assert run_command("spent", ".") == 0
    assert "[red]a/ledger.jsonl" in capsys.readouterr().out.replace("\n", "")


def test_a_ledger_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "ledger.jsonl").write_text("nonsense\n")
    with pytest.raises(ConfigError, match="line 1 cannot be read"):
        spent([tmp_path])
