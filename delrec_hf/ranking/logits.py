"""Log-probabilities out of hidden states, the logits of a slice after the other being held."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from delrec_hf.shards import in_shards

Project = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Makes `(tokens,)` log-probabilities of states `(rows, hidden size)`, of each token the row that
predicts it, and the tokens."""

_LARGE = 1000.0
_CACHED = 64  # rows at a time on a CPU: what the sums make of more would not stay in its cache

_plain: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()  # what was found, once


def plain_output(
    backbone: PreTrainedModel, states: torch.Tensor, forward: Callable[[torch.Tensor], torch.Tensor]
) -> nn.Linear | None:
    """Return the layer that alone turns hidden states into logits, if one does and is frozen.

    Where something stands around it (a softcap, a scale), where it learns, where LoRA is in it or
    its weight is elsewhere or shared out over processes, it is None.

    Args:
        backbone: A causal language model.
        states: `(rows, hidden size)`.
        forward: What the backbone makes of such states.
    """
    layer = backbone.get_output_embeddings()
    if type(layer) is not nn.Linear or any(one.requires_grad for one in layer.parameters()):
        return None
    if type(layer.weight) is not nn.Parameter or in_shards(layer):
        return None
    if layer.weight.device != states.device:
        return None
    if backbone not in _plain:
        with torch.no_grad():
            # Large ones, since a softcap does nothing to small logits.
            large = states[:1] * (_LARGE / states[:1].abs().max())
            _plain[backbone] = torch.equal(layer(large), forward(large))
    return layer if _plain[backbone] else None


def by_layer(layer: nn.Linear) -> Project:
    """Return what makes log-probabilities of a slice through a plain output layer."""

    def project(states: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _LogProbabilities.apply(
            states, layer.weight, layer.bias, rows, tokens
        )
        return found

    return project


def by_forward(forward: Callable[[torch.Tensor], torch.Tensor]) -> Project:
    """Return what makes them through the backbone's own forward, again on the way back."""

    def project(states: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return of_logits(forward(states), rows, tokens)

    def again(*one: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = checkpoint(project, *one, use_reentrant=False)
        return found

    return again if torch.is_grad_enabled() else project


def of_logits(logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of tokens out of `(rows, vocabulary)` logits, float32."""
    sums = torch.cat([some.float().logsumexp(1) for some in logits.split(_at_once(logits))])
    return logits[rows, tokens].float() - sums[rows]


class _LogProbabilities(torch.autograd.Function):
    r"""$\ell_{rt} = h_r W_t + b_t - \log\sum_v \exp(h_r W_v + b_v)$, its logits made once.

    Its gradient is $\partial\ell_{rt} / \partial h_r = W_t - \sum_v p_{rv} W_v$, with the
    probabilities $p$. That sum, as wide as a hidden state, is taken while the logits are there, and
    kept instead of them.
    """

    # Torch declares both with `*args`, which nothing more exact can override.
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        rows: torch.Tensor,
        tokens: torch.Tensor,
    ) -> torch.Tensor:
        """Return `(tokens,)` float32."""
        logits = F.linear(states, weight, bias)
        wanted = logits[rows, tokens].float()
        sums, means = [], []
        for some in logits.split(_at_once(logits)):
            highest = some.amax(1, keepdim=True).float()
            chances = some.float().sub_(highest).exp_()
            total = chances.sum(1, keepdim=True)
            sums.append((highest + total.log()).squeeze(1))
            if ctx.needs_input_grad[0]:
                means.append(torch.mm(chances.to(weight.dtype), weight).float().div_(total))
        if means:
            ctx.save_for_backward(torch.cat(means), weight[tokens], rows)
        return wanted - torch.cat(sums)[rows]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        """Return the gradient of the states."""
        means, own, rows = ctx.saved_tensors
        pulled = gradient.new_zeros(len(means)).index_add_(0, rows, gradient)
        found = (means * -pulled[:, None]).index_add_(0, rows, own.float() * gradient[:, None])
        return found.to(own.dtype), None, None, None, None


def _at_once(logits: torch.Tensor) -> int:
    return _CACHED if logits.device.type == "cpu" else max(1, len(logits))
