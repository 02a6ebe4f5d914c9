"""How long a forward and backward take here, measured on a few layers of random weights.

The same batch goes through a backbone of one and of three layers. The difference is what a layer
takes, the rest is embedding and output layer.
"""

import copy
import time

import torch
from transformers import PreTrainedConfig

from delrec_hf.planning.cost import Batch, Pass, build, run_once

_CUTS = (1, 3)  # layers of the two backbones that are timed
_TRIAL = 2.0  # seconds that one of them may take, once warm


def seconds_of(
    config: PreTrainedConfig, dtype: torch.dtype, what: Pass, batch: Batch, device: torch.device
) -> float:
    """Return what a batch of this backbone takes here, measured on a few of its layers.

    Args:
        config: The backbone's.
        dtype: Of its weights.
        what: What is done.
        batch: A batch as it comes.
        device: Where.
    """
    layers = config.get_text_config().num_hidden_layers
    cuts = [min(one, layers) for one in _CUTS]
    taken = [_trial(_cut(config, one), dtype, what, batch, device) for one in sorted(set(cuts))]
    a_layer = (taken[-1] - taken[0]) / max(1, cuts[1] - cuts[0])
    return taken[0] + max(0.0, a_layer) * (layers - cuts[0])


def _cut(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """Return the config of the same backbone with the first so many layers."""
    short = copy.deepcopy(config)
    text = short.get_text_config()
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == text.num_hidden_layers:
            setattr(text, name, value[:layers])
    text.num_hidden_layers = layers
    return short


def _trial(
    config: PreTrainedConfig, dtype: torch.dtype, what: Pass, batch: Batch, device: torch.device
) -> float:
    """Return the seconds of one pass, the shortest of several."""
    with torch.device(device):
        model = build(config, dtype, what)
        run_once(model, what, batch)
        found: list[float] = []
        spent = 0.0
        while not found or (spent < _TRIAL and len(found) < 5):
            start = _clock(device)
            run_once(model, what, batch)
            found.append(_clock(device) - start)
            spent += found[-1]
    return min(found)


def _clock(device: torch.device) -> float:
    """Return seconds: of a CPU those of its threads' work, shared out over them."""
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.accelerator.synchronize()
    return time.perf_counter()
