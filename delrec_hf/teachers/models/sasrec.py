"""SASRec: self-attentive sequential recommendation (Kang & McAuley 2018, arXiv 1808.09781)."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel

from delrec_hf.teachers.models.dropout import dropout
from delrec_hf.teachers.models.sequential import SequentialConfig, SequentialModel


class SASRecConfig(SequentialConfig):
    """Shape of a SASRec.

    Attributes:
        num_hidden_layers: Attention blocks.
        num_attention_heads: Heads; they divide the width.
    """

    model_type = "delrec_sasrec"

    num_hidden_layers: int = 2
    num_attention_heads: int = 2


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

    def forward(self, hidden: torch.Tensor, last: torch.Tensor | None = None) -> torch.Tensor:
        """Mix the positions of each history, then transform each of them.

        Args:
            hidden: `(batch, length, hidden_size)`.
            last: `(batch,)` the one position wanted of each history; None: all.

        Returns:
            `(batch, length, hidden_size)`, or `(batch, 1, hidden_size)` for `last`.
        """
        batch, length, _ = hidden.shape
        dropped = self.dropout if self.training else 0.0
        mixed = self.query_key_value(self.attention_norm(hidden))
        query, key, value = mixed.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mask = None
        if last is not None:
            rows, places = (torch.arange(size, device=last.device) for size in (batch, length))
            hidden, query = hidden[rows, None, last], query[rows, :, None, last]
            mask = (places <= last[:, None])[:, None, None]
        read = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropped, is_causal=mask is None
        )
        read = self.attention_out(read.transpose(1, 2).reshape(hidden.shape))
        hidden = hidden + dropout(read, dropped, self.training)
        inner = F.gelu(self.network_in(self.network_norm(hidden)))
        inner = dropout(inner, dropped, self.training)
        return hidden + dropout(self.network_out(inner), dropped, self.training)


class SASRecModel(SequentialModel):
    """SASRec with tied item embeddings."""

    config_class = SASRecConfig
    _supports_sdpa = True

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.position_embedding = nn.Embedding(config.max_length, width)
        self.blocks = nn.ModuleList(SASRecBlock(config) for _ in range(config.num_hidden_layers))
        self.final_norm = nn.LayerNorm(width)
        self.post_init()

    def encode(
        self,
        input_ids: torch.Tensor,
        user_ids: torch.Tensor | None,  # noqa: ARG002 - the history says who it is
    ) -> torch.Tensor:
        """Return `(batch, length, hidden_size)`; see `SequentialModel.encode`."""
        hidden = self._embed(input_ids)
        for block in self.blocks:
            hidden = block(hidden)
        normed: torch.Tensor = self.final_norm(hidden)
        return normed

    def encode_last(
        self,
        input_ids: torch.Tensor,
        user_ids: torch.Tensor | None,  # noqa: ARG002
        last: torch.Tensor,
    ) -> torch.Tensor:
        """Return `(batch, hidden_size)`; the last block computes the positions asked for alone."""
        hidden = self._embed(input_ids)
        for block in self.blocks[:-1]:
            hidden = block(hidden)
        normed: torch.Tensor = self.final_norm(self.blocks[-1](hidden, last)[:, 0])
        return normed

    def _embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.item_embedding(input_ids) + self.position_embedding(positions)
        return dropout(hidden * self.config.hidden_size**0.5, self.config.dropout, self.training)


AutoConfig.register(SASRecConfig.model_type, SASRecConfig)
AutoModel.register(SASRecConfig, SASRecModel)
