"""Whatever stands in conf/client_work: loop and vmap agree, a run takes it, and privacy takes or refuses it."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from fedbatch.clients import LocalMomentum, LocalSGD
from fedbatch.clients import work as works
from fedbatch.clients.draw import Draw
from fedbatch.clients.own import OwnVectors
from fedbatch.core.errors import ConfigError
from fedbatch.executors import agreement, vmap
from fedbatch.executors.choose import Executors
from fedbatch.executors.loop import loop
from fedbatch.models.dropout import own_generators
from fedbatch.models.flat import FlatModel
from fedbatch.models.trial import Wanted, try_out
from fedbatch.setup import task
from fedbatch.setup.model import on_model
from tests.conftest import run
from tests.executors.test_executors import make_job

CONF = Path(__file__).parents[2] / "conf" / "client_work"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
PRIVATE = ("controller=fixed", "privacy.target_epsilon=null", "privacy.noise_multiplier=1")


def work_of(name):
    return instantiate(OmegaConf.load(CONF / f"{name}.yaml"), _convert_="all")


def full_job(name, model):
    """A job of clients with unequal batches and steps, whose own and shared vectors are not zero."""
    work, job = work_of(name), make_job(model, "cross_entropy", "epochs" if name != "fedsgd" else "fedsgd")
    if name == "ditto":
        job = replace(job, draw=Draw(*(np.repeat(each, 2, axis=1) for each in (job.draw.positions, job.draw.counts))))
    job = replace(job, work=on_model(work, job.model), round=3, weights=np.arange(1.0, 7.0))
    rng = torch.Generator().manual_seed(1)
    sizes = {kind: sum(job.sizes(kind).values()) for kind in ("own", "shared")}
    own = torch.randn(6, sizes["own"], generator=rng, dtype=torch.float64).abs() * 0.1
    shared = torch.randn(sizes["shared"], generator=rng, dtype=torch.float64) * 0.1
    return replace(job, own=OwnVectors(lambda ids: own[ids]), shared=shared)


@pytest.mark.parametrize(
    ("name", "model"),
    [(n, m) for n in NAMES for m in ("mlp", "cnn_group") if (n, m) != ("fedbn", "mlp")]
    + [("scaffold", "gpt"), ("ditto", "resnet18"), ("local_adamw", "words"), ("fedbn", "bert")],
)
def test_vmap_gives_the_numbers_of_the_loop(name, model):
    job = full_job(name, model)
    assert vmap.unsupported(job) is None
    assert agreement.disagreement(vmap.best, agreement.references(job)) is None
    one, other = replace(job, own=job.own.anew()), replace(job, own=job.own.anew())
    expected, got = loop(one), vmap.best(other)
    for field in ("update_sum", "extra_sums"):
        torch.testing.assert_close(getattr(got, field), getattr(expected, field), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(got.sq_norms, expected.sq_norms, rtol=1e-5)
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-5)
    assert one.own.after.keys() == other.own.after.keys()
    for client, vector in one.own.after.items():
        torch.testing.assert_close(other.own.after[client], vector, rtol=1e-5, atol=1e-7)


def test_dropout_is_drawn_for_each_client_and_step():
    job = full_job("scaffold", "mlp")
    model = FlatModel(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)).double())
    try_out(model, job.loss, job.x[:4], job.y[:4], Wanted(lambda labels: (*labels, 3)), [2, 4])
    model.module.train()
    job = replace(job, model=model, params=model.params.clone(), buffers=model.buffers.clone(), own=None, shared=None)
    assert model.is_random
    sums = {}
    for seeds in (np.arange(6), np.arange(6) + 1):
        drawn = replace(job, seeds=seeds)
        with own_generators(True):
            assert agreement.disagreement(vmap.best, agreement.references(drawn)) is None
            sums[seeds[0]] = loop(drawn).update_sum
    assert not torch.allclose(sums[0], sums[1])


def test_an_executor_that_spoils_what_is_kept_or_sent_besides_is_found_out():
    job = full_job("scaffold", "mlp")
    references = agreement.references(job)

    def keeps_another(job):
        job_ = replace(job, own=OwnVectors(lambda ids: job.own.read(ids)))
        done = loop(job_)
        job.own.after.update({client: vector * 1.01 for client, vector in job_.own.after.items()})
        return done

    def sends_another(job):
        done = loop(job)
        return replace(done, extra_sums=done.extra_sums * 1.01)

    assert "vectors that clients keep" in agreement.disagreement(keeps_another, references)
    assert "sent besides" in agreement.disagreement(sends_another, references)


def model_of(name):
    small = ("model=cnn", "model.channels=4", "model.hidden=8", "model.norm=group", "model.groups=2")
    return {"fedbn": small, "diloco": ("client_work.steps=4",)}.get(name, ())


@pytest.mark.parametrize("name", NAMES)
def test_a_run_takes_it_and_measures_its_noise(name, make_config):
    rows, summary, _ = run(
        make_config(f"client_work={name}", *model_of(name), "rounds=2", "controller=fixed", "executor=vmap")
    )
    assert summary["rounds"] == 2
    assert rows[-1]["noise_scale_unit"] == ("examples" if work_of(name).is_gradient else "clients")
    assert np.isfinite(rows[-1]["round_trace"]) and np.isfinite(rows[-1]["test_loss"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mechanism", ["client_central", "example_local", "example_central"])
def test_privacy_takes_what_declares_that_it_may(name, mechanism, make_config):
    config = make_config(
        f"client_work={name}", *model_of(name), f"privacy={mechanism}", *PRIVATE, "rounds=2", "executor=auto"
    )
    unit, work = mechanism.split("_")[0], work_of(name)
    fits = unit in works.protected(work) and (mechanism != "example_central" or work.is_gradient)
    if fits:
        assert run(config)[1]["rounds"] == 2
        return
    with pytest.raises(ConfigError, match="client_work: ") as refused:
        task.load(config.to_json())
    assert "\n" not in str(refused.value) and "; use" in str(refused.value)


class SpoiledExtras(LocalSGD):
    """Sends something that is not finite beside a good update, for who takes the most steps."""

    is_plain_sgd = False
    extras: ClassVar = {"more": 1}

    def finish(self, params, point, carry, steps):
        more = torch.where(steps == 8, torch.nan, 1.0)
        return super().finish(params, point, carry, steps)._replace(extras={"more": more})


@pytest.mark.parametrize("executor", ["loop", "vmap"])
def test_who_sends_something_that_is_not_finite_is_left_out(executor):
    job = replace(make_job("mlp", "cross_entropy", "epochs"), work=SpoiledExtras(0.1, epochs=2))
    steps = np.count_nonzero(job.draw.counts, axis=1)
    assert (steps == 8).sum() == 1
    done = Executors().execute(job, executor)
    assert done.excluded.tolist() == np.flatnonzero(steps == 8).tolist()
    assert float(done.extra_sums) == pytest.approx(job.weights[steps != 8].sum())


def test_what_is_sent_or_kept_besides_is_not_private():
    for kind in ("extras", "own", "shared"):
        work = type("Work", (), {kind: {"more": 1}, "is_plain_sgd": False})()
        assert works.protected(work) == frozenset()
    plain = LocalSGD(0.1)
    assert works.protected(plain) == {"client", "example"}
    assert works.protected(LocalMomentum(0.1)) == {"client"} and not works.protected(LocalMomentum(0.1, keep=True))
    assert works.protected(type("Work", (LocalSGD,), {"privacy_units": ("client",)})(0.1)) == {"client"}
