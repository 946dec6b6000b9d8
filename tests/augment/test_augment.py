"""Augmentations follow their keys: executors, nodes and resumed runs agree; and what they do to an image."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import fedbatch
from fedbatch.augment import FlipCrop, Transform
from fedbatch.core.errors import ConfigError
from tests.conftest import run
from tests.tasks.shapes import model, shapes


class Noise(nn.Module):
    """Draws from all three generators."""

    def forward(self, x):
        return x + torch.randn_like(x) + random.random() + np.random.rand()


def loop_over(x, keys, flip, padding):
    """The candidates of each image: all its crops and their mirror images."""
    padded = nn.functional.pad(x, [padding] * 4)
    size = x.shape[-1]
    crops = [padded[:, :, i : i + size, j : j + size] for i in range(2 * padding + 1) for j in range(2 * padding + 1)]
    return crops + [crop.flip(-1) for crop in crops] if flip else crops


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 2])
def test_an_image_becomes_one_of_its_crops_or_their_mirror_images(flip, padding):
    x, keys = torch.randn(400, 2, 5, 5), np.arange(400)
    found, candidates = FlipCrop(flip, padding)(x, keys), loop_over(x, keys, flip, padding)
    which = [[bool((c[i] == found[i]).all()) for c in candidates].index(True) for i in range(400)]
    shares = np.bincount(which, minlength=len(candidates)) / 400
    assert (abs(shares - 1 / len(candidates)) < 5 * (1 / len(candidates) / 400) ** 0.5 + 1e-9).all()


@pytest.mark.parametrize("augment", [FlipCrop(True, 1), Transform(Noise())])
def test_an_example_depends_on_its_key_alone_and_generators_are_left_alone(augment):
    x, keys = torch.randn(6, 1, 4, 4), np.array([5, 3, 9, 9, 1, 5])
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    whole = augment(x, keys)
    assert (torch.rand(1), random.random(), np.random.rand()) == expected
    assert torch.equal(whole[[4, 1]], augment(x[[4, 1]], keys[[4, 1]]))
    assert not torch.equal(augment(x[:1], np.array([1])), augment(x[:1], np.array([2])))


CHOSEN = ("controller=fixed", "model=cnn", "model.channels=2", "model.hidden=4", "augment=flip_crop", "rounds=4")
NAMES = ("test_loss", "noise_scale", "train_loss")


@pytest.mark.parametrize("others", [["executor=vmap"], ["executor=fused"], ["executor=loop", "nodes=3"]])
@pytest.mark.parametrize("work", [[], ["client_work=local_sgd"]])
def test_executors_and_nodes_agree(make_config, others, work):
    if work and "executor=fused" in others:
        pytest.skip("fused is for one step")
    loop = run(make_config(*CHOSEN, *work, "executor=loop", folder="loop"))[1]
    found = run(make_config(*CHOSEN, *work, *others, folder="other"))[1]
    assert [found[name] for name in NAMES] == pytest.approx([loop[name] for name in NAMES], rel=1e-4)


def test_a_resumed_run_goes_on_as_it_would(make_config, tmp_path):
    whole = run(make_config(*CHOSEN, "executor=loop", folder="whole"))[1]
    run(make_config(*CHOSEN, "executor=loop", "rounds=2", folder="half"))
    resumed = fedbatch.run(resume=tmp_path / "half", rounds=4).summary
    plain = run(make_config(*CHOSEN, "executor=loop", "augment=none", folder="plain"))[1]
    assert resumed["params_sha256"] == whole["params_sha256"] != plain["params_sha256"]


def test_a_private_run_of_whole_clients_works(make_config):
    private = ("privacy=client_central", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0")
    assert run(make_config(*CHOSEN, *private, "rounds=2"))[1]["rounds"] == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["dataset=breast_cancer"], r"^augment: FlipCrop is for images \(C, H, W\), and an example has shape \(30,\)"),
        (["augment.padding=-1"], r"^augment.padding must be"),
        (["privacy=example_local"], r"^augment: example-level privacy takes examples as they are"),
        (["augment=transform", "augment.transform._target_=torch.nn.Flatten", "~augment.transform.p"], r"^augment: "),
    ],
)
def test_what_cannot_be_is_refused(make_config, overrides, said):
    with pytest.raises(ConfigError, match=said) as refusal:
        run(make_config("controller=fixed", "augment=flip_crop", *overrides))
    assert "\n" not in str(refusal.value)


def test_pixels_with_classes_stay_where_they_are(tmp_path):
    common = ("augment=flip_crop", "controller=fixed", "population=10", "cohort_size=4")
    with pytest.raises(ConfigError, match=r"^augment: labels of pixels would have to move"):
        fedbatch.run(*common, dataset=lambda: shapes(), model=model, run_dir=tmp_path / "run")


def test_draws_of_ones_own_are_found_out(make_config, tmp_path):
    with pytest.raises(ConfigError, match=r"^augment: gives two results for the same examples and keys"):
        fedbatch.run(
            "dataset=digits", "controller=fixed", augment=lambda x, keys: x + torch.randn_like(x), run_dir=tmp_path
        )
