"""The example on the page "Inputs" runs, what it quotes is said, and its table names what executors do."""

import re
from pathlib import Path

import pytest

import fedbatch
from fedbatch.core.errors import ConfigError
from fedbatch.setup import task

PAGE = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text()


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The files of the example, where they are found."""
    for name, text in re.findall(r"```(?:python|yaml)\n# (words\.py|conf/\S+)\n(.*?)```", PAGE, re.S):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_example_runs(written):
    import yaml

    parts = {
        part: yaml.safe_load((written / f"conf/{part}.yaml").read_text())
        for part in ("dataset/sentences", "model/mean")
    }
    found = fedbatch.run(
        *("controller=fixed", "population=20", "cohort_size=10", "client_batch_size=16", "rounds=100", "report=none"),
        *("server_optimizer=adam", "server_optimizer.lr=0.02", "evaluate_every_rounds=0"),
        dataset=parts["dataset/sentences"],
        model=parts["model/mean"],
        run_dir=written / "run",
    )
    assert found.summary["test_accuracy"] > 0.95
    assert type(found.model).__name__ == "Mean" and next(iter(found.model.state_dict())) == "words.weight"


def test_the_refusals_are_quoted_as_they_are(make_config, written):
    from dataclasses import replace

    config = make_config("controller=fixed", base=("population=20", "cohort_size=10", "client_batch_size=16"))
    config = replace(config, dataset={"_target_": "words.sentences"}, model={"_target_": "words.Mean"})
    with pytest.raises(ConfigError) as error:
        task.load(config.to_json())
    assert f"fedbatch: {error.value} " in " ".join(PAGE.split()), "lines are folded there"
