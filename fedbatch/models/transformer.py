"""Pre-norm transformers on token sequences: a causal language model and a masked one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INIT_STD = 0.02


def gpt(
    input_shape: Sequence[int], num_classes: int, layers: int, heads: int, width: int, tie_weights: bool
) -> nn.Module:
    """A decoder that predicts the next token at every position; see `Transformer`.

    >>> sum(p.numel() for p in gpt((64,), 81, layers=5, heads=4, width=128, tie_weights=False).parameters())
    1020544
    """
    return Transformer(input_shape, num_classes, layers, heads, width, tie_weights, causal=True)


def bert(
    input_shape: Sequence[int], num_classes: int, layers: int, heads: int, width: int, tie_weights: bool
) -> nn.Module:
    """An encoder that predicts the tokens behind a mask from both sides; see `Transformer`."""
    return Transformer(input_shape, num_classes, layers, heads, width, tie_weights, causal=False)


class Transformer(nn.Module):
    """Token and position embeddings, ``layers`` blocks, a norm, and a linear map to the vocabulary.

    Each layer is called once and takes a tensor with the examples first, so that every executor can run it.

    Args:
        input_shape: ``(positions,)``, the longest sequence.
        num_classes: tokens of the vocabulary, in and out.
        layers: blocks.
        heads: of the attention in each block; divides ``width``.
        width: of the residual stream; a block's perceptron has four times as much.
        tie_weights: use the token embedding as the output map too. The fused executor refuses that, and its FedSGD
            goes through vmap or loop.
        causal: let a position see only those up to itself.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        layers: int,
        heads: int,
        width: int,
        tie_weights: bool,
        causal: bool,
    ):
        super().__init__()
        if len(input_shape) != 1:
            raise ValueError(f"transformers take sequences of tokens (got input {tuple(input_shape)})")
        if layers < 1 or heads < 1 or width % heads:
            raise ValueError(
                f"heads must divide width, and both and layers be positive (got {heads}, {width}, {layers})"
            )
        self.tokens, self.positions = nn.Embedding(num_classes, width), nn.Embedding(input_shape[0], width)
        self.blocks = nn.Sequential(*[Block(width, heads, causal) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, num_classes, bias=False)
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.dim() == 2:
                # What adds to the residual stream starts smaller, so that the sum over layers does not (GPT-2's rule).
                adds = name.endswith(("attention.out.weight", "contract.weight"))
                nn.init.normal_(p, std=INIT_STD / (2 * layers) ** 0.5 if adds else INIT_STD)
        if tie_weights:
            self.out.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (batch, positions), integers of any dtype, to logits (batch, positions, num_classes)."""
        x = x.long()
        places = torch.arange(x.shape[1], device=x.device).repeat(len(x), 1)  # not expanded: Opacus wants it contiguous
        h = self.tokens(x) + self.positions(places)
        return self.out(self.norm(self.blocks(h)))


class Block(nn.Module):
    """Attention and a perceptron, each on normed inputs and added to them."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.norm_1, self.attention = nn.LayerNorm(width), Attention(width, heads, causal)
        self.norm_2, self.expand, self.contract = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, h: Tensor) -> Tensor:
        """(batch, positions, width) to the same."""
        h = h + self.attention(self.norm_1(h))
        return h + self.contract(F.gelu(self.expand(self.norm_2(h))))


class Attention(nn.Module):
    """Multi-head self-attention with separate maps for queries, keys and values."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.heads, self.causal = heads, causal

    def forward(self, h: Tensor) -> Tensor:
        """(batch, positions, width) to the same."""
        q, k, v = (self.split(project(h)) for project in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def split(self, t: Tensor) -> Tensor:
        """(batch, positions, width) as (batch, heads, positions, width / heads)."""
        return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
