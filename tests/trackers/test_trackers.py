"""Trackers see every round, and none of them can cost a run."""

import importlib.machinery
import json
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedbatch.core.errors import ConfigError
from fedbatch.setup import validate
from fedbatch.trackers.following import following
from tests.conftest import run


def events(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return found


def points(folder, tag):
    return [(event.step, event.value) for event in events(folder).Scalars(tag)]


def test_tensorboard_has_scalars_histograms_and_the_config(make_config, tmp_path):
    tracker = validate.trackers(make_config("tracker=tensorboard", "tracker.tensorboard.every_rounds=2"))
    nan = float("nan")
    with following(tracker, tmp_path, {"seed": 5}, 0) as log:
        for rounds, loss in ((1, nan), (2, nan), (3, 0.5)):
            row = {"rounds": rounds, "lr": 0.25 * rounds, "test_loss": loss, "switch": "why" if rounds == 2 else ""}
            log(row | {"attention_logit_max": [[1.0, 2.0]], "client_norms": [3.0, 1.0, 0.5]})
    written = tmp_path / "tensorboard"
    assert points(written, "round/lr") == [(2, 0.5), (3, 0.75)]  # every second, and the evaluated
    assert points(written, "test/test_loss") == [(3, 0.5)]
    assert events(written).Histograms("round/attention_logit_max")[0].histogram_value.max == 2.0
    assert events(written).Histograms("clients/client_norms")[0].histogram_value.sum == 4.5
    tensors = events(written).Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    assert b"seed: 5" in tensors and events(written).Tensors("switch/text_summary")[0].step == 2


def test_tensorboard_forgets_what_lies_behind_the_checkpoint(make_config, tmp_path):
    tracker = validate.trackers(make_config("tracker=tensorboard"))
    for from_round, losses in ((0, [1.0, 2.0, 3.0]), (2, [5.0, 6.0])):  # killed after 3 rounds, checkpoint after 2
        with following(tracker, tmp_path, {}, from_round) as log:
            for i, loss in enumerate(losses, from_round + 1):
                log({"rounds": i, "test_loss": loss, "switch": ""})
    assert points(tmp_path / "tensorboard", "test/test_loss") == [(1, 1.0), (2, 2.0), (3, 5.0), (4, 6.0)]


@pytest.mark.slow
def test_a_resumed_run_goes_on(make_config):
    run(make_config("tracker=tensorboard", "rounds=2"))
    config = make_config("tracker=tensorboard", "rounds=4")
    config.resume = config.run_dir
    rows, _, _ = run(config)
    written = points(f"{config.run_dir}/tensorboard", "round/train_loss")
    assert [step for step, _ in written] == [1, 2, 3, 4]
    assert [value for _, value in written] == pytest.approx([row["train_loss"] for row in rows])


class Recorder:
    """A tracker that breaks at a given round."""

    def __init__(self, breaks_at=None):
        self.rounds, self.ended, self.breaks_at = [], None, breaks_at

    @contextmanager
    def following(self, folder, config, from_round):
        def log(row):
            if row["rounds"] == self.breaks_at:
                raise ConnectionError("server is away\nmore")
            self.rounds.append(row["rounds"])

        try:
            yield log
            self.ended = "well"
        except ValueError as error:
            self.ended = str(error)
            raise


def test_one_that_fails_is_named_and_left_out(tmp_path, caplog):
    good, bad = Recorder(), Recorder(breaks_at=2)
    with following({"bad": bad, "good": good}, tmp_path, {}, 0) as log:
        for rounds in (1, 2, 3):
            log({"rounds": rounds})
    assert (good.rounds, bad.rounds) == ([1, 2, 3], [1])
    assert caplog.messages == ["tracker.bad: server is away; the run goes on without it"]


def test_failure_of_the_run_reaches_the_trackers_and_comes_back(tmp_path):
    tracker = Recorder()
    with pytest.raises(ValueError, match="diverged"), following({"one": tracker}, tmp_path, {}, 0):
        raise ValueError("diverged")
    assert tracker.ended == "diverged"


@pytest.fixture
def stand_in(monkeypatch):
    """A module with the calls of mlflow and wandb that are made, which it notes."""
    calls = []

    @contextmanager
    def started(**more):
        calls.append(("start", more.get("run_name", more.get("name"))))
        yield types.SimpleNamespace(log=lambda values, step: calls.append(("log", values, step)))

    for name in ("mlflow", "wandb"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.start_run = module.init = started
        module.Settings = dict
        module.log_metrics = lambda values, step: calls.append(("log", values, step))
        for ignored in ("set_tracking_uri", "set_experiment", "set_tag", "log_params"):
            setattr(module, ignored, lambda *arguments: None)
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_trackio_gets_rows_under_their_rounds_and_an_end(make_config, monkeypatch, capsys):
    calls = []
    module = types.ModuleType("trackio")
    module.__spec__ = importlib.machinery.ModuleSpec("trackio", None)

    def init(project, name, config, **_):
        print("uploading")
        calls.append((project, name, config["rounds"], config["from_round"]))
        return types.SimpleNamespace(log=lambda values, step: calls.append((values["train_loss"], step)))

    module.init, module.finish = init, lambda: calls.append("finished")
    monkeypatch.setitem(sys.modules, "trackio", module)
    rows, _, _ = run(make_config("tracker=trackio", "rounds=2"))
    assert calls == [("fedbatch", "run", 2, 0), *((row["train_loss"], row["rounds"]) for row in rows), "finished"]
    assert "uploading" not in capsys.readouterr().out


def test_several_at_once(make_config, stand_in):
    config = make_config("tracker=[mlflow,wandb]", "rounds=2")
    rows, _, _ = run(config)
    assert stand_in[:2] == [("start", "run"), ("start", "run")]
    logged = [(values["train_loss"], step) for kind, values, step in stand_in[2:]]
    assert logged == [(row["train_loss"], row["rounds"]) for row in rows for _ in range(2)]


def test_what_is_not_installed_is_said_before_the_run(make_config, monkeypatch):
    monkeypatch.setattr("fedbatch.trackers.following.find_spec", lambda name: None)
    config = make_config("tracker=tensorboard")
    with pytest.raises(ConfigError, match=r"tensorboard is not installed; pip install 'fedbatch\[tensorboard\]'"):
        validate.validate(config)


@pytest.mark.parametrize(
    "override, text",
    [("tensorboard.every_rounds=0", "every_rounds must be in"), ("wandb.mode=of", "offline or online")],
)
def test_arguments_are_checked(make_config, stand_in, override, text):
    name = override.split(".")[0]
    with pytest.raises(ConfigError, match=text):
        validate.trackers(make_config(f"tracker={name}", f"tracker.{override}"))


def test_profiler_sees_the_matrix_products_of_the_rounds_it_was_asked_for(make_config):
    config = make_config("tracker=profiler", "tracker.profiler.rounds=2", "executor=fused", "controller=fixed")
    run(config)
    lines = (Path(config.run_dir) / "profile.txt").read_text().splitlines()
    steps = next(line.split() for line in lines if "Optimizer.step#SGD.step" in line)
    assert int(steps[-1]) == 2  # of four rounds
    assert any("aten::addmm" in line or "aten::mm" in line or "aten::bmm" in line for line in lines)
    assert json.loads((Path(config.run_dir) / "profile.json").read_text())["traceEvents"]


def test_a_private_run_is_not_profiled(make_config, caplog):
    options = "privacy.noise_multiplier=1", "privacy.target_epsilon=null", "controller=fixed"
    config = make_config("tracker=profiler", "privacy=client_central", *options)
    with caplog.at_level("WARNING", "fedbatch"):
        run(config)
    assert any("tracker.profiler: how long operations take" in line for line in caplog.messages)
    assert not (Path(config.run_dir) / "profile.txt").exists()


def test_what_cannot_follow_a_run_is_refused_before_it(make_config):
    config = make_config("+tracker.mine._target_=collections.OrderedDict")
    with pytest.raises(ConfigError, match="tracker.mine is a OrderedDict, which has no following; see"):
        validate.trackers(config)
