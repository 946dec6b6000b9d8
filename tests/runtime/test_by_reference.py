"""Messages that are handed over in one process: the results of the wire, and nobody writes to what is shared."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from fedbatch.runtime.local import LocalGrid
from fedbatch.wire.codec import ByReference
from tests.test_same_bits import BASE, RUNS
from tests.whole_runs import outcome

FEW = ("fused", "vmap_local_steps", "example_local", "active_margin", "calibration", "krum")
EACH = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in RUNS]


@pytest.mark.parametrize("name", EACH)
def test_results_are_those_of_messages_that_are_written_down(name, tmp_path):
    by_reference = outcome([*BASE, *RUNS[name]], tmp_path / "by_reference")
    written = outcome([*BASE, *RUNS[name], "runtime.by_reference=false"], tmp_path / "written")
    assert by_reference == written


@pytest.mark.parametrize("name", EACH)
def test_nobody_writes_to_what_is_shared(name, tmp_path, monkeypatch):
    """A plan is the same after its node has answered, and an answer at the end of all."""
    answers = []
    deliver = LocalGrid._deliver

    def watched(grid, message):
        before = numbers(message.content)
        reply = deliver(grid, message)
        assert all(map(np.array_equal, before, numbers(message.content)))
        answers.append((reply.content, numbers(reply.content)))
        return reply

    monkeypatch.setattr(LocalGrid, "_deliver", watched)
    outcome([*BASE, *RUNS[name]], tmp_path / "run")
    assert any(isinstance(content, ByReference) for content, _ in answers) or name == "faults"
    for content, before in answers:
        assert all(map(np.array_equal, before, numbers(content)))


def numbers(content):
    """Copies of all arrays of a message."""
    if not isinstance(content, ByReference):
        return []
    values = [getattr(content.message, field.name) for field in fields(content.message)]
    arrays = [value.detach().numpy() if isinstance(value, torch.Tensor) else value for value in values]
    return [array.copy() for array in arrays if isinstance(array, np.ndarray)]
