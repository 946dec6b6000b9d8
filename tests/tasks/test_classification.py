"""Classes: accuracy is scikit-learn's, other tasks' columns are ranges that are held to, and nodes cannot lie."""

import numpy as np
import pytest
import torch
from sklearn import metrics

import fedbatch
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.core.scores import Score, checked
from fedbatch.tasks import Classification
from fedbatch.tasks.classification import ACCURACY
from tests.conftest import toy_dataset


class LateWrong(Classification):
    """Right of a few examples, and wrong of many."""

    def columns(self, counts, sums, at):
        return {"accuracy": np.where(np.asarray(counts) >= 10, 1.5, 0.5)}


class Short(Classification):
    """One number an example, and no row."""

    def sums(self, outputs, targets, at):
        return (outputs.argmax(dim=1) == targets).double()


class Loss(Classification):
    """A second loss."""

    scores = (ACCURACY, Score("loss", "", "lower"))


class Sideways(Classification):
    """A direction that is none."""

    scores = (Score("accuracy", "", "up"),)


class Nameless(Classification):
    """Another column than it says."""

    def columns(self, counts, sums, at):
        return {"right": sums[..., 0] / counts}


class Unscored(Classification):
    """Its score is none of its columns."""

    score = "f1"


def test_accuracy_is_scikit_learns(learn, predictions):
    data = toy_dataset(200)
    found = learn(data, "task=classification", client_holdout=0.2)
    predicted = predictions(found, data.test_x).argmax(dim=1)
    assert found.summary["test_accuracy"] == metrics.accuracy_score(data.test_y, predicted)
    assert found.summary["score"] == "test_accuracy" and "client_accuracy_p50" in found.rounds.columns


def test_auto_and_classification_are_the_same_run(learn):
    data = toy_dataset(200)
    auto, named = learn(data, folder="a"), learn(data, "task=classification", folder="b")
    assert auto.summary["params_sha256"] == named.summary["params_sha256"]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Nameless(), r"^task: test_accuracy: the task gives only right"),
        (Short(), r"^task: its sums must be float64 of shape \(\d, 1\), a row an example .* \(got \(\d,\)"),
        (Loss(), r"^task: its scores \(accuracy, loss\) must have different names, and none may be 'loss'"),
        (Sideways(), r"^task: accuracy must be better when 'higher' or 'lower' \(got 'up'\)"),
    ],
)
def test_a_task_that_cannot_be_scored_is_refused_before_the_run(learn, task, said):
    with pytest.raises(ConfigError, match=said) as refusal:
        learn(toy_dataset(200), task=task)
    assert "\n" not in str(refusal.value)


def test_a_score_outside_its_range_ends_the_run_and_names_the_column(learn):
    with pytest.raises(RunFailedError, match=r"^test_accuracy is 1.5, outside \[0, 1\]: the task's sums are wrong$"):
        learn(toy_dataset(200), task=LateWrong())


def test_a_task_that_lacks_its_own_score_is_refused(learn):
    with pytest.raises(ConfigError, match=r"^task: its score 'f1' must be one of its scores \(accuracy\)"):
        learn(toy_dataset(200), task=Unscored())
    with pytest.raises(ConfigError, match=r"^task: .*has no rule, scores, score"):
        learn(toy_dataset(200), task=torch.nn.ReLU(), folder="b")


@pytest.mark.parametrize(("value", "good"), [(1 + 1e-9, True), (1.1, False), (-0.1, False), (np.nan, True)])
def test_ranges_have_both_ends_and_room_for_rounding(value, good):
    scores = [Score("share", "", "higher", 0, 1)]
    if good:
        assert list(checked(scores, {"share": value}, "test_")) == ["test_share"]
    else:
        with pytest.raises(RunFailedError, match=r"^test_share is "):
            checked(scores, {"share": np.array([0.5, value])}, "test_")


def test_a_sweep_compares_runs_by_the_score_of_their_task():
    from fedbatch.cli.app import reached

    regression = {"test_r2": 0.5, "score": "test_r2", "test_loss": 2.0}
    assert reached(regression, "test_accuracy") == 0.5 and reached(regression, "test_loss") == 2.0
    assert reached({"test_accuracy": 0.25}, "test_accuracy") == 0.25


def test_runs_of_several_tasks_stand_in_one_table(learn, tmp_path):
    from tests.tasks.test_regression import homes

    learn(toy_dataset(200), folder="a"), learn(homes(), "task=regression", folder="b")
    runs = fedbatch.load_runs(tmp_path)
    assert runs["score"].to_list() == ["test_accuracy", "test_r2"]
    assert runs["test_r2"].is_null().to_list() == [True, False]
