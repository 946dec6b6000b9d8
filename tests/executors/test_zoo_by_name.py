"""The forms of the zoo whose inputs come by name, by place, or beside others: the numbers are those of one array."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from fedbatch.core.layout import Layout, Part
from fedbatch.executors.choose import Executors
from fedbatch.executors.loop import loop
from fedbatch.models.adapted import adapted, restored
from tests.executors.test_zoo import TOLERANCE, difference, make_job
from tests.executors.zoo import IMAGES, TEXTS

FEW = ("in-place ReLU", "dropout", "batch norm", "frozen layer", "residual net, group norm", "ViT", "nanoGPT", "LSTM")


def by_name(job):
    """The same job, where the model is given its one input by the name that its forward has for it."""
    name = next(iter(inspect.signature(job.model.module.forward).parameters))
    kind = "float" if job.x.is_floating_point() else "int"
    adapted(job.model.module, Layout((Part(name, tuple(job.x.shape[1:]), kind),)), None)
    return type(job)(**vars(job) | {"x": job.x.flatten(1)})


class Beside(nn.Module):
    """A form of the zoo whose input comes second in a tuple, and whose output is one of a dict."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, weight, x, *, flag):
        assert weight.dim() == 1 and flag.dtype is torch.bool and flag.shape[1:] == (2,)
        return {"mean": weight.double().mean(), "answer": self.module(x)}


def beside_others(name, work):
    job = make_job(name, work)
    kind = "float" if job.x.is_floating_point() else "int"
    parts = Part(0, (), kind), Part(1, tuple(job.x.shape[1:]), kind), Part("flag", (2,), "bool")
    ones = job.x.new_ones(len(job.x), 1)
    x = torch.cat([2 * ones, job.x.flatten(1), ones, 0 * ones], dim=1)
    job.model.module = adapted(Beside(job.model.module), Layout(parts), "answer")
    job.model.forward = job.model.module
    return type(job)(**vars(job) | {"x": x})


@pytest.mark.parametrize("name", [*IMAGES, *TEXTS])
def test_an_input_by_name_gives_the_numbers_of_one_array(name):
    job = make_job(name, "fedsgd")
    expected = loop(job)
    job.model.load(job.params, job.buffers)
    assert difference(expected, loop(by_name(job))) < 1e-6
    restored(job.model.module)
    job.model.module(job.x[:2].clone())


@pytest.mark.parametrize("work", ["fedsgd", "local_sgd", "examples"])
@pytest.mark.parametrize("name", FEW)
def test_every_executor_that_takes_a_form_takes_it_beside_others(name, work):
    if name == "batch norm" and work != "fedsgd":
        return
    plain = make_job(name, work)
    expected, able = loop(plain), Executors()
    right = {each for each in ("fused", "vmap", "ghost") if able.unusable(each, plain) is None}
    job, found = beside_others(name, work), Executors()
    assert {each for each in ("chain", "fused", "vmap", "ghost") if found.unusable(each, job) is None} == right
    for executor in ("loop", *sorted(right)):
        assert difference(expected, found.execute(job, executor)) < TOLERANCE, executor


def test_a_form_goes_through_the_fast_executors():
    assert Executors().unusable("fused", beside_others("perceptron", "fedsgd")) is None
    assert Executors().unusable("vmap", beside_others("ViT", "local_sgd")) is None


def test_the_wrong_part_of_an_output_would_be_seen():
    job = beside_others("perceptron", "fedsgd")
    wrong = torch.cat([job.x[:, :1], job.x[:, 1:-2].flip(1), job.x[:, -2:]], dim=1)
    assert difference(loop(make_job("perceptron", "fedsgd")), loop(type(job)(**vars(job) | {"x": wrong}))) > 0.01
    assert np.isfinite(loop(job).losses).all()
