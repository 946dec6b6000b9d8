"""An 18-layer residual network with group norm, for small images."""

from collections.abc import Sequence

from torch import Tensor, nn

from fedbatch.models.norms import normalization


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, fig. 5 left)."""

    def __init__(self, channels_in: int, channels: int, stride: int, norm: str, groups: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False),
            *normalization(norm, channels, groups),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            *normalization(norm, channels, groups),
        )
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1, stride, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels_in, h, w) to (batch, channels, h / stride, w / stride)."""
        return self.relu(self.residual(x) + self.shortcut(x))


def resnet18(input_shape: Sequence[int], num_classes: int, width: int, norm: str, groups: int) -> nn.Module:
    """Four stages of two blocks, ``width`` to ``8 * width`` channels, with the 3x3 stem used for 32x32 images.

    Args:
        input_shape: ``(image_channels, height, width)``.
        num_classes: number of labels.
        width: channels of the first stage; 64 gives the usual 11 million parameters.
        norm: "group" (default in conf/), "batch" or "none".
        groups: groups of a group norm; must divide ``width``.
    """
    if len(input_shape) != 3:
        raise ValueError(f"resnet18 needs images (got input {tuple(input_shape)}); use model=mlp")
    stem = [nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False), *normalization(norm, width, groups)]
    blocks: list[nn.Module] = []
    channels_in = width
    for stage in range(4):
        for block in range(2):
            channels, stride = width * 2**stage, 2 if stage and not block else 1
            blocks.append(BasicBlock(channels_in, channels, stride, norm, groups))
            channels_in = channels
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels_in, num_classes)]
    return nn.Sequential(*stem, nn.ReLU(), *blocks, *head)
