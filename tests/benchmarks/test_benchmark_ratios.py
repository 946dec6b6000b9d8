from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import cases, scaling
from benchmarks.measure import Row
from benchmarks.ratios import Ratio, ratios
from benchmarks.workload import Workload, random_data


def record(workload: Workload, system: str, seconds: float) -> dict[str, Any]:
    return cases.record(workload, 1, Row(system, seconds, seconds, seconds, seconds), None)


def test_ratios_are_taken_within_one_kind_of_work() -> None:
    small, large = Workload("fedsgd", "mlp", 10), Workload("fedsgd", "mlp", 200)
    rows = [record(small, "fedbatch fused", 9.0), record(small, "limit", 1.0)]
    rows += [record(large, "fedbatch fused", 1.2), record(large, "limit", 1.0), record(large, "pfl", 3.0)]
    first, second = ratios(rows)  # pfl has no target with batches of 10
    assert (first.ratio, first.target, first.met) == (9.0, 2.0, False)
    assert (second.ratio, second.target, second.met) == (pytest.approx(1.2), 1.2, True)
    assert second.name == "fedsgd b=10 mlp C=200, 1 thread: fedbatch fused / limit"


def test_rivals_meet_the_faster_executor() -> None:
    work = Workload("local_sgd", "cnn", 50)
    rows = [record(work, "fedbatch vmap", 2.0), record(work, "fedbatch loop", 1.0), record(work, "pfl", 1.1)]
    (ratio,) = ratios(rows)
    assert ratio.verdict == "missed by 12 %"
    assert Ratio("above", 1.5, None, 1.0, "at most").verdict == "missed by 50 %"


def test_only_the_fastest_limit_stays() -> None:
    times = {"limit 0": 2.0, "limit 1": 1.0, "pfl": 3.0, "JAX scan": 4.0, "JAX vmap": 5.0}
    rows = [Row(name, seconds, 0, 0, 0) for name, seconds in times.items()]
    assert [row.system for row in cases.fastest_limit(rows)] == ["limit 1", "pfl", "JAX scan"]


@pytest.mark.parametrize("work", ["fedsgd", "local_sgd"])
def test_a_case_has_a_row_for_each_system(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "peaks", lambda specs: [1.0] * len(specs))
    workload = Workload(work, "mlp", cohort=5)
    rows = command.case(workload, random_data(20), threads=1, quick=True, pfl=False)
    systems = [row["system"] for row in rows]
    assert len(systems) == len(set(systems)) and len(set(systems) - {"JAX", "fedbatch chain"}) == (
        9 if work == "fedsgd" else 7
    )
    assert {"limit", "plain loop", "fedbatch vmap unmeasured"} <= set(systems)
    assert command.table(rows).row_count == len(rows)
    assert command.verdicts(ratios(rows)).row_count


def test_stages_add_up_and_a_population_needs_no_data_of_its_own() -> None:
    seconds = scaling.stages(rounds=4)
    assert all(value >= 0 for value in seconds.values())
    system = scaling.DrawnPopulation(Workload("fedsgd", "mlp", 5), random_data(2, 10), 1000, "fused")
    system.round(0)
    assert system.row["global_batch"] == 50
