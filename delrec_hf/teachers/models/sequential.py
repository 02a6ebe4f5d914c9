"""What the neural teachers share: item embeddings, next-item loss at every position, scores."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from delrec_hf.labels import IGNORED
from delrec_hf.teachers.learning.losses import (
    binary_loss,
    default_loss,
    horizon_weights,
    sampled_softmax_loss,
    softmax_loss,
)

PADDING_ID = 0

Loss = Literal["softmax", "sampled_softmax", "bce", "gbce"]


class SequentialConfig(PreTrainedConfig):
    """Shape and loss of a neural teacher.

    Attributes:
        num_items: Items in the catalogue; the item of row r has the id r + 1, id 0 is padding.
        num_users: Users known by id (Caser); the user of row r has the id r + 1, id 0 is anyone.
        max_length: How many of the last items are read.
        hidden_size: Width of the item embeddings.
        dropout: Share of values dropped in training.
        loss: Which loss; None: the whole softmax below 100,000 items, else the sampled one.
        num_negatives: Items drawn against the target, for the losses that draw.
        calibration: t of gBCE.
        catalogue: Fingerprint of the item ids in their order.
        users: Fingerprint of the user ids in their order.
        training_items: Fingerprint of the training sequences.
        initializer_range: Standard deviation of the initial weights.
    """

    num_items: int = 1
    num_users: int = 0
    max_length: int = 50
    hidden_size: int = 64
    dropout: float = 0.2
    loss: str | None = None
    num_negatives: int = 256
    calibration: float = 0.75
    catalogue: str = ""
    users: str = ""
    training_items: str = ""
    initializer_range: float = 0.05


@dataclass
class SequentialOutput(ModelOutput):
    """What a neural teacher computes.

    Attributes:
        loss: Mean over the positions with a label, if labels were given.
        scores: `(batch, num_items)` for the item to come, if none were given.
    """

    loss: torch.Tensor | None = None
    scores: torch.Tensor | None = None


class SequentialModel(PreTrainedModel):
    """A causal encoder of histories whose states are compared with the item embeddings.

    A subclass defines `encode`. Histories are padded on the right: a causal encoder never reads
    what stands after a position, so padding changes nothing and needs no mask.
    """

    config_class = SequentialConfig
    main_input_name = "input_ids"
    accepts_loss_kwargs = True

    def __init__(self, config: SequentialConfig) -> None:
        super().__init__(config)
        self.item_embedding = nn.Embedding(
            config.num_items + 1, config.hidden_size, padding_idx=PADDING_ID
        )
        if self.loss_name == "sampled_softmax":
            self.register_buffer("item_counts", torch.ones(config.num_items))

    @property
    def loss_name(self) -> str:
        """The loss it is trained with."""
        return self.config.loss or default_loss(self.config.num_items)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the item embedding."""
        return self.item_embedding

    def encode(self, input_ids: torch.Tensor, user_ids: torch.Tensor | None) -> torch.Tensor:
        """Return `(batch, length, hidden_size)`: at each position what is expected after it.

        Args:
            input_ids: `(batch, length)` item ids (item row + 1), 0 as padding on the right; length
                is at most `max_length`.
            user_ids: `(batch,)` user ids (user row + 1), 0 for a user not known; None: all 0.
        """
        raise NotImplementedError

    def encode_last(
        self, input_ids: torch.Tensor, user_ids: torch.Tensor | None, last: torch.Tensor
    ) -> torch.Tensor:
        """Return `(batch, hidden_size)`: what is expected after one position of each history.

        Args:
            input_ids: See `encode`.
            user_ids: See `encode`.
            last: `(batch,)` the positions.
        """
        hidden = self.encode(input_ids, user_ids)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]

    def forward(
        self,
        input_ids: torch.Tensor,
        user_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        later_labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> SequentialOutput:
        """Run histories through the model.

        Args:
            input_ids: See `encode`.
            user_ids: See `encode`.
            labels: `(batch, length)` item *rows* that follow each position, -100 where none counts.
            later_labels: `(batch, length, horizon - 1)` the ones after that, -100 likewise.
            num_items_in_batch: Labels that count in the whole optimiser step, over all processes.

        Returns:
            With labels the loss, without them the scores of every item as the next one.
        """
        if labels is None:
            last = (input_ids != PADDING_ID).sum(dim=1).clamp(min=1) - 1
            hidden = self.encode_last(input_ids, user_ids, last)
            return SequentialOutput(scores=F.linear(hidden, self.item_embedding.weight[1:]))
        hidden = self.encode(input_ids, user_ids)
        counted = labels != IGNORED
        targets = labels[counted][:, None]
        if later_labels is not None:
            targets = torch.cat([targets, later_labels[counted]], dim=1)
        weights = horizon_weights(targets.shape[1]).to(hidden.device) * (targets != IGNORED)
        total = self._loss(hidden[counted], targets.clamp(min=0), weights)
        return SequentialOutput(loss=total / (num_items_in_batch or counted.sum().clamp(min=1)))

    def _loss(
        self, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        items, negatives = self.item_embedding.weight[1:], self.config.num_negatives
        if self.loss_name == "softmax":
            return softmax_loss(hidden, items, targets, weights)
        if self.loss_name == "sampled_softmax":
            return sampled_softmax_loss(
                hidden, items, targets, weights, counts=self.item_counts, num_negatives=negatives
            )
        calibration = self.config.calibration if self.loss_name == "gbce" else None
        return binary_loss(
            hidden, items, targets, weights, num_negatives=negatives, calibration=calibration
        )
