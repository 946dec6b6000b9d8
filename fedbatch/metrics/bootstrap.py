"""How sure a calibration error is, from the bin sums it is computed of."""

import torch

from fedbatch.core import random as keys
from fedbatch.metrics.bins import SMALLEST_COUNT, BinSums, Norm


def spread(sums: BinSums, norm: Norm = "l1", debias: bool = False, replicates: int = 200) -> float:
    """Bootstrap standard deviation of ``sums.error(norm, debias)``; NaN without predictions.

    Redraws as many predictions with replacement (Efron 1979) as cells: bin and right or wrong, each with its bin's mean
    confidence. Drawing single predictions would also move that mean, by little, as a bin is narrow; but it would need
    them, where the sums are all that clients send. A redrawn error lies above the first on average, as that one lies
    above the truth, so only the spread is told.

    >>> sure = BinSums(torch.tensor([100.0]), torch.tensor([90.0]), torch.tensor([50.0]))
    >>> abs(spread(sure, replicates=2000) - (0.5 * 0.5 / 100) ** 0.5) < 0.002
    True
    """
    total = int(sums.count.sum())
    if not total:
        return float("nan")
    cells = torch.cat([sums.correct, sums.count - sums.correct]).clamp(min=0).cpu().numpy()
    drawn = keys.generator(0, "bootstrap").multinomial(total, cells / cells.sum(), size=replicates)
    correct, wrong = torch.from_numpy(drawn).double().chunk(2, dim=1)
    count = correct + wrong
    confidence = count * (sums.confidence / sums.count.clamp(min=SMALLEST_COUNT)).cpu()
    return float(BinSums(count, confidence, correct).errors(norm, debias).std())
