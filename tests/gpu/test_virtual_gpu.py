import numpy as np
import pytest
import torch
from torch.func import vmap

from tests.virtual_gpu import VirtualGpu, WrongDevice


@pytest.fixture
def gpu():
    with VirtualGpu().active() as device:
        yield device


def test_it_answers_as_a_device_of_cuda(gpu):
    t = torch.ones(3).to("cuda")
    assert t.is_cuda and not t.is_cpu and t.device == torch.device("cuda:0")
    assert torch.zeros(2, device="cuda").is_cuda and torch.zeros_like(t).is_cuda and t.new_ones(1).is_cuda
    assert t[1:].is_cuda and (t * 2).is_cuda and t.sum().is_cuda and vmap(torch.sin)(t).is_cuda
    assert not t.cpu().is_cuda and not torch.ones(3).is_cuda


@pytest.mark.parametrize(
    "mixed",
    [
        lambda t: t + torch.ones(3),
        lambda t: torch.cat([t, torch.ones(3)]),
        lambda t: torch.searchsorted(t, torch.ones(1)),
        lambda t: t.index_add(0, torch.zeros(1, dtype=torch.int64), torch.ones(1).to("cuda")),
        lambda t: vmap(lambda a: a + torch.ones(3))(t[None]),
        lambda t: torch.nn.functional.linear(t, torch.ones(2, 3)),
    ],
)
def test_tensors_of_two_devices_do_not_meet(gpu, mixed):
    t = torch.ones(3).to("cuda")
    with pytest.raises(WrongDevice, match="cuda:0 and cpu"):
        mixed(t)


def test_numbers_leave_it_by_a_copy_only(gpu):
    t = torch.ones(3).to("cuda")
    for read in (t.numpy, lambda: np.asarray(t)):
        with pytest.raises(WrongDevice):
            read()
    assert t.cpu().numpy().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "wait",
    [
        lambda t: float(t.sum()),
        lambda t: t.tolist(),
        lambda t: t.cpu(),
        lambda t: t[t > 0],
        lambda t: torch.unique(t),
        lambda t: t.nonzero(),
        lambda t: bool((t > 0).all()),
        lambda t: t[np.array([0, 1])],
        lambda t: t.new_tensor([1.0]),
        lambda t: torch.ones(3).to(t),
        lambda t: torch.ones(3).to(t, non_blocking=True),  # of memory that is not pinned
        lambda t: torch.tensor([1.0], device="cuda"),
        lambda t: t.repeat_interleave(torch.ones(3, dtype=torch.int64).to("cuda", non_blocking=True)),
    ],
)
def test_what_the_host_waits_for_is_counted(gpu, wait):
    t = torch.ones(3).to("cuda")
    gpu.reset()
    wait(t)
    assert sum(gpu.waits.values()) >= 1


def test_a_pinned_copy_and_arithmetic_make_nobody_wait(gpu):
    t = torch.ones(3).to("cuda")
    gpu.reset()
    moved = torch.ones(3).pin_memory().to("cuda", non_blocking=True)
    ((t + moved) @ t).exp()
    assert not gpu.waits and gpu.copied["up"] == 12
    assert [kernel for kernel, _ in gpu.launches] == ["aten::add.Tensor", "aten::dot", "aten::exp"]


def test_views_launch_nothing(gpu):
    t = torch.ones(3, 4).to("cuda")
    gpu.reset()
    t.view(12)[2:].unsqueeze(0).expand(3, 10).transpose(0, 1)
    assert not gpu.launches


def test_outside_there_is_no_gpu():
    with VirtualGpu().active():
        assert torch.cuda.is_available()
    assert torch.ones(1).device.type == "cpu"
    assert torch.cuda.get_device_name is not VirtualGpu
