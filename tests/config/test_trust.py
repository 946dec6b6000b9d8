"""A config is code: a node, and whoever reads a folder of somebody else, builds only what it trusts."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from flwr.app import ConfigRecord, Message, RecordDict
from omegaconf import OmegaConf

import fedbatch
import tests.config
from fedbatch import client_app
from fedbatch.cli.commands import run_command
from fedbatch.config import trust
from fedbatch.config.compose import config_dir
from fedbatch.core.errors import ConfigError
from fedbatch.data import partition_cache
from fedbatch.runtime.flower import new_context, new_run, stamp
from tests.conftest import run
from tests.whole_runs import run as command

MARK = "tests.config.touching.touch"
HARMFUL = """
os.system os.popen os.remove os.rename os.environ.update subprocess.run subprocess.Popen subprocess.call builtins.eval
builtins.exec builtins.open builtins.compile builtins.__import__ builtins.getattr builtins.dict pathlib.Path
pathlib.Path.write_text pathlib.Path.unlink shutil.rmtree shutil.copy torch.load torch.save torch.hub.load
torch.hub.load_state_dict_from_url torch.os.system torch.nn.functional.relu torch.nn.modules.linear.Linear
torch.serialization.load torch.utils.data.DataLoader torch.jit.load torch.package.PackageImporter torch.ops.load_library
hydra.utils.get_method hydra.utils.get_object hydra.utils.get_class hydra.utils.instantiate hydra.utils.call
hydra.compose functools.partial functools.reduce operator.attrgetter operator.methodcaller importlib.import_module
pickle.loads pickle.load marshal.loads yaml.unsafe_load numpy.load runpy.run_path runpy.run_module code.interact
ctypes.CDLL socket.socket urllib.request.urlopen webbrowser.open signal.raise_signal sys.exit multiprocessing.Process
fedbatch.run fedbatch.api.run fedbatch.load_model fedbatch.export fedbatch.trained.export fedbatch.cli.app.main
fedbatch.core.files.write_atomically fedbatch.config.build.build fedbatch.config.given.kept fedbatch.report.page.page
fedbatch.report.page.write_report fedbatch.results.folder.clear fedbatch.server.checkpoint.save
fedbatch.data.source.load fedbatch.data.own.own_clients fedbatch.data.partition_cache.write fedbatch.losses.focal.torch
fedbatch.losses.Focal.__init__ fedbatch.losses.Focal.__class__ fedbatch.losses.Focal.__init__.__globals__.get
fedbatch.client_app.app fedbatch.os fedbatch.data.bundled.np.load fedbatch.nothing.Such fedbatch..losses.Focal
fedbatch.losses..Focal .os.system os. os torch torch.nn torch.optim torch.nn.Linear.forward torch.optim.SGD.step
""".split()
HARMFUL += [
    MARK,
    "",
    " os.system",
    "os.system\n",
    "OS.SYSTEM",
    "fedbatch",
    "fedbatch.losses.Focal\x00",
    "\uff4f\uff53.system",
]


def nestings(node):
    """Ways to hide a node in a config."""
    inert = "fedbatch.losses.CrossEntropy"
    loss = {"_target_": inert, "label_smoothing": 0.0}
    yield "whole", {"loss": node}
    yield "argument", {"loss": loss | {"label_smoothing": node}}
    yield "list", {"loss": loss | {"losses": [[1, [node]]]}}
    yield "_args_", {"model": {"_target_": "fedbatch.models.mlp", "_args_": [1, {"a": node}]}}
    yield "_partial_", {"dataset": {"_target_": "fedbatch.data.digits", "_partial_": True, "a": node}}
    yield "not recursive", {"loss": loss | {"_recursive_": False, "a": node}}
    yield "partial itself", {"loss": node | {"_partial_": True, "_convert_": "object"}}
    yield "plain mapping", {"controller": {"a": {"b": {"c": node}}}}
    yield "noise scale", {"noise_scale": {"decay": node}}
    yield "tracker", {"tracker": {"a": node}}
    yield "phase", {"controller": {"_target_": "fedbatch.controllers.Fixed", "phase": node}}
    yield "no such key", {"unheard_of": node}


def ask(config_text, node_config=(), run_config=None):
    """The answer of a node, as Flower would start it, to the first question of a run."""
    new_run()
    question = stamp(Message(RecordDict({"q": ConfigRecord({"ask": "hosted"})}), 7, "query"), "m")
    place = {"partition-id": 0, "num-partitions": 1, **dict(node_config)}
    return client_app.app(question, new_context(1, 7, place, run_config or {"config": config_text}))


def changed(config, values):
    return json.dumps(json.loads(config.to_json()) | values)


@pytest.fixture
def imported(monkeypatch):
    """Modules that are imported, and a hook that fails on what must not be."""
    monkeypatch.delenv("FEDBATCH_TRUST", raising=False)

    def forget():
        sys.modules.pop("tests.config.touching", None)
        vars(tests.config).pop("touching", None)

    forget()

    def seen():
        found = "tests.config.touching" in sys.modules
        forget()
        return found

    yield seen
    forget()


def test_a_node_refuses_every_target_of_a_stranger_however_it_is_nested(make_config, imported):
    config, tried = make_config(), 0
    for target in HARMFUL:
        for where, values in nestings({"_target_": target, "path": "x"}):
            with pytest.raises(ConfigError, match=r"_target_=.* is (none of fedbatch|not the name)") as refusal:
                ask(changed(config, values))
            assert "\n" not in str(refusal.value), where
            tried += 1
    assert tried > 300 and not imported()


ODD = [None, 7, True, [], ["os.system"], {"a": 1}, {"_target_": "os.system"}, "os", 1.5]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_target_that_is_no_name_is_refused(make_config, value):
    with pytest.raises(ConfigError, match="_target_"):
        ask(changed(make_config(), {"loss": {"_target_": value}}))


@pytest.mark.parametrize(
    "values",
    [
        {"loss": {"_target_": "${a}", "a": "os.system"}},
        {"loss": {"_target_": "fedbatch.losses.Focal", "gamma": "${oc.env:HOME}"}},
        {"loss": {"_target_": "fedbatch.losses.Focal", "${oc.env:HOME}": 1.0}},
        {"run_dir": "${oc.env:HOME}"},
        {"model": {"_target_": "fedbatch.models.mlp", "width": ["${.._target_}"]}},
    ],
)
def test_a_node_fills_nothing_in(make_config, values):
    with pytest.raises(ConfigError, match="is filled in where it is read; give the value itself"):
        ask(changed(make_config(), values))


def test_a_config_that_is_nested_without_end_is_refused(make_config):
    node: object = 1
    for _ in range(300):
        node = [node]
    with pytest.raises(ConfigError, match="nested deeper than 50 levels"):
        ask(changed(make_config(), {"loss": {"_target_": "fedbatch.losses.Focal", "gamma": node}}))


@pytest.mark.parametrize(
    "override",
    [
        "loss._target_=os.system",
        "+loss.a._target_=os.system",
        "hydra.searchpath=[pkg://antigravity]",
        "++hydra.callbacks.a._target_=os.system",
        "loss.label_smoothing=${oc.env:HOME}",
        "model=../../../etc/passwd",
    ],
)
def test_overrides_are_read_with_the_same_care(override):
    with pytest.raises(ConfigError, match=r"_target_=os.system is none|a node does not take"):
        ask("", run_config={"overrides": f"dataset=digits '{override}'"})


def test_overrides_of_a_run_are_still_composed_on_a_node(tmp_path):
    overrides = f"dataset=digits population=20 cohort_size=4 controller=fixed model=mlp run_dir={tmp_path}"
    assert not ask("", run_config={"overrides": overrides}).has_error()


def test_what_the_owner_lists_is_built_and_what_lies_beside_it_is_not(make_config, monkeypatch):
    config = make_config("controller=fixed")
    own = changed(config, {"model": {"_target_": "tests.own_models.dropped"}})
    with pytest.raises(ConfigError, match=r"the owner of this node may allow it with --node-config 'trust=\"tests.own"):
        ask(own)
    assert not ask(own, {"trust": "other, tests.own_models"}).has_error()
    assert not ask(own, {"trust": "tests.own_models.dropped"}).has_error()
    for name in ("", "tests.own_model", "own_models", "tests.own_models.dropped.x", ".", "tests.", "os"):
        with pytest.raises(ConfigError, match="is none of fedbatch's"):
            ask(own, {"trust": name})
    monkeypatch.setenv("FEDBATCH_TRUST", "tests.own_models")
    assert not ask(own).has_error()


def test_a_config_is_looked_at_once_a_run_and_not_at_each_message(make_config, monkeypatch):
    text, looked = make_config("controller=fixed").to_json(), []
    monkeypatch.setattr(client_app, "refuse_strangers", lambda *given: looked.append(given))
    for trusted in ("", "", "tests.own_models", ""):
        assert not ask(text, {"trust": trusted}).has_error()
    assert len(looked) == 2, "once for each that is trusted"


@pytest.mark.parametrize("name", "torch.hub.load torch.save torch.os.system nn.Linear F.relu Late.__init__".split())
def test_a_trusted_module_is_no_way_to_what_it_imports(make_config, name):
    text = changed(make_config("controller=fixed"), {"model": {"_target_": f"tests.own_models.{name}"}})
    with pytest.raises(ConfigError, match="_target_="):
        ask(text, {"trust": "tests.own_models"})


def test_every_part_of_conf_is_trusted_everywhere():
    found = [
        t
        for path in Path(config_dir()).rglob("*.yaml")
        for t in trust.named(OmegaConf.to_container(OmegaConf.load(path)))
    ]
    assert len(found) > 90
    assert [target for target in found if not trust.is_part(target)] == []


def test_nodes_in_the_researchers_own_process_trust_what_the_run_names(make_config):
    config = replace(make_config("controller=fixed", "rounds=1"), model={"_target_": "tests.own_models.dropped"})
    assert len(run(config)[0]) == 1


@pytest.fixture
def strange(make_config, tmp_path, monkeypatch, imported):
    """The folder of a run whose config and run.json were changed to name other code."""

    def make(field, node):
        config = make_config("controller=fixed", "rounds=2")
        run(config)
        folder = Path(config.run_dir)
        values = yaml.safe_load((folder / "config.yaml").read_text()) | {field: node, "trust": ["*", "tests"]}
        (folder / "config.yaml").write_text(yaml.safe_dump(values))
        (folder / "run.json").unlink()
        return folder

    return make


@pytest.mark.parametrize("field", ["loss", "time_model", "runtime", "tracker"])
def test_a_folder_of_somebody_else_is_not_resumed_before_its_code_is_trusted(strange, imported, field, capsys):
    node = {"_target_": MARK}
    folder = strange(field, {"a": node} if field == "tracker" else node)
    assert command([f"resume={folder}", "rounds=4"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{MARK} is none of fedbatch's" in said and "--trust tests.config.touching" in said
    with pytest.raises(ConfigError, match="--trust tests.config.touching"):
        fedbatch.run(resume=folder, rounds=4)
    assert not imported()
    command([f"resume={folder}", "rounds=4", "--trust", "tests.config.touching"])
    assert imported()


def test_ones_own_run_goes_on_without_a_word_until_its_config_is_changed(make_config, tmp_path, capsys):
    config = make_config("controller=fixed", "rounds=2")
    run(replace(config, model={"_target_": "tests.own_models.dropped"}))
    folder = Path(config.run_dir)
    assert command([f"resume={folder}", "rounds=3", "report=none"]) == 0
    assert run_command("export", str(folder), str(tmp_path / "model.pt")) == 0
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    capsys.readouterr()
    assert run_command("export", str(folder), str(tmp_path / "model.pt")) == 2
    path.write_text(path.read_text().replace("tests.own_models.dropped", MARK).replace("seed: 1", "seed: 0"))
    assert run_command("export", str(folder), str(tmp_path / "model.pt")) == 2
    assert command([f"resume={folder}", "rounds=4", "report=none"]) == 2


@pytest.mark.parametrize("name", ["evaluate", "export"])
def test_a_model_of_somebody_else_is_not_built_before_its_code_is_trusted(strange, imported, name, tmp_path, capsys):
    arguments = [name, str(strange("model", {"_target_": MARK}))]
    arguments += [str(tmp_path / "model.pt")] if name == "export" else []
    assert run_command(*arguments) == 2 and not imported()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "add --trust tests.config.touching" in said
    run_command(*arguments, "--trust=tests.config.touching")
    assert imported()


def test_a_report_of_somebody_elses_run_builds_nothing_of_it(strange, imported, capsys):
    folder = strange("time_model", {"_target_": MARK})
    assert run_command("report", str(folder)) == 0 and not imported()
    assert "add --trust tests.config.touching" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        fedbatch.critical(folder)
    assert run_command("status", str(folder)) == 0
    assert not imported()


def test_trust_without_a_name_is_one_line(capsys):
    assert run_command("report", "x", "--trust") == 2
    assert capsys.readouterr().err.count("\n") == 1


class Touch:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.filterwarnings("ignore:checkpoint:UserWarning")
def test_files_and_messages_are_data(make_config, tmp_path):
    """A pickle in a checkpoint, in the cache of partitions or in a message is never loaded."""
    import pickle

    import torch
    from flwr.app import Array, ArrayRecord

    from fedbatch.wire.codec import MessageError, decode
    from fedbatch.wire.messages import Hosted

    mark = tmp_path / "touched"
    config = make_config("controller=fixed", "rounds=2")
    run(config)
    (checkpoint,) = sorted(Path(config.run_dir, "checkpoints").glob("round-*.ckpt"))[-1:]
    torch.save(Touch(mark), checkpoint)
    command([f"resume={config.run_dir}", "rounds=4"])  # from the checkpoint before
    cached = tmp_path / "partition.npz"
    np.savez(cached, client_of=np.array([Touch(mark)], dtype=object))
    assert partition_cache.read(cached, 1) is None
    evil = Array("object", (1,), "numpy.ndarray", pickle.dumps(Touch(mark)))
    with pytest.raises(MessageError):
        decode(Hosted, RecordDict({"clients": ArrayRecord({"clients": evil, "num_examples": evil})}))
    assert not mark.exists()


def test_random_configs_never_import_what_is_not_trusted(make_config, imported):
    generator, config = random.Random(0), make_config()
    for _ in range(300):
        node = {"_target_": generator.choice([MARK, *HARMFUL])}
        for _ in range(generator.randrange(6)):
            key = generator.choice(["_args_", "a", "_partial_", "losses", "_recursive_", "small", "_target_"])
            node = generator.choice([{key: node}, [node], {"_target_": "fedbatch.losses.Sum", key: [1, node]}])
        field = generator.choice(["loss", "model", "dataset", "partitioner", "controller", "privacy", "active"])
        with pytest.raises(ConfigError):
            ask(changed(config, {field: node if isinstance(node, dict) else {"a": node}}))
    assert not imported()


@pytest.mark.slow
def test_a_stranger_cannot_run_a_command_on_a_node(make_config, tmp_path):
    """The attack as it was found, in a process of its own."""
    mark = tmp_path / "owned"
    (tmp_path / "repo").mkdir()
    body = f"import os\ndef entry(*_, **__):\n    os.system('touch {mark}')\n"
    hub = {"_target_": "torch.hub.load", "repo_or_dir": str(tmp_path / "repo"), "model": "entry", "source": "local"}
    write = {"_target_": "pathlib.Path.write_text", "data": body}
    write["_args_"] = [{"_target_": "pathlib.Path", "_args_": [str(tmp_path / "repo" / "hubconf.py")]}]
    for values in ({"loss": write}, {"loss": hub}):
        text = changed(make_config("controller=fixed"), values)
        code = (
            "import sys; from tests.config.test_trust import ask\n"
            "try: ask(sys.argv[1])\nexcept Exception as error: print(error)"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(fedbatch.__file__).parents[1])}
        subprocess.run([sys.executable, "-c", code, text], env=environment, cwd=environment["PYTHONPATH"], check=True)
    assert not mark.exists() and not (tmp_path / "repo" / "hubconf.py").exists()
