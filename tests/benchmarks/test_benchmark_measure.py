import time

import pytest
import torch

from benchmarks.measure import Spec, interleaved, machine, peak_rss_mb
from benchmarks.workload import Workload, build_model, flat, random_data


def test_systems_are_called_in_turn() -> None:
    calls: list[str] = []
    rows = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2, warmup=1)
    assert calls == ["a", "b"] * 3
    assert [row.system for row in rows] == ["a", "b"]


def test_wall_and_processor_time_are_told_apart() -> None:
    (row,) = interleaved({"sleep": lambda: time.sleep(0.02)}, repeats=3, warmup=0)
    assert row.seconds_min <= row.seconds_median <= row.seconds_max
    assert row.seconds_min >= 0.02 > row.cpu_seconds


@pytest.mark.slow
def test_peak_memory_is_the_systems_own() -> None:
    # Only the examples differ, 3,136 bytes each; what we hold ourselves must not count.
    ours = torch.zeros(2**26)
    spec = {
        "factory": "benchmarks.systems.plain_loop:PlainLoop",
        "workload": Workload("fedsgd", "mlp", cohort=2),
    }
    small = peak_rss_mb(Spec(**spec, population=30, examples=10, rounds=1))
    large = peak_rss_mb(Spec(**spec, population=10_000, examples=10, rounds=1))
    assert large - small == pytest.approx(9_970 * 10 * 3136 / 2**20, rel=0.2)
    assert ours.sum() == 0


def test_a_system_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="no_such_module"):
        peak_rss_mb(Spec("no_such_module:Nothing", Workload("fedsgd", "mlp", cohort=1), population=1))


def test_machine_names_threads_and_torch() -> None:
    assert f"{torch.get_num_threads()} threads, torch {torch.__version__}" in machine()


def test_the_round_chooses_the_cohort() -> None:
    workload = Workload("fedsgd", "mlp", cohort=5)
    assert workload.clients(1, 100) == workload.clients(1, 100) != workload.clients(2, 100)
    assert len(set(workload.clients(1, 100))) == 5


@pytest.mark.parametrize(("work", "steps"), [("fedsgd", 1), ("local_sgd", 5)])
def test_batches_are_the_clients_own_examples_in_order(work: str, steps: int) -> None:
    data = random_data(population=6, examples=50)
    workload = Workload(work, "mlp", cohort=3)
    batches = workload.batches(data, 0)
    assert batches.shape == (3, steps, 10)
    held = data.clients[workload.clients(0, 6)]
    assert torch.equal(batches.flatten(1), held[:, : steps * 10])


@pytest.mark.parametrize(("model", "size"), [("mlp", 25_450), ("cnn", 1_199_882)])
def test_models_have_the_published_sizes(model: str, size: int) -> None:
    assert len(flat(build_model(model))) == size
