"""What a loss over a whole batch makes of a small one: by chance alone a few predictions look miscalibrated."""

import torch

from fedbatch.core import random as keys
from fedbatch.losses.sum import Loss, Sum

ENOUGH, MANY = 128, 4096
"""Examples from which we do not warn, and examples that stand for very many; a perfectly calibrated model still scores
0.07 on the default SB-ECE with 128."""
PREDICTIONS = 2**14


def warning(loss: Loss, examples: int, classes: int) -> str | None:
    """A line about client batches of ``examples``, or None where no example sees another, or enough do."""
    parts = loss.counted if isinstance(loss, Sum) else (loss,)
    coupled = [part for part in parts if not getattr(part, "per_example", False)]
    if examples >= ENOUGH or not coupled:
        return None
    scores = [
        f"{type(part).__name__} {chance_score(part, examples, classes):.2g} (with {MANY:,} examples "
        f"{chance_score(part, MANY, classes):.2g})"
        for part in coupled
    ]
    return (
        f"loss: looks at a client's whole batch, here of {examples:,} examples; a perfectly calibrated model would "
        f"score {', '.join(scores)}: set client_batch_size={ENOUGH} or more, or take a loss by example"
    )


def chance_score(loss: Loss, examples: int, classes: int) -> float:
    """Mean of a loss over batches of ``examples`` perfectly calibrated predictions: labels are drawn from them.

    Logits are normal with standard deviation 2.

    >>> from fedbatch.losses import SBECE
    >>> [round(chance_score(SBECE(), n, 10), 2) for n in (10, 128, 4096)]
    [0.23, 0.07, 0.01]
    """
    source = torch.Generator().manual_seed(keys.key(0, "calibrated") >> 1)
    logits = 2 * torch.randn(PREDICTIONS, classes, generator=source)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=source).squeeze(1)
    batches = list(zip(logits.split(examples), labels.split(examples), strict=True))[:100]
    return float(torch.stack([loss(z, y) for z, y in batches]).mean())
