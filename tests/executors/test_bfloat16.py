"""In bfloat16 every executor gives the loop's numbers, and the loop those of float32, as far as 8 bits go."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedbatch.executors.choose import EXECUTORS, UNSUPPORTED, Executors
from fedbatch.executors.loop import loop
from tests.executors.test_executors import MODELS, make_job

UNIT = 2.0**-8


def single(job, is_bfloat16=True):
    """The job in float32, layers in bfloat16."""
    model = replace(job).model
    single = type(model)(model.module.float(), channels_last=model.channels_last)
    single.is_bfloat16 = is_bfloat16
    return replace(
        job,
        model=single,
        x=job.x.float() if job.x.is_floating_point() else job.x,
        params=job.params.float(),
        buffers=job.buffers.float(),
    )


def distance(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("work", ["fedsgd", "steps_proximal"])
def test_executors_agree_with_the_loop(model, work):
    """As far as the loop is from float32: what rounding does depends on the model, and executors round otherwise."""
    job, expected = single(make_job(model, work=work)), loop(single(make_job(model, work=work)))
    plain = loop(single(make_job(model, work=work), is_bfloat16=False))
    rounding = distance(expected.update_sum, plain.update_sum)
    assert UNIT / 16 < rounding < 0.5
    for name in ("fused", "vmap"):
        if UNSUPPORTED[name](job) is None and not (name == "vmap" and work == "fedsgd" and model in ("gpt", "bert")):
            found = EXECUTORS[name](job)
            assert found.update_sum.dtype == torch.float32
            assert distance(found.update_sum, expected.update_sum) < 2 * rounding + 4 * UNIT
            np.testing.assert_allclose(found.losses, expected.losses, rtol=2 * rounding + 4 * UNIT)


@pytest.mark.parametrize("model", ["mlp", "cnn", "gpt"])
def test_fused_is_nearer_still_for_it_shares_the_loops_activations(model):
    job = single(make_job(model))
    found, expected = EXECUTORS["fused"](job), loop(job)
    assert distance(found.update_sum, expected.update_sum) < 2 * UNIT
    np.testing.assert_allclose(found.sq_norms, expected.sq_norms, rtol=4 * UNIT)


def test_what_vmap_cannot_is_said():
    """Torch's backward of attention in bfloat16 has no batched form; the others go on."""
    job = single(make_job("gpt"))
    assert "RuntimeError" in Executors().unusable("vmap", job)
    assert Executors().unusable("fused", job) is None


def test_a_fast_executor_is_accepted():
    job = single(make_job("mlp"))
    for name in ("fused", "vmap"):
        assert Executors().unusable(name, job) is None


def test_norms_are_those_of_what_is_added_up():
    """One client alone: the length of the sum is its own, to float32."""
    for name in ("fused", "vmap", "loop"):
        job = single(make_job("mlp_wide_batch")).select(slice(0, 1))
        found = EXECUTORS[name](job)
        length = float(found.update_sum.norm() / job.weights[0])
        assert length == pytest.approx(found.sq_norms[0] ** 0.5, rel=1e-5)
