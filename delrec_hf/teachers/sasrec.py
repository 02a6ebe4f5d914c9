"""SASRec: self-attentive sequential recommendation (Kang & McAuley 2018, arXiv 1808.09781)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from delrec_hf.teachers.histories import IntArray, pad_left

FloatArray = npt.NDArray[np.float64]
PADDING_ID = 0


class SASRecConfig(PreTrainedConfig):
    """Shape of a SASRec.

    Attributes:
        num_items: Items in the catalogue; the item of row r has the id r + 1, id 0 is padding.
        max_length: How many of the last items are read.
        hidden_size: Width of embeddings and layers.
        num_hidden_layers: Attention blocks.
        num_attention_heads: Heads; they divide the width.
        dropout: Share of values dropped in training, everywhere.
        initializer_range: Standard deviation of the initial weights.
    """

    model_type = "delrec_sasrec"

    num_items: int = 1
    max_length: int = 50
    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    dropout: float = 0.2
    initializer_range: float = 0.05


@dataclass
class SASRecOutput(ModelOutput):
    """What a SASRec computes.

    Attributes:
        loss: Cross-entropy over the whole catalogue, if labels were given.
        scores: `(batch, num_items)` for the item to come, if none were given.
        last_hidden_state: `(batch, length, hidden_size)`.
    """

    loss: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None


class SASRecBlock(nn.Module):
    """Causal self-attention and a position-wise network, each normalised first and added."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.dropout = config.dropout
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.network_norm = nn.LayerNorm(width)
        self.network_in = nn.Linear(width, 4 * width)
        self.network_out = nn.Linear(4 * width, width)

    def forward(self, hidden: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Return `(batch, length, hidden_size)`.

        Args:
            hidden: `(batch, length, hidden_size)`.
            visible: `(batch, 1, length, length)` booleans: what each position may read.
        """
        batch, length, width = hidden.shape
        dropped = self.dropout if self.training else 0.0
        mixed = self.query_key_value(self.attention_norm(hidden))
        query, key, value = mixed.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value, visible, dropout_p=dropped)
        read = self.attention_out(read.transpose(1, 2).reshape(batch, length, width))
        hidden = hidden + F.dropout(read, dropped, self.training)
        inner = F.gelu(self.network_in(self.network_norm(hidden)))
        inner = F.dropout(inner, dropped, self.training)
        return hidden + F.dropout(self.network_out(inner), dropped, self.training)


class SASRecModel(PreTrainedModel):
    """SASRec with tied item embeddings and full-softmax training over every position.

    Histories are padded on the left, and positions are counted from the end, so that a history
    means the same however much padding stands before it.
    """

    config_class = SASRecConfig
    main_input_name = "input_ids"
    accepts_loss_kwargs = True
    _supports_sdpa = True

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.item_embedding = nn.Embedding(config.num_items + 1, width, padding_idx=PADDING_ID)
        self.position_embedding = nn.Embedding(config.max_length, width)
        self.blocks = nn.ModuleList(SASRecBlock(config) for _ in range(config.num_hidden_layers))
        self.final_norm = nn.LayerNorm(width)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the item embedding."""
        return self.item_embedding

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> SASRecOutput:
        """Run histories through the model.

        Args:
            input_ids: `(batch, length)` item ids (item row + 1), 0 as padding on the left; length
                is at most `max_length`.
            labels: `(batch, length)` item *rows* that follow each position, -100 where none counts.
            num_items_in_batch: Labels that count in the whole optimiser step, over all processes.

        Returns:
            With labels the loss, without them the scores of every item as the next one.
        """
        hidden = self._encode(input_ids)
        catalogue = self.item_embedding.weight[1:]
        if labels is None:
            return SASRecOutput(scores=F.linear(hidden[:, -1], catalogue), last_hidden_state=hidden)
        counted = labels != -100
        logits = F.linear(hidden[counted], catalogue).float()
        total = F.cross_entropy(logits, labels[counted], reduction="sum")
        return SASRecOutput(loss=total / (num_items_in_batch or counted.sum().clamp(min=1)))

    def _encode(self, input_ids: torch.Tensor) -> torch.Tensor:
        length = input_ids.shape[1]
        positions = torch.arange(length, device=input_ids.device) + self.config.max_length - length
        hidden = self.item_embedding(input_ids) + self.position_embedding(positions)
        hidden = hidden * self.config.hidden_size**0.5
        hidden = F.dropout(hidden, self.config.dropout, self.training)
        earlier = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()
        # Every position reads itself, padding too: a softmax over nothing is not a number.
        itself = torch.eye(length, dtype=torch.bool, device=input_ids.device)
        visible = earlier & ((input_ids != PADDING_ID)[:, None, None, :] | itself)
        for block in self.blocks:
            hidden = block(hidden, visible)
        return self.final_norm(hidden)

    def score(
        self,
        user_ids: Sequence[str],  # noqa: ARG002 - other teachers look their lists up by user
        positions: IntArray,  # noqa: ARG002
        histories: Sequence[IntArray],
    ) -> FloatArray:
        """Score every item as the next one of each history; see `Teacher.score`."""
        ids = torch.from_numpy(pad_left(histories, self.config.max_length)).to(self.device)
        was_training = self.training
        self.eval()
        with torch.inference_mode():
            scores = self(ids).scores.double().cpu().numpy()
        self.train(was_training)
        return scores


AutoConfig.register(SASRecConfig.model_type, SASRecConfig)
AutoModel.register(SASRecConfig, SASRecModel)
