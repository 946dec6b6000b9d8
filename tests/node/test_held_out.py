from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedbatch.losses.examples import NO_LABEL
from fedbatch.metrics.statistics import nll_derivatives, scaled_nll
from fedbatch.metrics.temperature import newton, newton_each
from fedbatch.node import held_out
from tests.virtual_gpu import VirtualGpu

POSITIONS = [np.arange(3), np.array([3]), np.zeros(0, int), np.arange(4, 20)]
OWNERS = np.repeat(np.arange(4), [3, 1, 0, 16])
LOGITS = torch.randn(20, 7, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(5, (20, 7), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("is_sequence", [False, True])
def test_predictions_are_each_clients_own(monkeypatch, is_sequence):
    logits, labels = LOGITS.clone(), LABELS.clone()
    labels[logits[..., 0] > 0] = NO_LABEL
    labels[3] = NO_LABEL  # a client with examples and no label
    if not is_sequence:
        logits, labels = logits[:, 0], LABELS[:, 0]
    monkeypatch.setattr(held_out, "logits_of", lambda _model, x, _batch: logits[x])
    nothing = torch.zeros(0)
    task = SimpleNamespace(
        node_model=SimpleNamespace(load=lambda *_: None, params=nothing, buffers=nothing),
        held_out=lambda client: POSITIONS[client],
        examples=lambda positions: (torch.from_numpy(positions), labels[torch.from_numpy(positions)]),
    )
    plan = SimpleNamespace(params=nothing, buffers=nothing, clients=np.arange(4), part="all")
    for (z, y), own in zip(held_out._predictions(plan, task), POSITIONS, strict=True):
        told = labels[own] != NO_LABEL
        assert torch.equal(z, logits[own][told].double()) and torch.equal(y, labels[own][told])


def test_temperatures_sought_together_are_those_sought_one_by_one():
    logits, labels = 4 * LOGITS[:, 0].double(), LABELS[:, 0]
    labels[4:] = logits[4:].argmax(dim=1)  # a client that is always right: no temperature is low enough
    owners = torch.from_numpy(OWNERS)

    def derivatives(inverse):
        return nll_derivatives(logits, labels, owners, torch.from_numpy(inverse)).numpy()

    together = newton_each(derivatives, 4)
    for own, found in zip(POSITIONS, together, strict=True):
        alone = newton(lambda a, own=own: scaled_nll(logits[own], labels[own], torch.tensor([a]).double()).tolist())
        assert found == pytest.approx(alone, rel=1e-9)
    assert together[2] == 1 and together[3] == pytest.approx(0.05, rel=1e-3)


def test_a_gpu_is_waited_for_once_a_step():
    with VirtualGpu().active() as gpu:
        z, y, owners = (t.to("cuda") for t in (LOGITS[:, 0].double(), LABELS[:, 0], torch.from_numpy(OWNERS)))
        inverse = torch.ones(4, dtype=torch.float64, device="cuda")
        gpu.reset()
        nll_derivatives(z, y, owners, inverse)
        assert not gpu.waits
