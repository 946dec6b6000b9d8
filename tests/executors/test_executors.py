"""Every executor gives the loop's numbers, for every model, loss and client work there is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import Job
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.data.partition import IndexPartition
from fedbatch.executors.choose import EXECUTORS, UNSUPPORTED, Executors
from fedbatch.executors.layer_rules import _distinct
from fedbatch.executors.loop import loop
from fedbatch.losses import CrossEntropy
from fedbatch.models.convolutional import cnn
from fedbatch.models.flat import FlatModel
from fedbatch.models.linear import logistic, mlp
from fedbatch.models.resnet import resnet18
from fedbatch.models.transformer import bert, gpt
from fedbatch.models.trial import Wanted, try_out
from tests.virtual_gpu import VirtualGpu


class Words(nn.Module):
    """Embedding, layer norms with and without shift, and a linear map over positions."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.norms = nn.ModuleList([nn.LayerNorm(6), nn.LayerNorm(6, bias=False), nn.LayerNorm((5, 6))])
        self.mix, self.out = nn.Linear(6, 9), nn.Linear(9, 3, bias=False)

    def forward(self, tokens):
        x = self.embed((tokens.abs() * 3).long() % 7)
        for norm in self.norms:
            x = norm(x)
        return self.out(torch.tanh(self.mix(x)).mean(dim=1))


IMAGE, TABLE, TEXT = (1, 8, 8), (5,), (6,)
SMALL = {"layers": 2, "heads": 2, "width": 4}
MODELS = {
    "logistic": (TABLE, lambda: logistic(TABLE, 3)),
    "mlp": (TABLE, lambda: mlp(TABLE, 3, width=70, depth=2)),
    "mlp_wide_batch": (TABLE, lambda: mlp(TABLE, 3, width=4, depth=1)),
    "cnn": (IMAGE, lambda: cnn(IMAGE, 3, channels=4, hidden=16, norm="none", groups=1)),
    "cnn_group": (IMAGE, lambda: cnn(IMAGE, 3, channels=4, hidden=16, norm="group", groups=2)),
    "resnet18": (IMAGE, lambda: resnet18(IMAGE, 3, width=4, norm="group", groups=2)),
    "words": (TABLE, Words),
    "gpt": (TEXT, lambda: gpt(TEXT, 7, **SMALL, tie_weights=False)),
    "bert": (TEXT, lambda: bert(TEXT, 7, **SMALL, tie_weights=False)),
}
LOSSES = {"cross_entropy": CrossEntropy(), "smoothed": CrossEntropy(0.2)}
WORKS = {
    "fedsgd": FedSGD(),
    "epochs": LocalSGD(lr=0.1, epochs=2),
    "steps_proximal": LocalSGD(lr=0.1, epochs=None, steps=3, proximal=0.5),
}
SIZES = np.array([9, 4, 14, 6, 11, 16])
EQUAL, UNEQUAL = [4] * 6, [9, 2, 7, 6, 3, 16]


def make_job(model="mlp", loss="cross_entropy", work="fedsgd", batch=UNEQUAL, halves=False, channels_last=True):
    shape, build = MODELS[model]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(SIZES.sum(), *shape)), rng.integers(3, size=SIZES.sum())
    if shape == TEXT:
        x, y = rng.integers(7, size=(2, SIZES.sum(), *shape))
        y[rng.random(y.shape) < 0.3] = -100
    torch.manual_seed(0)
    flat = FlatModel(build().double(), channels_last=channels_last)
    if model == "logistic":
        flat.params.normal_()
    clients = np.arange(6)
    partition = IndexPartition.from_assignment(np.repeat(clients, SIZES))
    draw = WORKS[work].draw(partition, clients, np.array(batch), seed=1, round_=2)
    return Job(
        model=flat,
        loss=LOSSES[loss],
        x=torch.from_numpy(x),
        y=torch.from_numpy(y),
        work=WORKS[work],
        clients=clients,
        draw=draw,
        weights=draw.num_examples.astype(float),
        params=flat.params.clone(),
        buffers=flat.buffers.clone(),
        halves=halves,
        cosine=True,
    )


def assert_equal(job, name, tolerance=1e-10):
    # In float64 agreement is a matter of algebra: far below the 1e-5 promised for float32.
    expected, got = loop(job), EXECUTORS[name](job)
    for field in ("update_sum", "unit_sum", "sq_norms", "losses", "half_dots", "half_sq_diffs"):
        a, b = (torch.as_tensor(getattr(c, field)) for c in (expected, got))
        assert a.shape == b.shape, field
        assert float((a - b).abs().max() if len(a) else 0) <= tolerance * float(a.abs().max() if len(a) else 1), field
    assert np.array_equal(expected.num_examples, got.num_examples) and np.array_equal(expected.weights, got.weights)


@pytest.mark.parametrize("batch", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["fused", "vmap"])
def test_executors_agree_with_the_loop(name, model, loss, work, batch):
    job = make_job(model, loss, work, batch)
    if UNSUPPORTED[name](job):
        assert name == "fused" and not job.work.is_gradient, "only local steps are not for the fused executor"
        return
    assert_equal(job, name)


@pytest.mark.parametrize("batch", [EQUAL, UNEQUAL, [5] * 4 + [4, 4]], ids=["equal", "unequal", "odd"])
@pytest.mark.parametrize("model", ["mlp", "mlp_wide_batch", "cnn_group", "words", "gpt"])
@pytest.mark.parametrize("name", ["fused", "vmap"])
def test_halves_agree_with_the_loop(name, model, batch):
    assert_equal(make_job(model, batch=batch, halves=True), name, tolerance=1e-8)


@pytest.mark.parametrize("batch", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("work", WORKS)
def test_layers_without_a_rule_go_through_torch_func(work, batch):
    torch.manual_seed(0)
    layers = [nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 2, 3), nn.PReLU(2), nn.Flatten(), nn.Linear(6, 3)]
    model = FlatModel(nn.Sequential(*layers).double())
    job = make_job("mlp", work=work, halves=work == "fedsgd", batch=batch)
    job = replace(job, model=model, params=model.params.clone())
    for name in ("vmap", "fused")[: 1 + (work == "fedsgd")]:
        assert_equal(job, name, tolerance=1e-9)


@pytest.mark.parametrize("work", WORKS)
def test_tied_weights_are_for_vmap_and_loop(work):
    torch.manual_seed(0)
    model = FlatModel(gpt(TEXT, 7, **SMALL, tie_weights=True).double())
    job = replace(make_job("gpt", work=work), model=model, params=model.params.clone())
    assert_equal(job, "vmap")
    assert "share a parameter" in UNSUPPORTED["fused"](replace(job, work=FedSGD()))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 6, padding_idx=0), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.embed((x.abs() * 3).long() % 7).mean(dim=1))


def padded(**options):
    image = nn.Unflatten(1, (1, 1, 5))
    return nn.Sequential(image, nn.Conv2d(1, 2, (1, 3), **options), nn.Flatten(), nn.LazyLinear(3))


SPECIAL = {
    "reflect": lambda: padded(padding=(0, 1), padding_mode="reflect"),
    "circular": lambda: padded(padding=(0, 2), padding_mode="circular"),
    "same": lambda: padded(padding="same"),
    "strided": lambda: padded(padding=(0, 1), stride=(1, 2)),
    "padding_idx": Tokens,
}


@pytest.mark.parametrize("work", ["fedsgd", "epochs"])
@pytest.mark.parametrize("special", SPECIAL)
def test_forms_of_a_layer_that_its_rule_does_not_cover(special, work):
    torch.manual_seed(0)
    module = SPECIAL[special]()
    with torch.no_grad():
        module(torch.ones(2, 5))
    model = FlatModel(module.double(), channels_last=True)
    job = make_job("mlp", work=work)
    job = replace(job, model=model, params=model.params.clone())
    for name in ("vmap", "fused")[: 1 + (work == "fedsgd")]:
        assert_equal(job, name, tolerance=1e-9)


@pytest.mark.parametrize("name", ["fused", "vmap"])
def test_float32_and_plain_layout(name):
    job = make_job("cnn", channels_last=False)
    model = FlatModel(MODELS["cnn"][1]())
    single = replace(job, model=model, x=job.x.float(), params=job.params.float(), buffers=job.buffers.float())
    assert_equal(single, name, tolerance=1e-5)


@pytest.mark.parametrize("name", ["fused", "vmap"])
def test_small_chunks_change_nothing(name, monkeypatch):
    monkeypatch.setattr(f"fedbatch.executors.{name}.{'CHUNK' if name == 'fused' else 'STACK'}_BYTES", 1)
    assert_equal(make_job("mlp"), name)


def job_of(module, work="fedsgd", **options):
    """A job of a table model in float64, with what a trial finds of it."""
    job = make_job("mlp", work=work, **options)
    model = FlatModel(module.double(), changing=())
    try_out(model, job.loss, job.x[:4], job.y[:4], Wanted(lambda labels: (*labels, 3)), [2, 4])
    model.module.train()
    return replace(job, model=model, params=model.params.clone(), buffers=model.buffers.clone())


def test_batch_norm_is_for_the_loop():
    job = job_of(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    for name in ("fused", "vmap"):
        assert "running statistics" in Executors().unusable(name, job)
    assert Executors().unusable("loop", job) is None


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.first(self.first(x)))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.last = nn.Parameter(torch.ones(5)), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(x * self.scale)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.pair = nn.Bilinear(5, 5, 3)

    def forward(self, x):
        return self.pair(x, x)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (lambda: Twice(), "used twice"),
        (lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)), "in-place"),
        (lambda: Scaled(), "Scaled. has parameters and layers of its own"),
        (lambda: TwoInputs(), "Bilinear does not map one tensor to one"),
        (lambda: tied(), "share a parameter"),
        (lambda: half_frozen(), "frozen in part"),
    ],
)
def test_what_a_fused_backward_would_get_wrong_is_refused(module, reason):
    import re

    assert re.search(reason, UNSUPPORTED["fused"](job_of(module())))


def tied():
    module = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    module[1].weight = module[0].weight
    return module


def half_frozen():
    module = nn.Sequential(nn.Linear(5, 3))
    module[0].bias.requires_grad_(False)
    return module


def test_a_loss_that_couples_examples_goes_to_the_loop():
    loss = CrossEntropy()
    loss.per_example = False
    job = replace(make_job("mlp"), loss=loss)
    assert "couples" in UNSUPPORTED["fused"](job) and "padded" in UNSUPPORTED["vmap"](job)


def test_auto_takes_the_fastest_says_why_and_remembers(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("FEDBATCH_CACHE", str(tmp_path))
    caplog.set_level("INFO")
    clock = {"fused": 1.2, "loop": 1.0}  # and vmap, in whatever form, 5
    by_function = {EXECUTORS[name]: seconds for name, seconds in clock.items()}
    monkeypatch.setattr("fedbatch.executors.choose._time", lambda execute, _: by_function.get(execute, 5.0))

    def chosen(*arguments, **options):
        job = make_job(*arguments, **options)
        return Executors().chosen(job, lambda: job)

    assert chosen("mlp") == "loop" and "executor=auto takes loop (chain cannot" in caplog.text
    by_function[EXECUTORS["fused"]] = 0.1
    assert chosen("mlp") == "loop" and "as measured before" in caplog.text
    assert chosen("logistic") == "fused", "another model is measured anew"
    assert chosen("mlp", work="epochs") == "loop"
    assert "fused cannot: clients take local steps" in caplog.text


def test_a_frozen_layer_is_left_alone():
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    module[0].requires_grad_(False)
    job = make_job("mlp")
    model = FlatModel(module)
    assert_equal(replace(job, model=model, params=model.params.clone()), "fused")


@pytest.mark.parametrize("tokens", [7, 10_000])
def test_tokens_are_told_apart_on_a_gpu_as_on_a_cpu(tokens):
    """There without a wait for their number: by all that there may be, or in order."""
    keys = torch.randint(tokens, (12, 9), generator=torch.Generator().manual_seed(0))
    pairs, inverse = _distinct(keys, tokens)
    with VirtualGpu().active() as gpu:
        on_gpu = keys.to("cuda")
        gpu.reset()
        more, places = _distinct(on_gpu, tokens)
        assert not gpu.waits
        more, places = more.cpu(), places.cpu()
    assert torch.equal(pairs[inverse], keys) and torch.equal(more[places], keys)
    assert len(places.unique()) == len(pairs) and (places.flatten()[keys.flatten().argsort()].diff() >= 0).all()
