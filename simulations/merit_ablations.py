"""MERIT with one of its two ideas taken out: the norm of largest entries, or the ratios of rows and columns."""

import torch
from torch import Tensor

from fedbatch.optim import MERIT
from fedbatch.optim.layerwise import quotient


class EuclideanMERIT(MERIT):
    """MERIT with l2 norms in the place of largest entries; moments, decay and clipping are MERIT's.

    For a matrix (rows, columns) of weights w and of directions d, ``s_ij = max(row_i, column_j, ratio)`` where

        row_i = |w_i.| / |d_i.|     column_j = |w_.j| / |d_.j|     ratio = |w| / |d|

    and s_ij = 1 where a norm of the row or of the column is 0. For vectors s = ratio, or 1 where a norm is 0. Tensors
    of more axes are read as matrices of filters, whatever ``flatten`` says.
    """

    @staticmethod
    def _scale(w: Tensor, d: Tensor, flatten: bool) -> Tensor:
        ratio = quotient(torch.linalg.vector_norm(w), torch.linalg.vector_norm(d))
        if w.dim() < 2:
            d.mul_(ratio)
            return ratio
        matrices = w.flatten(1), d.flatten(1)
        rows, columns = ([torch.linalg.vector_norm(t, dim=axis, keepdim=True) for t in matrices] for axis in (1, 0))
        largest = torch.maximum(torch.maximum(rows[0] / rows[1], ratio), columns[0] / columns[1])
        known = (rows[0] > 0) & (rows[1] > 0) & (columns[0] > 0) & (columns[1] > 0)
        d.mul_(torch.where(known, largest, 1.0).view_as(d))
        return ratio


class WeightwiseMERIT(MERIT):
    """MERIT with one ratio for a whole tensor, ``s = max |w| / max |d|``, or 1 where a maximum is 0."""

    @staticmethod
    def _scale(w: Tensor, d: Tensor, flatten: bool) -> Tensor:
        ratio = quotient(w.abs().amax(), d.abs().amax())
        d.mul_(ratio)
        return ratio
