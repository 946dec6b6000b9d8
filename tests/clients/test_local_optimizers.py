"""Local momentum, Adam and AdamW against torch.optim on the same gradients."""

import numpy as np
import pytest
import torch

from fedbatch.clients import Cosine, Exponential, LocalAdam, LocalMomentum, Moment
from fedbatch.core.errors import ConfigError
from fedbatch.executors import vmap
from fedbatch.executors.loop import loop
from fedbatch.setup import task
from tests.clients.quadratic import EXAMPLES, SIZE, Quadratic
from tests.conftest import run

STEPS = 6
EVERYONE = np.arange(4)
CASES = {
    "sgd": (LocalMomentum, torch.optim.SGD, {"momentum": 0.0}),
    "momentum": (LocalMomentum, torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (LocalMomentum, torch.optim.SGD, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    "adam": (LocalAdam, torch.optim.Adam, {"betas": (0.8, 0.99), "eps": 1e-3}),
    "adam_decay": (LocalAdam, torch.optim.Adam, {"weight_decay": 0.3}),
    "adamw": (LocalAdam, torch.optim.AdamW, {"weight_decay": 0.3}),
}


def by_torch(problem, optimizer, options, clip, schedule, rounds, keep):
    """Mean updates by torch's optimizer: a client's parameters after each round, averaged."""
    params, states, points = torch.zeros(SIZE, dtype=torch.float64), {}, []
    for round_ in range(rounds):
        ends = []
        for client in EVERYONE:
            x, y = torch.from_numpy(problem.x[client]), torch.from_numpy(problem.y[client])
            w = params.clone().requires_grad_()
            own = optimizer([w], lr=0.05, **options)
            if keep and client in states:
                own.load_state_dict(states[client])
            for step in range(STEPS):
                own.zero_grad()
                ((x @ w - y).square().sum() / 2 / EXAMPLES).backward()
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_([w], clip)
                for group in own.param_groups:
                    group["lr"] = 0.05 * schedule(round_, step)
                own.step()
            states[client] = own.state_dict()
            ends.append(w.detach())
        params = torch.stack(ends).mean(dim=0)
        points.append(params.numpy())
    return np.array(points)


@pytest.mark.parametrize("executor", [loop, vmap.best])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("case", CASES)
def test_the_formulas_are_those_of_torch(case, clip, keep, executor):
    kind, optimizer, options = CASES[case]
    problem, decoupled = Quadratic(), {"decoupled_weight_decay": True} if case == "adamw" else {}
    work = kind(0.05, None, STEPS, clip_norm=clip, keep=keep, schedule=Exponential(0.9, 0.8), **(options | decoupled))
    got = problem.run(work, [EVERYONE] * 3, executor)
    expected = by_torch(problem, optimizer, options, clip, lambda r, s: 0.9**r * 0.8**s, 3, keep)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


def test_the_cosine_rises_and_falls_and_stays():
    schedule, steps = Cosine(rounds=10, warmup_rounds=2, final=0.1), torch.tensor([[4.0], [2.0]])
    rising = [float(schedule(Moment(r, s, steps))[0]) for r in range(2) for s in range(4)]
    np.testing.assert_allclose(rising, np.arange(1, 9) / 8, rtol=1e-6)
    middle = schedule(Moment(6, 0, steps))
    np.testing.assert_allclose(middle.numpy(), [[0.55], [0.55]], rtol=1e-6)
    assert (
        schedule(Moment(6, 1, steps))[0] > schedule(Moment(6, 1, steps))[1]
    )  # a client with fewer steps is further on
    np.testing.assert_allclose(schedule(Moment(12, 0, steps)).numpy(), 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("client_work.schedule=cosine", "client_work.schedule must be"),
        ("client_work.schedule={}", "client_work: schedule must be null or have a _target_"),
        ("client_work.schedule={rounds: 3}", "client_work: schedule must be null or have a _target_"),
        ("client_work.schedule={_target_: fedbatch.clients.Cosine}", "client_work: .*'rounds'"),
        ("client_work.schedule={_target_: fedbatch.clients.Cosine, rounds: 2, warmup_rounds: 2}", "client_work: "),
        (
            "client_work.schedule={_target_: fedbatch.clients.Exponential, per_round: 0}",
            "client_work.schedule: per_round",
        ),
        ("client_work.clip_norm=0", r"client_work.clip_norm must be in \(0"),
        ("client_work.betas=[0.9]", "client_work.betas must be"),
    ],
)
def test_a_bad_value_is_one_line_before_the_run(make_config, given, said):
    with pytest.raises(ConfigError, match=said) as refused:
        task.load(make_config("client_work=local_adamw", given).to_json())
    assert "\n" not in str(refused.value)


def test_a_schedule_from_the_command_line_is_used(make_config):
    schedule = "client_work.schedule={_target_: fedbatch.clients.Exponential, per_round: 1e-9, per_step: 1.0}"
    *_, one = run(make_config("client_work=local_adamw", "rounds=1", "server_optimizer.lr=1", folder="one"))
    *_, two = run(make_config("client_work=local_adamw", "rounds=2", "server_optimizer.lr=1", schedule, folder="two"))
    torch.testing.assert_close(two.params, one.params, rtol=0, atol=1e-6)  # nothing moves in the second round


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"weight_decay": -1.0}, {"clip_norm": 0.0}, {"lr": 0.0}])
def test_what_cannot_be_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match="client_work: "):
        LocalMomentum(**({"lr": 0.1} | wrong))
