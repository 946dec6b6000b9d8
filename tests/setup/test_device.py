import pytest

from fedbatch.core.errors import ConfigError
from fedbatch.setup.device import find, memory_bytes
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
