"""Caser: convolutional sequence embedding (Tang & Wang 2018, arXiv 1809.07426)."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel

from delrec_hf.teachers.models.dropout import dropout
from delrec_hf.teachers.models.sequential import SequentialConfig, SequentialModel


class CaserConfig(SequentialConfig):
    """Shape of a Caser; `max_length` is L of the paper, the height of the image.

    Attributes:
        num_horizontal: Filters of each height 1 to `max_length` (n_h of the paper).
        num_vertical: Weighted sums over the last items (n_v of the paper).
    """

    model_type = "delrec_caser"

    num_horizontal: int = 16
    num_vertical: int = 4


class CaserModel(SequentialModel):
    """Caser over every position of a sequence at once.

    The paper cuts a sequence into windows of L items, and each window is an image. Windows that
    overlap share almost all of their rows, so here a horizontal filter runs once over the sequence
    and a window's maximum is taken by a sliding pool; nothing is computed or copied twice.
    """

    config_class = CaserConfig

    def __init__(self, config: CaserConfig) -> None:
        super().__init__(config)
        width, length = config.hidden_size, config.max_length
        self.user_embedding = nn.Embedding(config.num_users + 1, width, padding_idx=0)
        self.horizontal = nn.ModuleList(
            nn.Conv1d(width, config.num_horizontal, height) for height in range(1, length + 1)
        )
        self.vertical = nn.Linear(length, config.num_vertical, bias=False)
        joined = config.num_horizontal * length + config.num_vertical * width
        self.network = nn.Linear(joined, width)
        self.to_items = nn.Linear(2 * width, width)
        self.post_init()

    def encode(self, input_ids: torch.Tensor, user_ids: torch.Tensor | None) -> torch.Tensor:
        """Return `(batch, length, hidden_size)`; see `SequentialModel.encode`."""
        window = self.config.max_length
        image = F.pad(self.item_embedding(input_ids).transpose(1, 2), (window - 1, 0))
        found = [
            F.max_pool1d(F.relu(conv(image)), window - height + 1, stride=1)
            for height, conv in enumerate(self.horizontal, start=1)
        ]
        summed = self.vertical(image.unfold(2, window, 1))  # (batch, width, length, num_vertical)
        features = torch.cat(
            [torch.cat(found, dim=1).transpose(1, 2), summed.permute(0, 2, 3, 1).flatten(2)], dim=2
        )
        features = dropout(features, self.config.dropout, self.training)
        hidden = F.relu(self.network(features))
        users = input_ids.new_zeros(len(input_ids)) if user_ids is None else user_ids
        person = self.user_embedding(users)[:, None].expand_as(hidden)
        combined: torch.Tensor = self.to_items(torch.cat([hidden, person], dim=2))
        return combined


AutoConfig.register(CaserConfig.model_type, CaserConfig)
AutoModel.register(CaserConfig, CaserModel)
