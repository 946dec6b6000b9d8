import os

import pytest


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """No test reads or writes the user's caches, nor asks the network."""
    monkeypatch.setenv("FEDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("FEDBATCH_DATA", raising=False)


@pytest.fixture
def environment():
    """The environment of a subprocess: this one's, with the fixture's folders."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
