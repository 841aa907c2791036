"""Integrated gradients: how much each value of a code matters to a loss (Sundararajan et al., arXiv 1703.01365)."""

from collections.abc import Callable

import torch
from torch import Tensor


def integrated_gradients(
    loss: Callable[[Tensor], Tensor], code_BN: Tensor, num_steps: int = 4, create_graph: bool = False
) -> Tensor:
    """``code · ∫₀¹ ∂loss/∂code(α·code) dα``, baseline zero, by the midpoint rule; of the code's shape ``(B, N)``.

    For exact integration the sum over N is each sample's loss at the code minus its loss at zero.

    Args:
        loss: takes a code ``(B, N)``, returns the sum of the samples' losses, a scalar.
        code_BN: where to attribute.
        num_steps: points on the path.
        create_graph: whether the result can be differentiated, in the code and in the weights that ``loss`` uses; if
            not, it is detached.

    >>> integrated_gradients(lambda c: c.square().sum(), torch.tensor([[1.0, 2.0]]))
    tensor([[1., 4.]])
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    code = code_BN if create_graph else code_BN.detach()
    total = torch.zeros_like(code)
    for step in range(num_steps):
        at = code * ((step + 0.5) / num_steps)
        at = at if at.requires_grad else at.requires_grad_()
        with torch.enable_grad():
            total = total + torch.autograd.grad(loss(at), at, create_graph=create_graph)[0]
    return code * total / num_steps
