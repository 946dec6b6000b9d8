"""Every system must arrive where a textbook loop arrives, else the table compares nothing."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.systems import System
from benchmarks.systems.fedbatch_sim import FedbatchSim
from benchmarks.systems.fused_limit import FusedLimit, best
from benchmarks.systems.plain_loop import PlainLoop
from benchmarks.workload import Data, Workload, build_model, flat, random_data

ROUNDS = 2


@pytest.fixture(scope="module")
def data() -> Data:
    return random_data(population=12, examples=20)


def naive(workload: Workload, data: Data, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Final parameters, and each client's squared norm in the last round: the textbook, line by line."""
    model = build_model(workload.model, workload.seed)
    for round_ in range(rounds):
        before, changes = flat(model), []
        for batches in workload.batches(data, round_):
            client = copy.deepcopy(model)
            rate = workload.learning_rate if workload.work == "local_sgd" else 1.0
            optimizer = torch.optim.SGD(client.parameters(), lr=rate)
            for batch in batches:
                optimizer.zero_grad()
                cross_entropy(client(data.x[batch]), data.y[batch]).backward()
                optimizer.step()
            changes.append(flat(client) - before)
        server_rate = workload.learning_rate if workload.work == "fedsgd" else 1.0
        after = before + server_rate * torch.stack(changes).mean(0)
        torch.nn.utils.vector_to_parameters(after, model.parameters())
    return after, torch.stack(changes).square().sum(1)


def assert_agrees(system: System, workload: Workload, data: Data) -> None:
    start = system.params()
    for round_ in range(ROUNDS):
        system.round(round_)
    expected, _ = naive(workload, data)
    error = (system.params() - expected).norm() / (expected - start).norm()  # of the change: stricter than of the whole
    assert error < 1e-4


@pytest.mark.parametrize("batch_size", [5, 20])
@pytest.mark.parametrize("options", [{}, {"microbatch": 7}, {"microbatch": 20, "channels_last": True}])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_fused_limit_takes_the_mean_gradient(model: str, options: dict, batch_size: int, data: Data) -> None:
    workload = Workload("fedsgd", model, cohort=4, batch_size=batch_size)
    assert_agrees(FusedLimit(workload, data, **options), workload, data)


def test_the_best_limit_is_one_of_its_options(data: Data) -> None:
    workload = Workload("fedsgd", "mlp", cohort=12, batch_size=20)
    assert_agrees(best(workload, data), workload, data)


@pytest.mark.parametrize("options", [{"with_norms": False}, {}, {"channels_last": False}])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("work", ["fedsgd", "local_sgd"])
def test_plain_loop_agrees(work: str, model: str, options: dict, data: Data) -> None:
    workload = Workload(work, model, cohort=4, batch_size=5)
    assert_agrees(PlainLoop(workload, data, **options), workload, data)


@pytest.mark.parametrize("work", ["fedsgd", "local_sgd"])
def test_plain_loop_measures_each_clients_norm(work: str, data: Data) -> None:
    workload = Workload(work, "mlp", cohort=4, batch_size=5)
    system = PlainLoop(workload, data)
    system.round(0)
    torch.testing.assert_close(system.squared_norms, naive(workload, data, rounds=1)[1], rtol=1e-4, atol=0)


@pytest.mark.parametrize("work", ["fedsgd", "local_sgd"])
def test_the_compiled_chain_agrees(work: str, data: Data, compiler: None) -> None:
    workload = Workload(work, "mlp", cohort=4, batch_size=5)
    assert_agrees(FedbatchSim(workload, data, "chain"), workload, data)


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize(
    ("work", "executor"),
    [("fedsgd", "fused"), ("fedsgd", "vmap"), ("fedsgd", "loop"), ("local_sgd", "vmap"), ("local_sgd", "loop")],
)
def test_fedbatch_agrees(work: str, executor: str, model: str, measured: bool, data: Data) -> None:
    workload = Workload(work, model, cohort=4, batch_size=5)
    system = FedbatchSim(workload, data, executor, measured=measured)
    assert_agrees(system, workload, data)
    assert (system.row["round_trace"] > 0) == measured


def test_fedbatch_with_halves_agrees(data: Data) -> None:
    workload = Workload("fedsgd", "mlp", cohort=4, batch_size=5)
    system = FedbatchSim(workload, data, halves=True)
    assert_agrees(system, workload, data)
    assert "m_drift" in system.row


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("work", ["fedsgd", "local_sgd"])
def test_pfl_agrees(work: str, model: str, data: Data) -> None:
    pytest.importorskip("pfl")
    from benchmarks.systems.pfl_sim import PflSimulation

    workload = Workload(work, model, cohort=4, batch_size=5)
    assert_agrees(PflSimulation(workload, data), workload, data)


@pytest.mark.slow
def test_flower_on_ray_agrees(data: Data) -> None:
    pytest.importorskip("ray")
    from benchmarks.systems import flower_ray

    workload = Workload("local_sgd", "mlp", cohort=len(data.clients), batch_size=5)
    result = flower_ray.run(workload, data, rounds=ROUNDS)
    expected, _ = naive(workload, data)
    start = flat(build_model("mlp", workload.seed))
    assert (result.params - expected).norm() / (expected - start).norm() < 1e-4
    assert result.cold_seconds > result.warm_seconds[0] > 0
    assert result.peak_rss_mb > 100


@pytest.mark.slow
@pytest.mark.parametrize("clients", ["scan", "vmap"])
@pytest.mark.parametrize(("work", "model"), [("fedsgd", "mlp"), ("local_sgd", "mlp"), ("fedsgd", "cnn")])
def test_jax_arrives_there_and_has_the_same_norms(work: str, model: str, clients: str, data: Data) -> None:
    pytest.importorskip("jax")
    from benchmarks.systems.jax_sim import JaxSim

    workload = Workload(work, model, cohort=4, batch_size=5)
    system = JaxSim(workload, data, clients)
    assert_agrees(system, workload, data)
    squares = torch.as_tensor(system.squared_norms.tolist())
    assert torch.allclose(squares, naive(workload, data)[1], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet", "gpt"])
def test_larger_models_arrive_there_too(model: str) -> None:
    data = random_data(population=6, examples=4, model=model)
    workload = Workload("fedsgd", model, cohort=2, batch_size=3)
    for system in (FusedLimit(workload, data), PlainLoop(workload, data), FedbatchSim(workload, data)):
        assert_agrees(system, workload, data)
