"""Muon: momentum whose matrices are made orthogonal, by torch's own optimizers: AdamW steps all other parameters."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import cycle
from typing import Any

import torch


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` for the matrices inside of a model, `torch.optim.AdamW` for the rest.

    For a matrix w with gradient g, and NS the Newton-Schulz iteration that brings all singular values near to 1::

        m = momentum * m + (1 - momentum) * g               d = NS(g + momentum * (m - g)) with nesterov, else NS(m)
        w = w - lr * (0.2 sqrt(max(rows, columns)) * d + weight_decay * w)

    The factor gives d the mean square of an AdamW step, so that one ``lr`` serves both.

    Args:
        params: tensors, or pairs of name and tensor as ``model.named_parameters()`` gives them.
        lr: >= 0, of both.
        momentum: in [0, 1), of the matrices.
        nesterov: look ahead along the momentum.
        ns_steps: Newton-Schulz iterations.
        betas, eps: of AdamW.
        weight_decay: >= 0, of both.
        adamw: patterns of names of matrices that AdamW steps: embeddings and output layers, whose rows are words and
            classes. Without names none is found.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the factor is of Liu et al. 2025,
    arXiv 2502.16982.
    """

    by_name = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        adamw: Sequence[str] = (),
    ):
        named = [each if isinstance(each, tuple) else ("", each) for each in params]
        chosen = [
            p.dim() == 2 and not (name and any(fnmatchcase(name, pattern) for pattern in adamw)) for name, p in named
        ]
        matrices = [p for (_, p), is_matrix in zip(named, chosen, strict=True) if is_matrix]
        rest = [p for (_, p), is_matrix in zip(named, chosen, strict=True) if not is_matrix]
        both = {"lr": lr, "weight_decay": weight_decay}
        muon = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr_fn": "match_rms_adamw"}
        groups = []
        for kind, members, own in ((torch.optim.Muon, matrices, muon), (torch.optim.AdamW, rest, {"betas": betas})):
            settings = both | own | ({"eps": eps} if kind is torch.optim.AdamW else {})
            example = kind([torch.zeros(1, 1)], **settings).param_groups[0]
            groups.append(example | {"params": members})
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns what ``closure``, called first and with gradients on, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for kind, group in zip(cycle((torch.optim.Muon, torch.optim.AdamW)), self.param_groups, strict=False):
            if group["params"]:
                part = kind(group["params"])
                part.param_groups, part.state = [group], self.state
                part.step()
        return loss
