"""Chains of stages: bytes, order, keys, what is refused, and what error feedback is for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.clients.outbox import Outbox
from fedbatch.clients.own import OwnVectors
from fedbatch.compression import QSGD, Compression, Half, PowerSGD, RandK, Sign, TopK
from fedbatch.compression.chain import client_key

STAGES = [
    TopK(0.3),
    RandK(0.4),
    RandK(0.4, False),
    QSGD(1, 3),
    QSGD(7, None),
    Sign(),
    Sign(True),
    Half(),
    Half("float16"),
]


class Parameters:
    """As much of a model as `Compression.on_model` looks at."""

    def __init__(self, n):
        self.params = torch.zeros(n)


@given(
    st.lists(st.sampled_from(STAGES), min_size=1, max_size=3),
    st.integers(1, 40),
    st.integers(0, 2**63),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=150, deadline=None)
def test_any_chain_sends_the_bytes_that_it_says_and_gives_a_vector_back(stages, n, key, dtype):
    chain = Compression({str(i): stage for i, stage in enumerate(stages)})
    vector = torch.randn(n, dtype=dtype, generator=torch.Generator().manual_seed(key % 1000))
    payload = chain.encode(vector, key)
    assert payload.dtype == torch.uint8 and len(payload) == chain.num_bytes(n, dtype)
    decoded = chain.decode(payload, n, dtype, key)
    assert decoded.shape == (n,) and decoded.dtype == dtype
    assert torch.equal(decoded, chain.decode(chain.encode(vector, key), n, dtype, key))


@given(st.lists(st.sampled_from(STAGES), min_size=1, max_size=3), st.integers(1, 30), st.data())
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_a_finite_vector_or_are_refused(stages, n, data):
    chain = Compression({str(i): stage for i, stage in enumerate(stages)})
    size = chain.num_bytes(n, torch.float32)
    payload = torch.tensor(list(data.draw(st.binary(min_size=size, max_size=size))), dtype=torch.uint8)
    try:
        assert chain.decode(payload, n, torch.float32, 3).isfinite().all()
    except ValueError as error:
        assert str(error)


def test_a_chain_of_unbiased_stages_is_unbiased():
    """Rand-k, then levels, then bfloat16: the mean of 2000 keys, by its largest z of 50 numbers."""
    chain = Compression({"a": RandK(0.5), "b": QSGD(3, 8), "c": Half()})
    vector = torch.linspace(-2, 3, 50)
    found = torch.stack([chain.decode(chain.encode(vector, k), 50, torch.float32, k) for k in range(2000)])
    z = (found.mean(dim=0) - vector) / (found.std(dim=0) / 2000**0.5)
    assert chain.is_unbiased and z.abs().max() < 4.5 and z.square().mean() < 2
    assert not Compression({"a": RandK(0.5), "b": TopK(0.5)}).is_unbiased
    assert not Compression({"a": Half()}, error_feedback=True).is_unbiased


@pytest.mark.parametrize("stage", STAGES, ids=repr)
def test_no_error_is_larger_than_the_worst(stage):
    """E|decoded - v|^2 <= worst |v|^2, for Gaussian, equal and lonely numbers."""
    n = 64
    chain = Compression({"a": stage})
    for vector in (torch.randn(n, generator=torch.Generator().manual_seed(0)), torch.ones(n), torch.eye(n)[3]):
        decoded = torch.stack([chain.decode(chain.encode(vector, k), n, torch.float32, k) for k in range(300)])
        error = (decoded - vector).square().sum(dim=1)
        spread = float(error.std()) / 300**0.5
        assert (
            float(error.mean()) <= stage.worst_error(n) * float(vector.square().sum()) * (1 + 1e-5) + 4 * spread + 1e-6
        )


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ({"r": RandK(0.5)}, "stage r .*RandK: is_unbiased=false"),
        ({"t": TopK(0.5), "q": QSGD(1, None)}, "stage q .*more levels"),
        ({"s": Sign(True)}, "stage s .*majority=false"),
    ],
)
def test_feedback_of_errors_that_grow_is_refused(stages, words):
    with pytest.raises(ValueError, match=words):
        Compression(stages, error_feedback=True).on_model(Parameters(1000))


def test_stages_that_need_the_model_come_first():
    with pytest.raises(ValueError, match="stage b needs the model's own tensors; make it the first"):
        Compression({"a": Half(), "b": PowerSGD()}).on_model(Parameters(9))
    with pytest.raises(ValueError, match="has no stages"):
        Compression({})


def descend(chain, curvatures, centres, lr, rounds):
    """Where gradient descent on the mean of quadratics ends, with every client's gradient compressed (NumPy)."""
    left = {k: np.zeros(centres.shape[1]) for k in range(len(centres))}

    def before(clients):
        return torch.from_numpy(np.array([left[k] for k in clients.tolist()]))

    point = np.zeros(centres.shape[1])
    for round_ in range(rounds):
        residuals = OwnVectors(before) if chain.error_feedback else None
        outbox = Outbox(chain, 0, round_, residuals)
        gradients = curvatures * (point - centres)
        outbox.put(np.arange(len(centres)), torch.from_numpy(gradients))
        n, total = len(point), np.zeros(len(point))
        for k in range(len(centres)):
            total += chain.decode(outbox.payloads[k], n, torch.float64, client_key(0, round_, k)).numpy()
        if residuals is not None:
            left |= {k: vector.numpy() for k, vector in residuals.after.items()}
        point = point - lr * total / len(centres)
    return point


@pytest.mark.parametrize("stage", [TopK(0.2), Sign()], ids=repr)
def test_with_feedback_descent_ends_at_the_minimum_and_without_it_does_not(stage):
    rng = np.random.default_rng(0)
    curvatures, centres = rng.uniform(0.5, 2, size=(4, 10)), rng.normal(size=(4, 10)) * 3
    minimum = (curvatures * centres).sum(axis=0) / curvatures.sum(axis=0)
    plain = descend(Compression({"a": stage}), curvatures, centres, 0.02, 800)
    fed_back = descend(Compression({"a": stage}, error_feedback=True), curvatures, centres, 0.02, 800)
    start = np.linalg.norm(minimum)
    assert np.linalg.norm(fed_back - minimum) < 0.06 * start
    assert np.linalg.norm(plain - minimum) > 0.1 * start
    assert np.linalg.norm(plain - minimum) > 4 * np.linalg.norm(fed_back - minimum)
