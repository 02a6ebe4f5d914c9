"""What each token of a forward may see, as the attention masks that backbones take."""

import torch
from transformers import PreTrainedConfig


def masks(
    config: PreTrainedConfig,
    seen: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    like: torch.Tensor,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Return the additive attention mask, one for each kind of layer where they differ.

    Args:
        config: The language model's: its kinds of layers and their sliding window.
        seen: `(rows, length, keys)` bool, whether a token may see another one, on the device where
            the masks are used. Each may see itself.
        queries: `(rows, length)` int64 distance of each token from the root, on the CPU.
        keys: `(rows, keys)` the same of those that may be seen, the earlier ones included.
        like: What says the masks' dtype.

    Returns:
        `(rows, 1, length, keys)`. In layers with a sliding window a token sees the last so many.
    """
    deepest = int(queries.max())
    reach = {
        kind: None if window is None or window > deepest else window
        for kind, window in _windows(config).items()
    }
    made = {}
    for window in set(reach.values()):
        near = seen
        if window is not None:
            inside = keys.to(seen.device)[:, None, :] > queries.to(seen.device)[:, :, None] - window
            near = seen & inside
        hidden = torch.zeros(seen.shape, dtype=like.dtype, device=seen.device)
        made[window] = hidden.masked_fill_(~near, torch.finfo(like.dtype).min)[:, None]
    if len(made) == 1:
        return next(iter(made.values()))
    return {kind: made[window] for kind, window in reach.items()}


def _windows(config: PreTrainedConfig) -> dict[str, int | None]:
    """Return how many tokens back each kind of layer sees, None for all of them."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return {kind: window if kind == "sliding_attention" else None for kind in kinds}
    return {"every layer": window if getattr(config, "use_sliding_window", True) else None}
