"""Reference vectors: MERIT's from the authors' code, those of LAMB, LARS and Lion from our own, which timm
confirms."""

import json
from pathlib import Path

import pytest
import torch

from fedbatch.optim import LAMB, LARS, MERIT, Lion

GOLDEN = Path(__file__).parents[1] / "golden"
MERIT_CASES = json.loads((GOLDEN / "merit.json").read_text())["cases"]
OTHERS = json.loads((GOLDEN / "lamb_lars_lion.json").read_text())
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def run(make, start, grads, dtype):
    """Parameters by name after each step."""
    params = {name: torch.tensor(value, dtype=dtype, requires_grad=True) for name, value in start.items()}
    optimizer = make(list(params.values()))
    for step in grads:
        for name, p in params.items():
            p.grad = torch.tensor(step[name], dtype=dtype)
        optimizer.step()
        yield {name: p.detach().clone() for name, p in params.items()}, [optimizer.state[p] for p in params.values()]


def assert_close(got, expected, dtype):
    torch.testing.assert_close(got, torch.tensor(expected, dtype=dtype), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", MERIT_CASES, ids=lambda case: case["name"])
def test_merit_after_every_step(case, dtype):
    name = str(dtype).removeprefix("torch.")
    steps = list(run(lambda params: MERIT(params, **case["hyper"]), case["params0"], case["grads"], dtype))
    for (params, _), expected in zip(steps, case[f"params_after_each_step_{name}"], strict=True):
        for key, value in params.items():
            assert_close(value, expected[key], dtype)
    for state, expected in zip(steps[-1][1], case[f"final_state_{name}"].values(), strict=True):
        for key in ("exp_avg", "exp_avg_sq"):
            assert_close(state[key], expected[key], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("index", "make"),
    [
        (0, lambda params: LAMB(params, lr=0.01, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01)),
        (1, lambda params: LARS(params, lr=1.0, momentum=0.9, weight_decay=1e-4, trust_coefficient=0.001)),
        (2, lambda params: Lion(params, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)),
    ],
    ids=["lamb", "lars", "lion"],
)
def test_lamb_lars_and_lion_at_the_end(index, make, dtype):
    *_, (params, _) = run(make, OTHERS["params0"], OTHERS["grads"], dtype)
    for key, value in params.items():
        assert_close(value, OTHERS["cases"][index]["final"][key], dtype)
