"""How much one forward may hold."""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from delrec_hf.devices import counts_memory, total_memory

TOKENS = 1 << 13  # tokens of one forward
TREE = 1 << 11  # tokens of one prompt's tree: wider ones spend more on attention than they save
CHUNK = 1 << 8  # tokens of a catalogue's trie read at once behind what is read of the prompt
LOGITS = 1 << 24  # logits held at once: 64 MiB in float32
LOGITS_ON_DEVICE = 1 << 28  # the same on a GPU, whose kernels want more to do: 1 GiB
SHARE = 0.4  # of a GPU's memory for what a training holds of one forward


def rows_at_once(tokens: int, logits: int) -> int:
    """Return how many rows of so many tokens and logits each one forward takes, at least one."""
    return max(1, min(TOKENS // tokens, LOGITS // logits))


def logits(device: torch.device) -> int:
    """Return how many logits are held at once on a device."""
    return LOGITS_ON_DEVICE if counts_memory(device) else LOGITS


def tokens(backbone: PreTrainedModel) -> int:
    """Return how many tokens one forward takes: on a GPU, what its memory bears."""
    if not counts_memory(backbone.device):
        return TOKENS
    found = tokens_within(total_memory(backbone.device), backbone.config, backbone.dtype)
    return found if torch.is_grad_enabled() else max(TOKENS, found)


def tokens_within(memory: int, config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Return how many tokens a training may hold at once within an accelerator's memory.

    A layer keeps about 16 hidden states and 4 inner ones of each token for the way back.

    Args:
        memory: The accelerator's, in bytes.
        config: The backbone's.
        dtype: Of its weights.
    """
    text = config.get_text_config()
    hidden = text.hidden_size
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    inner = max(inner) if isinstance(inner, list) else inner
    held = (16 * hidden + 4 * inner) * dtype.itemsize * text.num_hidden_layers
    return max(1, int(SHARE * memory / held))
