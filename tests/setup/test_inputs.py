"""Whole runs on inputs that are several arrays, against plain torch on the examples as they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fedbatch
from fedbatch.clients.clip import Clip
from fedbatch.clients.per_example import as_examples
from fedbatch.core.errors import ConfigError
from fedbatch.executors.choose import Executors
from fedbatch.models import named_output
from fedbatch.setup import task
from tests import own_inputs
from tests.conftest import PRIVATE, run
from tests.own_inputs import CLASSES, MeanOfWords, sequences

FORMS = ("named", "tuple", "ragged")
BASE = ("controller=fixed", "population=10", "cohort_size=3", "client_batch_size=4", "rounds=3")


@pytest.fixture
def config_of(make_config):
    def make(form, *overrides, model="MeanOfWords", output="logits", positions=False, **options):
        config = make_config(*overrides, base=BASE, **options)
        dataset = {"_target_": "tests.own_inputs.texts", "form": form, "label_a_position": positions}
        named = {} if output is None else {"output": output}
        return replace(config, dataset=dataset, model={"_target_": f"tests.own_inputs.{model}", **named})

    return make


def gradient(module, rows, labels):
    """Of the mean loss, each example alone and without any padding."""
    module.zero_grad()
    for row, label in zip(rows, labels, strict=True):
        out = module(torch.from_numpy(row)[None], torch.ones(1, len(row)))["logits"]
        (F.cross_entropy(out, torch.tensor([label])) / len(rows)).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters()])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("executor", ["loop", "fused", "vmap", "ghost"])
def test_a_sum_is_that_of_each_example_alone_without_padding(config_of, form, executor):
    loaded = task.load(config_of(form, "server_optimizer.lr=1").to_json())
    params = loaded.node_model.params.normal_(std=0.3, generator=torch.Generator().manual_seed(1)).clone()
    rows, labels = sequences()
    plain = MeanOfWords((), CLASSES)
    torch.nn.utils.vector_to_parameters(params, plain.parameters())
    if executor == "ghost":  # clips single examples
        chosen = np.arange(20)
        own = [gradient(plain, rows[i : i + 1], labels[i : i + 1]) for i in chosen]
        norm = float(torch.stack([g.norm() for g in own]).median())  # so that half of them are clipped
        job = replace(loaded.job_of(*as_examples(chosen, Clip(norm)), params), clip=Clip(norm))
        expected = sum(g * min(1.0, norm / float(g.norm())) for g in own)
    else:
        clients = np.arange(3)
        job = loaded.new_job(loaded.default_work, clients, np.full(3, 4), 0, params)
        drawn = [job.draw.positions[k, 0] for k in range(3)]
        expected = sum(4 * gradient(plain, [rows[i] for i in own], labels[own]) for own in drawn)
    got = Executors().execute(job, executor).update_sum
    assert float((got - expected).norm() / expected.norm()) < 1e-5


def test_a_label_a_position_does_not_depend_on_padding(config_of):
    loaded = task.load(config_of("ragged", positions=True, model="OfPositions", output=None).to_json())
    params = loaded.node_model.params.clone()
    job = loaded.new_job(loaded.default_work, np.arange(2), np.full(2, 4), 0, params)
    plain, (rows, _) = own_inputs.OfPositions((), CLASSES), sequences()
    torch.nn.utils.vector_to_parameters(params, plain.parameters())
    for i in job.draw.positions[:, 0].ravel():
        row = torch.from_numpy(rows[i])[None]
        F.cross_entropy(plain(row, torch.ones_like(row))[0], row[0] // 4).backward()
    expected = torch.cat([p.grad.flatten() for p in plain.parameters()])
    for executor in ("loop", "fused", "vmap"):
        got = Executors().execute(job, executor).update_sum
        assert float((got - expected).norm() / expected.norm()) < 1e-5


def test_what_is_said_at_padding_does_not_matter(config_of):
    task.load(config_of("ragged", positions=True, model="FixedPositions", output=None).to_json())


def test_the_noise_scale_in_tokens_is_by_the_mean_length(config_of):
    loaded = task.load(config_of("ragged", positions=True, model="OfPositions", output=None).to_json())
    assert loaded.labels_per_example == pytest.approx(np.mean([len(row) for row in sequences()[0][:90]]))
    private = ("privacy=example_local", "privacy.noise_multiplier=1", *PRIVATE[1:2])
    loaded = task.load(config_of("ragged", *private, positions=True, model="OfPositions", output=None).to_json())
    assert loaded.labels_per_example == 1, "lengths are not covered by the guarantee"


def test_the_three_forms_are_one_run(config_of):
    found = {form: run(config_of(form, folder=form)) for form in FORMS}
    for form in FORMS:
        assert torch.equal(found[form][2].params, found["named"][2].params), form
        assert found[form][1]["test_loss"] == found["named"][1]["test_loss"]


PARTS = {
    "local steps": ("client_work=local_sgd", "client_work.epochs=1"),
    "halves": ("noise_scale.halves=true",),
    "temperature": ("client_holdout=0.3", "temperature=shared", "metrics=calibration"),
    "active": ("active=margin", "active.seed_labels=20", "active.labels_per_query=10", "active.queries=1"),
    "compression": ("compression=top_k",),
    "client level": ("privacy=client_central", "sampling=poisson", "privacy.noise_multiplier=1", *PRIVATE[1:2]),
    "example level": ("privacy=example_local", "privacy.noise_multiplier=1", *PRIVATE[1:2]),
}


@pytest.mark.parametrize("part", PARTS)
def test_the_other_parts_of_a_run_take_several_arrays(config_of, part):
    rows, summary, _ = run(config_of("ragged", *PARTS[part]))
    assert len(rows) == 3 and np.isfinite(summary["test_loss"])


def test_a_broken_run_goes_on_and_its_model_is_ones_own(config_of, tmp_path):
    _, whole, state = run(config_of("ragged"))
    run(config_of("ragged", "rounds=2", folder="part"))
    task.load.cache_clear()
    _, resumed, again = run(replace(config_of("ragged", folder="part"), resume=str(tmp_path / "part")))
    assert torch.equal(state.params, again.params) and whole["test_loss"] == resumed["test_loss"]
    model = fedbatch.load_model(tmp_path / "run", trust=["tests"])
    rows, labels = sequences()
    with torch.no_grad():
        out = [model(torch.from_numpy(row)[None], torch.ones(1, len(row)))["logits"] for row in rows[90:]]
    loss = float(F.cross_entropy(torch.cat(out), torch.from_numpy(labels[90:])))
    assert loss == pytest.approx(whole["test_loss"], rel=1e-5)
    assert fedbatch.evaluate(tmp_path / "run", trust=["tests"])["test_loss"] == pytest.approx(loss, rel=1e-5)
    fedbatch.export(tmp_path / "run", tmp_path / "model.pt", trust=["tests"])
    assert list(torch.load(tmp_path / "model.pt")) == list(model.state_dict())


REFUSED = {
    "no output": (dict(output=None), (), "is a dict of hidden, logits; .* as output: logits"),
    "other output": (dict(output="logit"), (), "output='logit' is not in the dict of hidden, logits"),
    "other place": (dict(output=2), (), "output=2 is not in the dict of hidden, logits"),
    "hidden": (dict(output="hidden"), (), r"has shape \(4, 7, 8\)"),
    "kind of output": (dict(output=True), (), "model.output must be a key, an attribute or a place"),
    "output of one tensor": (dict(model="WithoutMask", output="logits"), (), "output='logits' is not in the Tensor"),
    "sees the padding": (dict(model="WithoutMask", output=None), (), "changes by .* without the padding to 7; .*mask"),
    "of one length": (dict(model="OfOneLength", output=None), (), "changes by .* without the padding to 7; .*mask"),
    "norm over padding": (dict(model="NormOverAll", output=None), (), "changes by .* without the padding to 7; .*mask"),
    "augmentation": ({}, ("augment=flip_crop",), r"several arrays here \(input 0 \(7,\)\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_one_line(config_of, name):
    options, overrides, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message) as error:
        task.load(config_of("ragged", *overrides, **options).to_json())
    assert "\n" not in str(error.value)


def test_a_model_of_one_array_says_what_it_was_given(config_of):
    config = replace(config_of("named"), model={"_target_": "fedbatch.models.mlp", "width": 8, "depth": 1})
    with pytest.raises(ConfigError, match=r"several arrays here: input_ids \(7,\), attention_mask \(7,\)"):
        task.load(config.to_json())


def test_a_model_and_data_given_as_objects_are_a_run_too(config_of, tmp_path):
    torch.manual_seed(0)
    model = named_output(MeanOfWords((), CLASSES), "logits")
    for form in FORMS:
        found = fedbatch.run(*BASE, model=model, dataset=own_inputs.texts(form), run_dir=tmp_path / form, report="none")
        assert np.isfinite(found.summary["test_loss"]) and type(found.model) is MeanOfWords
        assert isinstance(found.model(torch.zeros(1, 2).long(), torch.ones(1, 2)), dict)


def test_a_function_that_hands_any_keyword_on_is_not_given_what_nobody_takes(make_config):
    config = make_config(*BASE[:1], "dataset=digits", base=BASE[1:])
    config = replace(config, model={"_target_": "tests.own_inputs.like_torchvision", "width": 4})
    first, again = task.load(config.to_json()).node_model.params.clone(), task.load(config.to_json()).new_model().params
    assert len(first) == 64 * 4 + 4 + 4 * 10 + 10 and torch.equal(first, again)
    with pytest.raises(ConfigError, match="unexpected keyword argument 'depth'"):
        task.load(replace(config, model=config.model | {"depth": 4}).to_json())


@pytest.mark.parametrize("output", [1, "logits", -1])
def test_an_output_is_named_by_key_or_place(config_of, output):
    params = task.load(config_of("named", output=output).to_json()).node_model.params
    assert params.numel() == sum(p.numel() for p in MeanOfWords((), CLASSES).parameters())
