"""What a backbone's forward takes and gives: embeddings in, log-probabilities of tokens out."""

import copy
import dataclasses
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from delrec_hf.ranking import budget
from delrec_hf.ranking.logits import by_forward, by_layer, of_logits, plain_output
from delrec_hf.shards import in_shards


def embed(
    backbone: PreTrainedModel, soft_prompt: torch.Tensor | None, ids: torch.Tensor
) -> torch.Tensor:
    """Return the embeddings of tokens behind the soft prompt.

    Args:
        backbone: The language model.
        soft_prompt: `(virtual tokens, hidden size)`, or None.
        ids: `(rows, length)` int64.

    Returns:
        `(rows, virtual tokens + length, hidden size)`, in the backbone's dtype.
    """
    table = backbone.get_input_embeddings()
    embeds: torch.Tensor = table(ids.to(table.weight.device))
    if soft_prompt is None:
        return embeds
    return torch.cat([soft_prompt.to(embeds).expand(len(ids), -1, -1), embeds], dim=1)


def log_probabilities(
    backbone: PreTrainedModel,
    inputs: dict[str, Any],
    scored: torch.Tensor,
    owners: torch.Tensor,
    tokens: torch.Tensor,
) -> torch.Tensor:
    """Return the log-probabilities of given tokens, without holding the logits of all at once.

    The decoder runs once. Then the backbone's own forward turns a slice of the scored positions
    after the other into logits, the decoder answering with what it gave before: so softcapping,
    scales and biases around the output layer are the backbone's own, whatever they are. Where
    the output layer is all there is, it is asked itself; see `logits`. Where the weights lie in
    shards, each module is asked once, for all logits: FSDP and DeepSpeed follow the order of calls.

    Args:
        backbone: A causal language model of transformers.
        inputs: What its forward takes.
        scored: `(rows, length)` bool, which positions predict.
        owners: `(tokens,)` int64, which of these positions, row by row, predicts each token.
        tokens: `(tokens,)` int64 the predicted tokens.

    Returns:
        `(tokens,)` float32.
    """
    at_once = in_shards(backbone)
    decoder = _Decoder(_decoder_of(backbone), scored if at_once else None)
    reader = _with_decoder(backbone, decoder)
    first = reader(**inputs).logits
    if at_once:
        return of_logits(first[0], owners.to(first.device), tokens.to(first.device))
    device, vocabulary = first.device, first.shape[-1]
    places = scored.flatten().nonzero().squeeze(1).to(decoder.hidden.device)
    hidden = decoder.hidden.flatten(0, 1).index_select(0, places)

    def forward(states: torch.Tensor) -> torch.Tensor:
        decoder.answer = states[None]
        logits: torch.Tensor = reader(inputs_embeds=states[None], use_cache=False).logits[0]
        return logits

    layer = plain_output(backbone, hidden, forward)
    project = by_forward(forward) if layer is None else by_layer(layer)
    step = max(1, budget.logits(device) // vocabulary)
    order = owners.argsort(stable=True)
    sizes = torch.bincount(owners // step, minlength=-(-len(hidden) // step)).tolist()
    slices = zip(
        hidden.split(step),
        (owners[order] % step).to(device).split(sizes),
        tokens[order].to(device).split(sizes),
        strict=True,
    )
    found = torch.cat([project(*one) for one in slices])
    return found[order.argsort().to(device)]


class _Decoder(nn.Module):
    """Stands in a decoder's place: runs it once, then answers with slices of what it gave.

    Args:
        own: The decoder.
        wanted: `(rows, length)` bool, the positions to answer with at once; None: with one.
    """

    def __init__(self, own: nn.Module, wanted: torch.Tensor | None = None) -> None:
        super().__init__()
        self._own = (own,)  # in a tuple, so that it is no submodule
        self._wanted = wanted
        self._output: Any = None
        self.answer: torch.Tensor | None = None

    @property
    def hidden(self) -> torch.Tensor:
        """The hidden states, `(rows, length, hidden size)`."""
        states: torch.Tensor = self._output.last_hidden_state
        return states

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._output is None:
            self._output = self._own[0](*args, **kwargs)
            self.answer = self.hidden[:1, -1:]  # one position: its logits tell the vocabulary
            if self._wanted is not None:
                self.answer = self.hidden[self._wanted.to(self.hidden.device)][None]
        return dataclasses.replace(self._output, last_hidden_state=self.answer)


def _decoder_of(backbone: PreTrainedModel) -> nn.Module:
    """Return the module whose output the backbone's forward turns into logits."""
    base: nn.Module = backbone.base_model
    inner = base._modules.get("decoder")  # OPT's forward calls the decoder inside its base model
    return base if inner is None else inner


def _with_decoder(backbone: PreTrainedModel, decoder: _Decoder) -> PreTrainedModel:
    """Return a backbone of the same weights with another decoder; the given one stays as it is."""
    own = decoder._own[0]
    path = next(name for name, module in backbone.named_modules() if module is own)
    return _replaced(backbone, path, decoder)


def _replaced(module: nn.Module, path: str, new: nn.Module) -> Any:
    name, _, rest = path.partition(".")
    twin = copy.copy(module)
    # What accelerate's hooks and torch.compile hang on a module is bound to the module itself.
    twin.__dict__.pop("forward", None)
    twin._compiled_call_impl = None
    inner = module._modules[name]
    assert inner is not None  # `path` leads to a module that is there
    child = _replaced(inner, rest, new) if rest else new
    twin._modules = {**module._modules, name: child}
    return twin
