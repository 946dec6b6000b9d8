"""How large attention logits are: what shows first when a large learning rate breaks a transformer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedbatch.models.transformer import Attention


@dataclass(frozen=True)
class AttentionSizes:
    """Sizes of a model's attention, for each of its L layers.

    Attributes:
        attention_logit_max: (L, heads), largest ``|q . k| / sqrt(head width)`` over examples and pairs of positions
            that see each other.
        query_max, key_max: (L,), largest absolute entries of the query and the key matrix.
    """

    attention_logit_max: Tensor
    query_max: Tensor
    key_max: Tensor


@torch.no_grad()
def attention_logits(model: nn.Module, x: Tensor) -> AttentionSizes:
    """Measure ``model`` on inputs ``x`` (batch, positions) in one forward pass; a few sequences tell enough.

    Raises:
        ValueError: the model has no attention layer of `fedbatch.models.transformer`.

    Source: the maxima of queries and keys bound the logits (Luo et al. 2025, arXiv 2508.20577, sec. 3).
    """
    layers = attention_layers(model)
    if not layers:
        raise ValueError("attention_logits: the model has no attention; use model=gpt or model=bert")
    found: list[Tensor] = []
    hooks = [a.register_forward_pre_hook(lambda own, inputs: found.append(_max_logit(own, inputs[0]))) for a in layers]
    try:
        model(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    query_max, key_max = (
        torch.stack([m.weight.abs().amax() for m in maps])
        for maps in ([a.query for a in layers], [a.key for a in layers])
    )
    return AttentionSizes(torch.stack(found), query_max, key_max)


def attention_layers(model: nn.Module) -> list[Attention]:
    """The attention layers of ``model``, from its input to its output."""
    return [module for module in model.modules() if isinstance(module, Attention)]


def _max_logit(layer: Attention, h: Tensor) -> Tensor:
    q, k = layer.split(layer.query(h)), layer.split(layer.key(h))
    logits = (q @ k.mT).abs() / q.shape[-1] ** 0.5  # (batch, heads, positions, positions)
    return (logits.tril() if layer.causal else logits).amax(dim=(0, 2, 3))
