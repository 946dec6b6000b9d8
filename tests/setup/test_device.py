import logging
import os

import pytest
import torch

from fedbatch.core.errors import ConfigError
from fedbatch.setup import task
from fedbatch.setup.device import find, in_words, memory_bytes, prepare
from tests.conftest import run
from tests.virtual_gpu import GIB, VirtualGpu


@pytest.mark.parametrize("free, expected", [(80, 8), (33, 8), (24, 4), (23.2, 4), (12, 2), (8.1, 2), (7.9, 1)])
def test_memory_of_a_gpu_is_a_power_of_two_of_a_quarter(make_config, free, expected):
    with VirtualGpu(int(free * GIB)).active():
        assert memory_bytes(make_config(), find("cuda")) == expected * GIB


def test_a_cpu_goes_by_its_caches_and_a_number_is_taken_as_it_is(make_config):
    assert memory_bytes(make_config(), find("cpu")) is None
    assert memory_bytes(make_config("memory_bytes=3e9"), find("cpu")) == 3e9
    with VirtualGpu().active():
        assert memory_bytes(make_config("memory_bytes=3e9"), find("cuda")) == 3e9


def test_memory_makes_no_other_run(make_config):
    assert make_config("memory_bytes=3e9").identity() == make_config().identity()
    with pytest.raises(ConfigError, match="memory_bytes must be in"):
        make_config("memory_bytes=0")


@pytest.fixture
def switches(monkeypatch):
    """Torch's switches are put back afterwards."""
    kept = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    deterministic = torch.are_deterministic_algorithms_enabled()
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.set_float32_matmul_precision(kept[0])
    torch.backends.cudnn.allow_tf32 = kept[1]
    torch.use_deterministic_algorithms(deterministic)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.parametrize("precision, is_coarse", [("highest", False), ("high", True), ("medium", True)])
def test_one_switch_lets_products_and_convolutions_round_coarsely(make_config, switches, precision, is_coarse):
    with VirtualGpu().active():
        prepare(make_config("device=cuda", f"matmul_precision={precision}"))
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == is_coarse


def test_cublas_can_be_deterministic_on_a_gpu(make_config, switches):
    prepare(make_config("device=cpu"))
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with VirtualGpu().active():
        prepare(make_config("device=auto", "deterministic=true"))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" and torch.are_deterministic_algorithms_enabled()


def test_a_workspace_of_ones_own_is_left(make_config, switches, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with VirtualGpu().active():
        prepare(make_config("device=cuda"))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_the_first_line_says_which_device_is_taken(make_config, switches, caplog):
    def first_line(name):
        caplog.clear()
        task.forget()
        with caplog.at_level(logging.INFO, "fedbatch"):
            run(make_config(f"device={name}", "rounds=1", "report=none", "executor=loop", "overwrite=true"))
        return caplog.messages[0] if caplog.messages else ""

    assert first_line("cpu") == "" and "takes cpu: torch finds no GPU" in first_line("auto")
    with VirtualGpu().active():
        assert first_line("auto") == "device=auto takes cuda (virtual GPU)"
        assert first_line("cuda") == ""
        assert first_line("cpu") == "computing on the CPU though there is a GPU (virtual GPU); device=cuda uses it"


def test_gpus_that_lie_idle_are_told():
    with VirtualGpu().active(), pytest.MonkeyPatch.context() as patch:  # undone before the virtual GPU goes
        assert "uses it" in in_words("cpu", find("cpu")) and not in_words("cuda", find("cuda"))
        patch.setattr(torch.cuda, "device_count", lambda: 4)
        for asked in ("auto", "cuda"):
            said = in_words(asked, find("cuda"))
            assert "one of 4 GPUs is used; runtime=ray nodes=4 runtime.gpus_per_node=1 uses all" in said
            assert said.startswith("device=auto takes cuda") == (asked == "auto")
            assert "one of" not in in_words(asked, find("cuda"), in_one_process=False)
