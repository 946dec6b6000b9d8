"""Data sets and models of one's own whose inputs are several arrays, or sequences of several lengths."""

import numpy as np
import torch
from torch import nn

from fedbatch.data.dataset import Dataset

TOKENS, LONGEST, CLASSES = 12, 7, 3


def sequences(examples=120, seed=0):
    """Sequences of 1 to 7 tokens; the label is that of the commonest third of the vocabulary."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LONGEST + 1, examples)
    lengths[0] = LONGEST
    rows = [rng.integers(0, TOKENS, n) for n in lengths]
    return rows, np.array([np.bincount(row // 4, minlength=3).argmax() for row in rows])


def texts(form="named", label_a_position=False):
    rows, y = sequences()
    width = np.array([len(row) for row in rows])
    if label_a_position:
        y = [row // 4 for row in rows]
    if form == "ragged":
        x = rows
    else:
        mask = np.arange(LONGEST) < width[:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate(rows)
        x = {"input_ids": ids, "attention_mask": mask} if form == "named" else (ids, mask)

    def part(values, rows):
        if isinstance(values, dict):
            return {name: each[rows] for name, each in values.items()}
        return tuple(each[rows] for each in values) if isinstance(values, tuple) else values[rows]

    train, test = slice(0, 90), slice(90, None)
    return Dataset("texts", part(x, train), y[train], part(x, test), y[test], CLASSES)


class MeanOfWords(nn.Module):
    """Embeds, maps each position, and takes the mean over those that the mask has; returns more than its logits."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.table, self.map = nn.Embedding(TOKENS, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, num_classes)

    def forward(self, input_ids, attention_mask):
        hidden = torch.tanh(self.map(self.table(input_ids)))
        has = attention_mask[..., None].to(hidden.dtype)
        return {"hidden": hidden, "logits": self.out((hidden * has).sum(1) / has.sum(1))}


class OfPositions(MeanOfWords):
    """A label a position, from the position itself and from the mean of all."""

    def forward(self, input_ids, attention_mask):
        hidden = torch.tanh(self.map(self.table(input_ids)))
        has = attention_mask[..., None].to(hidden.dtype)
        return self.out(hidden + ((hidden * has).sum(1) / has.sum(1))[:, None])


class WithoutMask(MeanOfWords):
    def forward(self, input_ids):
        return self.out(torch.tanh(self.map(self.table(input_ids))).mean(1))


class OfOneLength(WithoutMask):
    """Can be called on one length only, and sees what is behind the end."""

    def forward(self, input_ids):
        return super().forward(input_ids.view(-1, LONGEST))


def like_torchvision(*, weights=None, progress=True, **kwargs):
    """Takes any keyword, and hands all on to a constructor that does not know them all."""
    return Net(**kwargs)


class Net(nn.Sequential):
    def __init__(self, num_classes=1000, width=8):
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes))


class NormOverAll(MeanOfWords):
    """Right in evaluation, and in training its statistics are over padding, too."""

    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, input_ids, attention_mask):
        hidden = self.norm(self.map(self.table(input_ids)).mT).mT
        has = attention_mask[..., None].to(hidden.dtype)
        return self.out((hidden * has).sum(1) / has.sum(1))


class FixedPositions(OfPositions):
    """A label a position, of sequences of one length."""

    def forward(self, input_ids, attention_mask):
        return super().forward(input_ids.view(-1, LONGEST), attention_mask)
