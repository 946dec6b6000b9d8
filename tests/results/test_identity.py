import importlib
import json
import sys

import numpy as np
import pytest

from fedbatch.core.errors import ConfigError
from fedbatch.results import identity
from fedbatch.results.identity import Identity, hash_arrays, hash_code


def test_arrays_are_told_apart_by_values_shape_and_dtype():
    a = np.arange(6, dtype=np.float32)
    others = [a.reshape(2, 3), a.astype(np.float64), a[:5], -a, a.view(np.int32)]
    assert len({hash_arrays([each]) for each in [a, *others]}) == 6
    assert hash_arrays([np.arange(12, dtype=np.float32)[::2] / 2]) == hash_arrays([a])
    assert hash_arrays([a, a[:0]]) != hash_arrays([a[:0], a])


def test_own_code_is_what_the_config_and_the_model_name_and_what_that_imports(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_deep.py").write_text("def deep(): ...\n")
    (tmp_path / "own_layer.py").write_text("import own_deep\nimport numpy\nclass Layer: ...\n")
    (tmp_path / "own_loss.py").write_text("from own_deep import deep\ndef loss(): ...\n")
    config = {"loss": {"_target_": "own_loss.loss"}, "model": {"_target_": "torch.nn.Linear"}}
    layer = importlib.import_module("own_layer").Layer
    before = hash_code(config, [layer])
    assert set(before) == {"own_deep", "own_layer", "own_loss"}
    (tmp_path / "own_deep.py").write_text("def deep(): return 1\n")
    changes = Identity("c", "d", before).changes(Identity("c", "e", hash_code(config, [layer])))
    assert changes == ["the data have", "the code of own_deep has"]
    assert hash_code({"loss": {"_target_": "torch.nn.Linear"}}, [int, type(layer)]) == {}
    for name in ("own_deep", "own_layer", "own_loss"):
        del sys.modules[name]


def test_run_json_comes_back_and_damage_is_one_line(tmp_path):
    assert identity.read(tmp_path) is None
    begun = Identity("c", "d", {"own": "x"}).begun()
    identity.write(tmp_path, begun)
    assert identity.read(tmp_path) == begun and begun.run != Identity("c", "d", {}).begun().run
    path = tmp_path / identity.FILE
    whole = json.loads(path.read_text())
    needed = whole.keys() - {"frozen"}  # which an earlier version did not write
    lacking = [json.dumps({k: v for k, v in whole.items() if k != name}) for name in needed]
    for text in ("", "{", "[]", "3", "\0", json.dumps(whole | {"code": [1]}), *lacking):
        path.write_text(text)
        with pytest.raises(ConfigError, match="run.json is damaged; delete it"):
            identity.read(tmp_path)
    path.write_text(json.dumps(whole | {"version": 2}))
    with pytest.raises(ConfigError, match="newer fedbatch"):
        identity.read(tmp_path)
