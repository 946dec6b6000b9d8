"""What every end of a run makes of a model for itself: the parameters that nobody trains, and their digest."""

import hashlib

import torch

from fedbatch.models.flat import FlatModel


def digest(model: FlatModel) -> str:
    """A hash of all that a model has in its state and that does not travel; empty where no parameter is frozen.

    Buffers count if a state has them, for they come from the same file as frozen parameters. All else is computed.
    """
    named = dict(model.module.named_parameters(remove_duplicate=False))
    if all(p.requires_grad for p in named.values()):
        return ""
    travelling = {*model.changing, *(name for name, p in named.items() if p.requires_grad)}
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.module.state_dict().items()):
        if name not in travelling and isinstance(value, torch.Tensor):
            array = value.detach().cpu().contiguous()
            found.update(f"{name} {tuple(array.shape)} {array.dtype}".encode())
            found.update(array.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
