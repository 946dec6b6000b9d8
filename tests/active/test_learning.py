"""What a run with queries refuses, each in one line with the remedy, and when it queries."""

import pytest

from fedbatch.active.learning import ActiveLearning
from fedbatch.active.selectors import Margin
from fedbatch.core.errors import ConfigError
from fedbatch.privacy import ClientCentral, ExampleLocal
from fedbatch.setup import task
from fedbatch.setup.checks import check_active
from fedbatch.setup.validate import validate


def test_stages_are_equal_and_the_rest_belongs_to_the_last():
    active = ActiveLearning(Margin(), "two_level", 10, 5, 2, False)
    due = [round_ for round_ in range(11) if active.is_due(round_, 11)]
    assert due == [0, 3, 6]
    assert [active.query_of(round_, 11) for round_ in range(11)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["active=margin", "active.scope=all"], "scope must be one of two_level, global_only, local_only"),
        (["active=margin", "active.queries=0"], "queries must be at least 1"),
        (["active=margin", "active.labels_per_query=0"], "labels_per_query must be in"),
        (["active=coreset", "active.scope=two_level"], "this one compares embeddings, .*use active.scope=local_only"),
        (["active=cluster_margin", "active.selector.epsilon=1"], "set one of epsilon and mean_cluster_size"),
        (
            ["active=cluster_margin", "active.selector.candidates_per_label=0.5"],
            "candidates_per_label must be in",
        ),
        (["active=cluster_margin", "active.selector.min_cluster_size=0"], "min_cluster_size must be in"),
    ],
)
def test_values_are_refused_without_torch(make_config, overrides, line):
    with pytest.raises(ConfigError, match=line) as caught:
        validate(make_config(*overrides, "controller=fixed"))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("active")


def plan(**changes):
    given = {"selector": Margin(), "scope": "two_level", "seed_labels": 100, "labels_per_query": 100, "queries": 1}
    return ActiveLearning(**given | {"retrain": False} | changes)


@pytest.mark.parametrize(
    ("active", "unit", "labels", "line"),
    [
        (plan(queries=4), None, (False, 1438), r"rounds \(4\) must be more than active.queries \(4\)"),
        (plan(labels_per_query=1400), None, (False, 1438), "1500 labels are wanted of 1438 examples; lower"),
        (plan(), None, (True, 1438), "labels of single positions cannot be queried"),
        (
            plan(),
            ClientCentral,
            (False, 1438),
            "active.scope=two_level sends counts, and two_level raw centroids, outside of the",
        ),
        (plan(scope="global_only"), ClientCentral, (False, 1438), "use active.scope=local_only or privacy=none"),
        (plan(scope="local_only"), ExampleLocal, (False, 1438), "which example-level privacy does not cover"),
    ],
)
def test_what_does_not_go_together_is_refused(make_config, active, unit, labels, line):
    config = make_config("controller=fixed")
    check_active(config, plan(), None, False, 1438)
    check_active(config, plan(scope="local_only"), ClientCentral, False, 1438)
    with pytest.raises(ConfigError, match=line) as caught:
        check_active(config, active, unit, *labels)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_private_run_that_sends_counts_is_refused_when_it_loads(make_config):
    private = ["privacy=client_central", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0"]
    with pytest.raises(ConfigError, match="outside of the privacy guarantee"):
        task.load(make_config("active=margin", "active.queries=1", "controller=fixed", *private).to_json())
