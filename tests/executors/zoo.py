"""Model forms as people bring them: images (1, 8, 8) with three classes, or tokens (6,) with seven."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

IMAGE, TEXT = (1, 8, 8), (6,)
Seq, Lin, Conv = nn.Sequential, nn.Linear, nn.Conv2d


class Call(nn.Module):
    """A module whose forward is a function of itself and the input."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Parameter | nn.Module):
                setattr(self, name, part)
            elif isinstance(part, torch.Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.forward = functools.partial(forward, self)


def flat(*layers):
    return Seq(nn.Flatten(), *layers)


def mlp_with(layer):
    return flat(Lin(64, 8), layer, nn.ReLU(), Lin(8, 3))


def hidden(forward, **parts):
    return Call(forward, a=Lin(64, 8), b=Lin(8, 3), **parts)


def h(self, x):
    return torch.relu(self.a(x.flatten(1)))


def out(cell):
    """A recurrent cell over the rows of an image."""
    return Call(lambda self, x: self.b(self.cell(x[:, 0])[0][:, -1]), cell=cell, b=Lin(6, 3))


def time_first(self, x):
    return self.b(self.cell(x[:, 0].transpose(0, 1))[0][-1])


class Residual(nn.Module):
    def __init__(self, width, norm):
        super().__init__()
        self.conv1, self.conv2 = (Conv(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = norm(width), norm(width)

    def forward(self, x):
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)), inplace=True))), inplace=True)


def resnet(norm):
    return Seq(Conv(1, 4, 3, padding=1), Residual(4, norm), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Lin(4, 3))


class LayerScaleBlock(nn.Module):
    """The form of timm's ConvNeXt: depthwise, channels last, a scale of its own."""

    def __init__(self, width):
        super().__init__()
        self.depthwise = Conv(width, width, 3, padding=1, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width), Lin(width, 2 * width), Lin(2 * width, width)
        self.gamma = nn.Parameter(0.5 * torch.ones(width))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = Conv(1, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.out = Lin(3 * 64, 3)

    def forward(self, x):
        return self.out(torch.cat([x, self.up(torch.relu(self.down(x)))], dim=1).flatten(1))


class ViT(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.patches = Conv(1, 8, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.places = nn.Parameter(0.1 * torch.randn(1, 5, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True, norm_first=True)
        self.head = Lin(8, 3)

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1) + self.places
        return self.head(self.block(tokens)[:, 0])


class NanoGPT(nn.Module):
    """One joint map of query, key and value, tied output, a mask as a buffer, positions looked up once."""

    def __init__(self, dropout=0.0, tied=True):
        super().__init__()
        self.tokens, self.places, self.drop = nn.Embedding(7, 8), nn.Embedding(6, 8), nn.Dropout(dropout)
        self.norm, self.joint, self.mix = nn.LayerNorm(8), Lin(8, 24), Lin(8, 8)
        self.head = Lin(8, 7, bias=False)
        if tied:
            self.head.weight = self.tokens.weight
        self.register_buffer("mask", torch.full((6, 6), float("-inf")).triu(1))

    def forward(self, tokens):
        x = self.drop(self.tokens(tokens) + self.places(torch.arange(6, device=tokens.device)))
        q, k, v = (t.view(len(x), 6, 2, 4).transpose(1, 2) for t in self.joint(self.norm(x)).split(8, dim=2))
        attention = self.drop((q @ k.mT / 2 + self.mask).softmax(dim=-1)) @ v
        return self.head(x + self.mix(attention.transpose(1, 2).reshape(len(x), 6, 8)))


def tokens(forward, **parts):
    return Call(forward, table=nn.Embedding(7, 8), **parts)


def frozen_body():
    module = flat(Lin(64, 8), nn.ReLU(), Lin(8, 3))
    module[1].requires_grad_(False)
    return module


def half_frozen():
    module = flat(Lin(64, 8), nn.ReLU(), Lin(8, 3))
    module[1].bias.requires_grad_(False)
    return module


def shared():
    module = flat(Lin(64, 8), Lin(8, 8), nn.Tanh(), Lin(8, 8), Lin(8, 3))
    module[4].weight = module[2].weight
    return module


def twice(self, x):
    return self.b(torch.tanh(self.c(torch.tanh(self.c(h(self, x))))))


class Ledger(nn.Module):
    """Running statistics that are put in place of the old ones, and a counter."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
            self.calls = self.calls + 1
        return x - self.mean


IMAGES = {
    "logistic": lambda: flat(Lin(64, 3)),
    "perceptron": lambda: mlp_with(nn.Identity()),
    "in-place ReLU": lambda: flat(Lin(64, 8), nn.ReLU(inplace=True), Lin(8, 3)),
    "layer norm": lambda: mlp_with(nn.LayerNorm(8)),
    "batch norm": lambda: mlp_with(nn.BatchNorm1d(8)),
    "batch norm, cumulative": lambda: mlp_with(nn.BatchNorm1d(8, momentum=None)),
    "batch norm without statistics": lambda: mlp_with(nn.BatchNorm1d(8, track_running_stats=False)),
    "instance norm": lambda: Seq(Conv(1, 2, 3), nn.InstanceNorm2d(2, affine=True), nn.Flatten(), Lin(72, 3)),
    "dropout": lambda: mlp_with(nn.Dropout(0.3)),
    "dropout of nothing": lambda: mlp_with(nn.Dropout(0.0)),
    "functional dropout": lambda: hidden(lambda s, x: s.b(F.dropout(h(s, x), 0.3, s.training))),
    "feature dropout": lambda: Seq(Conv(1, 4, 3), nn.Dropout2d(0.4), nn.Flatten(), Lin(144, 3)),
    "alpha dropout": lambda: mlp_with(nn.AlphaDropout(0.3)),
    "noise": lambda: hidden(lambda s, x: s.b(h(s, x) + 0.1 * torch.randn(len(x), 8))),
    "layer drop": lambda: hidden(lambda s, x: s.b(h(s, x) * (0.5 if torch.rand(1).item() < 0.1 else 1.0))),
    "layer drop by NumPy": lambda: hidden(lambda s, x: s.b(h(s, x) * (0.5 if np.random.rand() < 0.1 else 1.0))),
    "learned temperature": lambda: hidden(lambda s, x: s.b(h(s, x)) / s.t, t=nn.Parameter(torch.tensor(1.5))),
    "more than three meet": lambda: hidden(lambda s, x: s.b(h(s, x) - h(s, x).mean(0) * (len(x) > 3))),
    "recurrent over the batch": lambda: Call(
        lambda s, x: s.b(s.cell(x[:, 0])[0][:, -1]), cell=nn.LSTM(8, 6), b=Lin(6, 3)
    ),
    "drop path": lambda: hidden(lambda s, x: s.b(h(s, x) * x.new_empty(len(x), 1).bernoulli_(0.7))),
    "centred by hand": lambda: hidden(lambda s, x: s.b((lambda t: t - t.mean(0))(h(s, x)))),
    "faintly centred": lambda: hidden(lambda s, x: s.b((lambda t: t - 1e-3 * t.mean(0))(h(s, x)))),
    "mixed up": lambda: hidden(lambda s, x: s.b(0.9 * h(s, x) + 0.1 * h(s, x).flip(0))),
    "weight norm": lambda: mlp_with(nn.utils.parametrizations.weight_norm(Lin(8, 8))),
    "legacy weight norm": lambda: mlp_with(_legacy_weight_norm()),
    "spectral norm": lambda: mlp_with(nn.utils.parametrizations.spectral_norm(Lin(8, 8))),
    "weights normalised": lambda: hidden(lambda s, x: F.linear(h(s, x), F.normalize(s.b.weight, dim=1), s.b.bias)),
    "weights penalised": lambda: hidden(lambda s, x: s.b(h(s, x)) + torch.arange(3) * 1e-3 * s.a.weight.square().sum()),
    "weights written": lambda: hidden(_written),
    "functional use": lambda: hidden(
        lambda s, x: F.linear(F.linear(h(s, x), s.b.weight), s.b.weight.mT) @ s.b.weight.mT
    ),
    "own parameter": lambda: hidden(lambda s, x: s.b(h(s, x) * s.scale), scale=nn.Parameter(torch.ones(8))),
    "used twice": lambda: hidden(twice, c=Lin(8, 8)),
    "shared layers": shared,
    "frozen layer": frozen_body,
    "frozen bias": half_frozen,
    "zero head hides it": lambda: _zero_head(),
    "unused head": lambda: hidden(lambda s, x: s.b(h(s, x)), aux=Lin(8, 2)),
    "head outside the loss": lambda: hidden(_aside, aux=Lin(8, 2)),
    "rows in the batch": lambda: Call(
        lambda s, x: s.b(torch.relu(s.a(x.reshape(-1, 8))).view(len(x), 8, 16).mean(1)),
        a=Lin(8, 16),
        b=Lin(16, 3),
    ),
    "batch last": lambda: Call(lambda s, x: s.b(s.a(x.flatten(1).T.contiguous().T)), a=Lin(64, 8), b=Lin(8, 3)),
    "positions broadcast": lambda: Call(
        lambda s, x: s.b((s.a(x[:, 0]) + s.places(torch.arange(8))).relu().mean(1)),
        a=Lin(8, 8),
        places=nn.Embedding(8, 8),
        b=Lin(8, 3),
    ),
    "item in forward": lambda: hidden(lambda s, x: s.b(h(s, x)) * (1.0 if x.sum().item() < 1e9 else 2.0)),
    "checkpointed": lambda: hidden(lambda s, x: s.b(checkpoint(functools.partial(h, s), x, use_reentrant=False))),
    "checkpointed dropout": lambda: hidden(
        lambda s, x: s.b(checkpoint(lambda t: F.dropout(h(s, t), 0.3, s.training), x, use_reentrant=False))
    ),
    "autocast": lambda: hidden(_autocast),
    "buffer mask": lambda: hidden(lambda s, x: s.b(h(s, x) * s.mask), mask=torch.ones(8)),
    "statistics replaced": lambda: mlp_with(Ledger()),
    "convolutions": lambda: Seq(Conv(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), Lin(64, 3)),
    "grouped, dilated": lambda: Seq(Conv(1, 4, 3, dilation=2), Conv(4, 4, 3, groups=2), nn.Flatten(), Lin(16, 3)),
    "one-dimensional": lambda: Seq(nn.Flatten(1, 2), nn.Conv1d(8, 4, 3), nn.PReLU(4), nn.Flatten(), Lin(24, 3)),
    "residual net, group norm": lambda: resnet(lambda width: nn.GroupNorm(2, width)),
    "residual net, batch norm": lambda: resnet(nn.BatchNorm2d),
    "layer scale": lambda: Seq(Conv(1, 4, 2, 2), LayerScaleBlock(4), nn.Flatten(), Lin(64, 3)),
    "U-Net": UNet,
    "LSTM": lambda: out(nn.LSTM(8, 6, batch_first=True)),
    "GRU": lambda: out(nn.GRU(8, 6, batch_first=True)),
    "LSTM with dropout": lambda: out(nn.LSTM(8, 6, num_layers=2, dropout=0.4, batch_first=True)),
    "recurrent, time first": lambda: Call(time_first, cell=nn.RNN(8, 6), b=Lin(6, 3)),
    "attention": lambda: Call(
        lambda s, x: s.b(s.a(x[:, 0], x[:, 0], x[:, 0], need_weights=False)[0].mean(1)),
        a=nn.MultiheadAttention(8, 2, batch_first=True),
        b=Lin(8, 3),
    ),
    "attention, time first": lambda: Call(
        lambda s, x: s.b((lambda t: s.a(t, t, t)[0].mean(0))(x[:, 0].transpose(0, 1))),
        a=nn.MultiheadAttention(8, 2),
        b=Lin(8, 3),
    ),
    "ViT": ViT,
    "ViT with dropout": lambda: ViT(0.2),
    "bilinear": lambda: Call(lambda s, x: s.b(x.flatten(1), x.flatten(1)), b=nn.Bilinear(64, 64, 3)),
}
TEXTS = {
    "words averaged": lambda: tokens(lambda s, x: s.b(s.table(x).cumsum(1)), b=Lin(8, 7)),
    "output map by function": lambda: tokens(
        lambda s, x: F.linear(torch.tanh(s.b(s.table(x))), s.table.weight), b=Lin(8, 8)
    ),
    "sparse table": lambda: Call(lambda s, x: s.b(s.table(x)), table=nn.Embedding(7, 8, sparse=True), b=Lin(8, 7)),
    "table with a bound": lambda: Call(
        lambda s, x: s.b(s.table(x)), table=nn.Embedding(7, 8, max_norm=1.0), b=Lin(8, 7)
    ),
    "padding token": lambda: Call(lambda s, x: s.b(s.table(x)), table=nn.Embedding(7, 8, padding_idx=0), b=Lin(8, 7)),
    "bag of words": lambda: Call(
        lambda s, x: s.b(s.bag(x)).unsqueeze(1).expand(-1, 6, -1), bag=nn.EmbeddingBag(7, 8), b=Lin(8, 7)
    ),
    "text LSTM": lambda: tokens(
        lambda s, x: s.b(s.cell(s.table(x))[0]), cell=nn.LSTM(8, 8, batch_first=True), b=Lin(8, 7)
    ),
    "nanoGPT": NanoGPT,
    "nanoGPT, untied": lambda: NanoGPT(tied=False),
    "nanoGPT with dropout": lambda: NanoGPT(0.2),
}


def _legacy_weight_norm():
    import warnings

    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return nn.utils.weight_norm(Lin(8, 8))


def _written(self, x):
    with torch.no_grad():
        self.b.weight.copy_(F.normalize(self.b.weight, dim=1))
    return self.b(h(self, x))


def _zero_head():
    """A weight is used by function below a head that starts at zero: no gradient gets there in the first round."""
    module = hidden(lambda s, x: s.b(F.linear(s.c(h(s, x)), s.c.weight)), c=Lin(8, 8))
    nn.init.zeros_(module.b.weight)
    return module


def _aside(self, x):
    hidden = h(self, x)
    self.aside = self.aux(hidden)
    return self.b(hidden)


def _autocast(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = self.b(h(self, x))
    return logits.float()
