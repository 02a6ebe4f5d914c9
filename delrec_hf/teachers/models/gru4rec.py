"""GRU4Rec: a recurrent recommender (Hidasi et al. 2016, arXiv 1511.06939; 2018, 1706.03847)."""

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from delrec_hf.teachers.models.dropout import dropout
from delrec_hf.teachers.models.sequential import SequentialConfig, SequentialModel


class GRU4RecConfig(SequentialConfig):
    """Shape of a GRU4Rec.

    Attributes:
        num_hidden_layers: Recurrent layers.
        recurrent_size: Width of the recurrent state.
    """

    model_type = "delrec_gru4rec"

    num_hidden_layers: int = 1
    recurrent_size: int = 128


class GRU4RecModel(SequentialModel):
    """GRU4Rec with one table of item embeddings for input and output (2018, "constrained")."""

    config_class = GRU4RecConfig

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__(config)
        self.recurrent = nn.GRU(
            config.hidden_size,
            config.recurrent_size,
            config.num_hidden_layers,
            batch_first=True,
            dropout=config.dropout if config.num_hidden_layers > 1 else 0.0,
        )
        self.to_items = nn.Linear(config.recurrent_size, config.hidden_size)
        self.post_init()

    def encode(
        self,
        input_ids: torch.Tensor,
        user_ids: torch.Tensor | None,  # noqa: ARG002 - sessions are anonymous
    ) -> torch.Tensor:
        """Return `(batch, length, hidden_size)`; see `SequentialModel.encode`."""
        embedded = self.item_embedding(input_ids)
        embedded = dropout(embedded, self.config.dropout, self.training)
        states, _ = self.recurrent(embedded)
        states = dropout(states, self.config.dropout, self.training)
        hidden: torch.Tensor = self.to_items(states)
        return hidden


AutoConfig.register(GRU4RecConfig.model_type, GRU4RecConfig)
AutoModel.register(GRU4RecConfig, GRU4RecModel)
