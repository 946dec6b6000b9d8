"""Regression against scikit-learn, through every executor, from tables, and what is refused."""

import numpy as np
import pytest
import torch
from sklearn import metrics

import fedbatch
from fedbatch.core.errors import ConfigError
from fedbatch.data.dataset import Dataset
from fedbatch.losses import MAE, MSE, Huber
from fedbatch.tasks import Regression


def homes(outputs=None, offset=0.0, examples=300):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, 5)).astype(np.float32)
    y = x @ rng.normal(size=(5, outputs or 1)) + 0.3 * rng.normal(size=(examples, outputs or 1)) + offset
    cut = examples * 4 // 5
    y = y if outputs else y[:, 0]
    return Dataset("homes", x[:cut], y[:cut], x[cut:], y[cut:])


def scored(task, outputs, labels):
    sums = task.sums(torch.as_tensor(outputs), task.targets(labels), torch.from_numpy(task.at)).numpy()
    return task.columns(np.array(float(len(labels))), sums.sum(axis=0), task.at)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 1e5, -1e9])
@pytest.mark.parametrize("standardise", [False, True])
def test_scores_are_scikit_learns_far_from_zero_too(width, offset, standardise):
    rng = np.random.default_rng(1)
    labels = rng.normal(size=(500, width)) * 30 + offset
    if not standardise and abs(offset) > 1e6:
        pytest.skip("refused: float32 cannot tell such labels apart")
    task = Regression(standardise=standardise).fitted(labels, None)
    targets = task.targets(labels).double().numpy()
    outputs = targets + 0.2 * rng.normal(size=labels.shape)
    scale, centre = (task.facts()["label_scale"], task.facts()["label_centre"]) if standardise else (1.0, 0.0)
    truth, predicted = targets * scale + centre, outputs * scale + centre
    found = scored(task, outputs, labels)
    assert found["r2"] == pytest.approx(metrics.r2_score(truth, predicted), abs=1e-9)
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(truth, predicted), rel=1e-6)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, predicted), rel=1e-6)


def test_sums_of_parts_are_the_sums_of_all_at_the_servers_constant():
    """A node's own mean must not be in what it answers."""
    rng = np.random.default_rng(2)
    labels = np.sort(rng.normal(size=(90, 2)) * 5 + 1000, axis=0)
    server, outputs = Regression().fitted(labels, None), torch.from_numpy(labels + rng.normal(size=labels.shape))
    at, parts = torch.from_numpy(server.at), []
    for rows in (slice(0, 10), slice(10, 90)):
        node = Regression().fitted(labels[rows], None)
        parts.append(node.sums(outputs[rows], node.targets(labels[rows]), at).numpy().sum(axis=0))
    found = server.columns(np.array(90.0), sum(parts), server.at)
    assert found["r2"] == pytest.approx(metrics.r2_score(server.targets(labels), outputs.numpy()), abs=1e-9)


def test_nothing_and_labels_that_do_not_vary_have_no_r2():
    task = Regression().fitted(np.arange(4.0)[:, None], None)
    sums = task.sums(torch.zeros(3, 1), torch.full((3, 1), 0.1), torch.from_numpy(task.at)).numpy()
    found = task.columns(np.array([0.0, 1.0, 3.0]), np.stack([0 * sums[0], sums[0], sums.sum(axis=0)]), task.at)
    assert np.isnan(found["r2"]).all() and found["mse"][1:] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("loss", "oracle"),
    [(MSE(), torch.nn.MSELoss()), (MAE(), torch.nn.L1Loss()), (Huber(0.7), torch.nn.HuberLoss(delta=0.7))],
)
def test_losses_are_torchs(loss, oracle):
    a, b = torch.randn(2, 6, 3, dtype=torch.float64)
    assert torch.allclose(loss(a, b), oracle(a, b))
    alone = torch.stack([oracle(x, y) for x, y in zip(a, b, strict=True)])
    assert torch.allclose(loss(a, b, reduction="none"), alone)


@pytest.mark.parametrize("outputs", [None, 2])
def test_a_run_is_scored_as_scikit_learn_scores_its_model(learn, predictions, outputs):
    data = homes(outputs)
    found = learn(data, "averaging=none", client_holdout=0.2, training_set_examples=40)  # the labels say what it is
    predicted, truth = predictions(found, data.test_x).numpy(), data.test_y.reshape(60, -1)
    expected = {"r2": metrics.r2_score, "mse": metrics.mean_squared_error, "mae": metrics.mean_absolute_error}
    for name, score in expected.items():
        assert found.summary[f"test_{name}"] == pytest.approx(score(truth, predicted), rel=1e-5)
    assert found.summary["test_loss"] == pytest.approx(found.summary["test_mse"], rel=1e-5)
    assert {"training_set_r2", "client_r2_p5", "client_r2_p95"} <= set(found.rounds.columns)
    assert found.summary["score"] == "test_r2" and "test_accuracy" not in found.rounds.columns
    assert found.summary["task_loss"] == "MSE"  # in the place of the config's cross-entropy


@pytest.mark.parametrize("executor", ["fused", "vmap"])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_executors_agree_with_the_loop(learn, executor, loss):
    data, common = homes(2), ("task=regression", f"loss={loss}", "task.standardise=true")
    loop = learn(data, *common, "executor=loop", folder="loop")
    found = learn(data, *common, f"executor={executor}", folder=executor)
    assert found.summary["test_mse"] == pytest.approx(loop.summary["test_mse"], rel=1e-5)
    assert found.summary["noise_scale"] == pytest.approx(loop.summary["noise_scale"], rel=1e-3)


def test_a_loss_of_torch_is_taken_by_example(learn):
    ours = learn(homes(), "task=regression", "executor=fused", folder="ours")
    theirs = learn(homes(), "task=regression", "executor=fused", loss=torch.nn.MSELoss(), folder="theirs")
    assert theirs.summary["test_mse"] == pytest.approx(ours.summary["test_mse"], rel=1e-5)


@pytest.mark.parametrize("mechanism", ["example_local", "client_central"])
def test_private_runs_work(learn, mechanism):
    privacy = (f"privacy={mechanism}", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0")
    known = "task.standardise=true", "task.centre=0", "task.scale=1"
    found = learn(homes(), "task=regression", *known, *privacy, "cohort_size=10")
    assert np.isfinite(found.summary["test_r2"])


def test_standardised_labels_are_scored_in_their_own_units(learn, predictions):
    data = homes(offset=5000.0)
    found = learn(data, "task=regression", "task.standardise=true")
    (centre,), (scale,) = found.summary["label_centre"], found.summary["label_scale"]
    assert centre == pytest.approx(data.train_y.mean()) and scale == pytest.approx(data.train_y.std())
    predicted = predictions(found, data.test_x).numpy()[:, 0] * scale + centre
    assert found.summary["test_mse"] == pytest.approx(metrics.mean_squared_error(data.test_y, predicted), rel=1e-5)


def test_a_target_is_reached_by_the_score_and_its_direction(learn):
    assert len(learn(homes(), "task=regression", target_value=-50.0).rounds) == 2
    found = learn(homes(), "task=regression", "target_metric=test_mse", target_value=1e9, folder="b")
    assert len(found.rounds) == 2


def test_a_table_with_a_column_of_numbers(tmp_path):
    data = homes()
    x, y = (np.concatenate(each) for each in ((data.train_x, data.test_x), (data.train_y, data.test_y)))
    lines = [",".join(map(repr, (*map(float, row), float(label)))) for row, label in zip(x, y, strict=True)]
    file = tmp_path / "homes.csv"
    file.write_text("\n".join(["a,b,c,d,e,price", *lines]) + "\n")
    table = ("dataset=hugging_face", f"dataset.source={file}", "dataset.input_column=[a,b,c,d,e]")
    common = ("controller=fixed", "population=10", "cohort_size=4", "rounds=2", "report=none")
    found = fedbatch.run(*table, "dataset.label_column=price", "task=regression", *common, run_dir=tmp_path / "run")
    assert np.isfinite(found.summary["test_r2"])
    with pytest.raises(ConfigError, match=r"label_column=price must hold integers .* task=regression"):
        fedbatch.run(*table, "dataset.label_column=price", *common, run_dir=tmp_path / "other")
    with pytest.raises(ConfigError, match=r"label_column must be one column of classes"):
        fedbatch.run(*table[:2], "dataset.input_column=a", "dataset.label_column=[b,c]", *common)


@pytest.mark.parametrize("partitioner", ["dirichlet", "pathological", "shard"])
def test_partitions_by_label_are_refused_or_go_by_bins(learn, partitioner):
    chosen = (f"partitioner={partitioner}", "task=regression")
    with pytest.raises(ConfigError, match=r"^partitioner.partition_by=label: .*partition_by=label_bin"):
        learn(homes(), *chosen)
    assert learn(homes(), *chosen, "partitioner.partition_by=label_bin").summary["rounds"] == 4
    with pytest.raises(ConfigError, match="use partitioner=iid"):
        learn(homes(2), *chosen, "partitioner.partition_by=label_bin", folder="b")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["metrics=calibration"], r"^metrics: .* set metrics=accuracy"),
        (["active=margin"], r"^active: .* set active=none"),
        (["client_holdout=0.2", "temperature=shared"], r"^temperature: .* set temperature=none"),
        (["client_holdout=0.2", "privacy=client_central", "privacy.accuracy_noise=10"], r"^privacy.accuracy_noise: "),
        (["target_metric=test_macro_f1", "target_value=1"], r"^target_metric=test_macro_f1 is no score of this task"),
        (["loss=huber", "loss.delta=0"], r"^loss.*delta must be"),
        (["task.centre=1.0"], r"^task: centre and scale are for standardise=true"),
        (["task.standardise=true", "task.scale=0.0"], r"^task.scale must be"),
        (["task.standardise=true", "task.centre=[1.0,2.0]"], r"^task.centre must be one number, or one for each of 1"),
    ],
)
def test_what_needs_classes_and_what_is_out_of_range_is_refused(learn, overrides, said):
    with pytest.raises(ConfigError, match=said) as refusal:
        learn(homes(), "task=regression", *overrides)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (lambda y: np.where(y > 0, y, np.nan), r"train_y is not a finite number in \d+ of 240 rows"),
        (lambda y: y + 1e9, r"which float32 cannot tell apart; set task.standardise=true"),
        (lambda y: y[:, None, None], r"labels are \(examples,\) or \(examples, outputs\)"),
        (lambda y: y.astype(str), r"train_y holds text"),
        (
            lambda y: np.where(y == y.max(), 1e60 * (len(y) < 100), y),
            r"labels are beyond the range of float32 in 1 of 60",
        ),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(learn, labels, said):
    data = homes()
    wrong = Dataset("homes", data.train_x, labels(data.train_y), data.test_x, labels(data.test_y))
    with pytest.raises(ConfigError, match=said):
        learn(wrong, "task=regression")


def test_a_model_of_another_width_is_refused(learn):
    with pytest.raises(ConfigError, match=r"it must hold numbers of shape \(8, 1\)$"):
        learn(homes(), "task=regression", model=lambda: torch.nn.Sequential(torch.nn.Linear(5, 1), torch.nn.Flatten(0)))


def test_whole_numbers_are_numbers_where_the_task_says_so(learn):
    data = homes()
    whole = Dataset("counts", data.train_x, np.round(data.train_y).astype(int), data.test_x, np.round(data.test_y))
    assert "test_r2" in learn(whole, "task=regression").summary
    with pytest.raises(ConfigError, match=r"num_classes is missing; give it, or set task=regression"):
        learn(whole, folder="b")


def test_a_node_with_data_of_its_own_needs_the_scale_in_the_config(make_config):
    from fedbatch.setup.nodes import on_own_data

    data = ("dataset=hugging_face", "dataset.source=x", "dataset.input_column=a", "task=regression")
    node = {"data": "y", "partition-id": 0, "num-partitions": 2}
    config = make_config(*data, "task.standardise=true", base=())
    with pytest.raises(ConfigError, match=r"give numbers as task.centre and task.scale"):
        on_own_data(config, node)
    on_own_data(make_config(*data, "task.standardise=true", "task.centre=1.0", "task.scale=2.0", base=()), node)


def test_a_private_run_is_not_told_the_mean_of_all_labels():
    from fedbatch.config.compose import composed
    from fedbatch.config.schema import parse
    from fedbatch.core.errors import ConfigError
    from fedbatch.data.dataset import Dataset
    from fedbatch.setup.learning import learning_of

    x, y = np.zeros((8, 2), np.float32), np.arange(8.0)[:, None]
    options = ["task=regression", "task.standardise=true", "privacy=client_central", "run_dir=x"]
    data = Dataset("d", x, y, x, y, 1)
    with pytest.raises(ConfigError, match=r"task\.centre and task\.scale"):
        learning_of(parse(composed(options)), data)
    learning_of(parse(composed([*options, "task.centre=3", "task.scale=2", "metrics=accuracy"])), data)
