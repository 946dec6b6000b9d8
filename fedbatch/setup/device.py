"""Where tensors lie, and torch's settings for the process."""

import math
import os

import torch

from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.setup.allocator import keep_freed_memory

GPU_SHARE, GPU_MOST = 1 / 4, 2**33
"""What clients computed at once may take of a GPU's free memory, and the most bytes. Larger chunks gain little, and no
tensor in them has more numbers than a kernel counts (2^31)."""


def prepare(config: RunConfig) -> torch.device:
    """Set threads, precision and determinism as the config has them; the device of the run.

    Raises:
        ConfigError: the device is not there.
    """
    if config.device != "cpu":  # before CUDA starts, which reads it once; cuBLAS is not deterministic without
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = find(config.device)
    torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision(config.matmul_precision)
    # Torch has a switch of its own for convolutions, which by default lets them round to ten bits.
    torch.backends.cudnn.allow_tf32 = config.matmul_precision != "highest"
    on_cpu = device.type == "cpu"
    deterministic = on_cpu if config.deterministic is None else config.deterministic
    if config.compile:
        torch.use_deterministic_algorithms(deterministic)
    else:  # the same for all but the compiler, which the other call imports for two seconds to tell it too
        torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Deterministic mode also fills every new tensor, so that a bug that reads it shows; we pay for it in each layer.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if on_cpu:
        keep_freed_memory()
    return device


def in_words(asked: str, device: torch.device, in_one_process: bool = True) -> str:
    """What there is to say of the device: what ``asked`` "auto" took, or that a GPU lies idle; or nothing.

    Args:
        asked: ``device`` of the config.
        device: where the run computes.
        in_one_process: whether all nodes compute in this process, and so on one GPU.
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    if not gpu:
        return "device=auto takes cpu: torch finds no GPU here" if asked == "auto" else ""
    if asked == "cpu":
        return f"computing on the CPU though there is a GPU ({gpu}); device=cuda uses it"
    taken = f"device=auto takes {device.type} ({gpu})" if asked == "auto" else ""
    count = torch.cuda.device_count()
    if count == 1 or not in_one_process:
        return taken
    every = f"one of {count} GPUs is used; runtime=ray nodes={count} runtime.gpus_per_node=1 uses all"
    return "; ".join(filter(None, [taken, every]))


def memory_bytes(config: RunConfig, device: torch.device) -> float | None:
    """What the clients that are computed at once may take; None leaves it to the caches of a CPU.

    A power of two, so that runs on one card are cut alike although its free memory varies a little.
    """
    if config.memory_bytes is not None or device.type != "cuda":
        return config.memory_bytes
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)  # what earlier runs have let go of
    return float(2 ** int(math.log2(min(GPU_SHARE * free, GPU_MOST))))


def find(name: str) -> torch.device:
    """A device by its name; "auto" is a GPU where there is one.

    Raises:
        ConfigError: it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device must be cpu, cuda, cuda:1 (a number) or auto (got {name!r})") from error
    try:
        float(torch.zeros(1, device=name))  # a device that holds no numbers, as meta, is of no use
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device={name} is not available here ({str(error).splitlines()[0]}); use device=cpu"
        ) from error
    return torch.device(name)
