"""Arrays of the host on the device on which they are used."""

import numpy as np
import torch
from torch import Tensor


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """The values (...) of an array on a device, in their own dtype; on a CPU without a copy.

    On a GPU the host does not wait for the copy, which kernels that are launched afterwards find done.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
