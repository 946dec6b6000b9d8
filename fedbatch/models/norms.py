"""The one choice of normalisation layer that image models share."""

from torch import nn


def normalization(norm: str, channels: int, groups: int) -> list[nn.Module]:
    """No layer, a group norm or a batch norm over ``channels``, as a list to splice into a Sequential.

    Group norm is the default of federated work: batch statistics are a client's own and do not average well
    (Hsieh et al. 2020).
    """
    if norm == "none":
        return []
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    if norm == "group":
        if groups < 1 or channels % groups:
            raise ValueError(f"groups must divide the number of channels {channels} (got {groups})")
        return [nn.GroupNorm(groups, channels)]
    raise ValueError(f"norm must be none, group or batch (got {norm!r})")
