"""The losses a neural teacher can be trained with, over flat lists of positions.

All take `hidden (positions, width)`, the item table `items (catalogue, width)`, `targets
(positions, horizon)` item rows and `weights (positions, horizon)`, 0 where there is no target, and
return the sum over positions of the weighted losses.
"""

import math

import torch
import torch.nn.functional as F

LOGITS_AT_ONCE = 2**23
"""32 MB in float32: what bounds the memory of the full softmax."""


def softmax_loss(
    hidden: torch.Tensor, items: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy over the whole catalogue.

    sum_p sum_k w_pk (logsumexp_i(h_p . e_i) - h_p . e_{y_pk})

    The gradient is computed along with the loss, a block of positions at a time, so that memory
    does not grow with positions x catalogue.
    """
    loss: torch.Tensor = _Softmax.apply(hidden, items, targets, weights)
    return loss


class _Softmax(torch.autograd.Function):
    # Torch gives `ctx` no type and calls both by position: there is nothing to check against.
    @staticmethod
    def forward(ctx, hidden, items, targets, weights):  # type: ignore[no-untyped-def]
        kind = torch.get_autocast_dtype(hidden.device.type)
        low = kind if torch.is_autocast_enabled(hidden.device.type) else hidden.dtype
        states, table = hidden.to(low), items.to(low)
        grad_hidden = torch.empty_like(hidden)
        grad_items = torch.zeros_like(items)
        total = hidden.new_zeros(())
        rows = max(1, LOGITS_AT_ONCE // len(items))
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits = (states[part] @ table.T).float()
            mass = weights[part].sum(dim=1, keepdim=True)
            highest = logits.amax(dim=1, keepdim=True)
            total -= (weights[part] * (logits.gather(1, targets[part]) - highest)).sum()
            chances = logits.sub_(highest).exp_()
            norm = chances.sum(dim=1, keepdim=True)
            total += (mass * norm.log()).sum()
            grads = chances.mul_(mass / norm).scatter_add_(1, targets[part], -weights[part])
            grads = grads.to(low)
            grad_hidden[part] = grads @ table
            grad_items += grads.T @ states[part]
        ctx.save_for_backward(grad_hidden, grad_items)
        return total

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        grad_hidden, grad_items = ctx.saved_tensors
        return grad * grad_hidden, grad * grad_items, None, None


def sampled_softmax_loss(
    hidden: torch.Tensor,
    items: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    counts: torch.Tensor,
    num_negatives: int,
) -> torch.Tensor:
    """Cross-entropy over the target and negatives drawn by popularity, with logQ correction.

    Negatives j are drawn once per call with probability q_j and enter the softmax as
    exp(h . e_j - log(n q_j)), which makes the sum over them an unbiased estimate of the sum over
    the catalogue (Bengio & Senecal 2008; Yi et al. 2019). The target is always there, so it is
    not corrected. Negatives that are the position's target are left out.

    Args:
        hidden: See the module.
        items: See the module.
        targets: See the module.
        weights: See the module.
        counts: `(catalogue,)` how often each item is drawn, relative to the others.
        num_negatives: How many are drawn.
    """
    chances = counts / counts.sum()
    drawn = torch.multinomial(chances, num_negatives, replacement=True)
    correction = torch.log(num_negatives * chances[drawn])
    others = F.linear(hidden, items[drawn]).float() - correction
    chosen = torch.einsum("pd,pkd->pk", hidden, items[targets]).float()
    total = hidden.new_zeros((), dtype=torch.float32)
    for step in range(targets.shape[1]):
        hits = drawn[None, :] == targets[:, step, None]
        logits = torch.cat([chosen[:, step, None], others.masked_fill(hits, -torch.inf)], dim=1)
        total = total + (weights[:, step] * (logits.logsumexp(1) - chosen[:, step])).sum()
    return total


def binary_loss(
    hidden: torch.Tensor,
    items: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    num_negatives: int,
    calibration: float | None = None,
) -> torch.Tensor:
    """Binary cross-entropy of the target against negatives drawn evenly for each position.

    -sum_p sum_k w_pk (beta log sigma(s+) + mean_j log(1 - sigma(s_j)))  with n negatives j

    Args:
        hidden: See the module.
        items: See the module.
        targets: See the module.
        weights: See the module.
        num_negatives: Negatives per position; 1 is the original SASRec.
        calibration: t of gBCE (Petrov & Macdonald 2023, arXiv 2308.07192, eq. 8): beta =
            alpha (t (1 - 1/alpha) + 1/alpha) with alpha the share of the catalogue drawn, and the
            negatives' losses are added, not averaged. None: beta = 1, plain BCE.
    """
    drawn = torch.randint(len(items), (len(hidden), num_negatives), device=hidden.device)
    chosen = torch.einsum("pd,pkd->pk", hidden, items[targets]).float()
    if len(items) <= num_negatives * hidden.shape[1]:  # all scores are fewer than all that is read
        others = F.linear(hidden, items).gather(1, drawn).float()
    else:
        others = torch.einsum("pd,pnd->pn", hidden, items[drawn]).float()
    against = F.softplus(others).masked_fill((drawn == targets[:, :1]), 0.0)
    beta = 1.0
    if calibration is None:
        against = against / num_negatives
    else:
        alpha = num_negatives / max(1, len(items) - 1)
        beta = calibration * (alpha - 1) + 1
    positive = (weights * F.softplus(-chosen)).sum()
    return beta * positive + (weights.sum(dim=1) * against.sum(dim=1)).sum()


def default_loss(num_items: int) -> str:
    """Return the loss for a catalogue: the whole softmax as long as that is affordable.

    >>> default_loss(3_706), default_loss(2_000_000)
    ('softmax', 'sampled_softmax')
    """
    return "softmax" if num_items < 100_000 else "sampled_softmax"


def horizon_weights(horizon: int) -> torch.Tensor:
    """Return how much each of the next items counts: 1, 1/2, 1/3 ..., adding up to 1.

    >>> horizon_weights(1).tolist()
    [1.0]
    """
    steps = torch.tensor([1 / (step + 1) for step in range(horizon)])
    return steps / math.fsum(steps.tolist())
