"""What a machine has and what a run needs of it, against sizes worked out by hand."""

import pytest

from fedbatch.cli import needs
from fedbatch.core.errors import ConfigError
from fedbatch.executors import compiled

TINY = ("dataset=digits", "population=20", "cohort_size=4", "controller=fixed", "model.width=8")
PARAMETERS = 64 * 8 + 8 + 8 * 10 + 10


def test_a_run_says_what_it_holds_and_writes(monkeypatch):
    monkeypatch.setattr(needs, "free_memory", lambda: 2 * 2**30)
    monkeypatch.setattr(needs, "free_disk", lambda folder: 3 * 2**30)
    found = dict(needs.config(TINY))
    assert found["model"] == f"{PARAMETERS} parameters, 0.0 MB"
    examples = 1438 + 359
    size = examples * (64 * 4 + 8)  # float32 pixels, int64 labels
    assert found["data"].startswith(f"{size / 1e6:.1f} MB in memory, 1,438 training and 359 test")
    assert found["memory"] == "0.00 GiB at least, of 2.0 GiB free"
    assert found["disk"] == f"{12 * 4 * PARAMETERS / 1e6:.1f} MB of checkpoints at most, of 3.0 GiB free"
    assert found["gpu"] == "none"


def test_too_little_is_said(monkeypatch):
    monkeypatch.setattr(needs, "free_memory", lambda: 1000)
    monkeypatch.setattr(needs, "free_disk", lambda folder: 1000)
    found = dict(needs.config(TINY))
    assert found["memory"].endswith(": too little") and found["disk"].endswith(": too little")


def test_a_gpu_that_a_run_would_not_use_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert dict(needs.config(TINY))["gpu"] == "there and not used: set device=cuda"


def test_a_config_that_cannot_run_is_refused_as_a_run_would_be():
    with pytest.raises(ConfigError, match="did you mean model.width"):
        list(needs.config(["model.widht=3"]))


def test_a_machine_without_a_compiler_says_what_is_left_out(monkeypatch):
    def none(*_):
        raise compiled.NotCompiledError("no C compiler (No such file or directory: cc)")

    monkeypatch.setattr(compiled, "library", none)
    found = dict(needs.machine())
    assert found["compiler"].startswith("no C compiler") and "install gcc" in found["compiler"]
    assert "GiB free" in found["memory"] and "GiB free at" in found["run folders"]
