"""Stage 2: LoRA trained to recommend, behind the frozen soft prompt."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import SFTTrainer

from delrec_hf.errors import InputError
from delrec_hf.finite import FiniteTrainer
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.rows import first_choices
from delrec_hf.training.common import (
    StageConfig,
    check_lengths,
    check_trainer_config,
    log_in_lines,
)


@dataclass
class FinetuneConfig(StageConfig):
    """Settings of stage 2: every `SFTConfig` key and these; the recipe section `finetune`."""

    lora_r: int = field(default=16, metadata={"help": "rank of the LoRA matrices"})
    lora_alpha: int = field(default=32, metadata={"help": "LoRA's scale is alpha / rank"})
    lora_dropout: float = field(default=0.05, metadata={"help": "dropout in front of LoRA"})
    lora_target_modules: list[str] | str | None = field(
        default=None,
        metadata={"help": "names of the layers to adapt; default: PEFT's choice (query and value)"},
    )
    lora_only: bool = field(
        default=True,
        metadata={"help": "also train LoRA without the soft prompt, the control in the report"},
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "peak learning rate"})
    weight_decay: float = field(default=1e-6, metadata={"help": "weight decay"})
    metric_for_best_model: str | None = field(
        default="loss", metadata={"help": "validation metric that chooses the checkpoint"}
    )

    def __post_init__(self) -> None:
        """Check what SFTConfig does not know."""
        super().__post_init__()
        check_trainer_config(self, "finetune")


def with_lora(
    backbone: PreTrainedModel, config: FinetuneConfig, prompt_folder: str | Path | None
) -> PeftModel:
    """Return a model whose LoRA, and nothing else, will train.

    Args:
        backbone: The language model; LoRA is injected into it, in place.
        config: Settings of LoRA.
        prompt_folder: A distilled soft prompt, or None for LoRA alone.

    Raises:
        InputError: If PEFT finds no layer to adapt.
    """
    set_seed(config.seed)
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
    )
    try:
        if prompt_folder is None:
            return get_peft_model(backbone, lora)
        backbone.add_adapter(lora)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"LoRA finds no layer to adapt: {reason}; set `finetune.lora_target_modules` to the "
            "names of linear layers, or to `all-linear`"
        ) from error
    model = DelRecModel.with_prompt(backbone, prompt_folder)
    model.train_only("lora")
    return model


class RecommendationTrainer(FiniteTrainer, SFTTrainer):
    """Trains LoRA on LLM-based Sequential Recommendation; validates by ranking.

    Args:
        model: From `with_lora`.
        args: The settings.
        train_rows: Encoded rows (`input_ids`, `labels`).
        validation_rows: The same of the validation part.
        ranking_rows: Validation rows with `prompt_ids`, `candidate_ids` and `target_place`, on
            which HR@1 is measured.
        processing_class: The tokenizer.
        scoring: How candidates are scored for HR@1: as they will be ranked.
    """

    args: FinetuneConfig
    section = "finetune"

    def __init__(
        self,
        model: PeftModel,
        args: FinetuneConfig,
        train_rows: Dataset,
        validation_rows: Dataset,
        ranking_rows: Dataset | None,
        processing_class: PreTrainedTokenizerBase,
        scoring: Literal["sum", "mean"] = "sum",
        **kwargs: Any,
    ) -> None:
        for rows in (train_rows, validation_rows):
            check_lengths(rows, model, args, "finetune")
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_rows.select_columns(["input_ids", "labels"]),
            eval_dataset=validation_rows.select_columns(["input_ids", "labels"]),
            processing_class=processing_class,
            **kwargs,
        )
        # SFTTrainer casts what trains on a quantised backbone to bfloat16; a saved adapter loads in
        # float32 and would give other logits than the model that was validated.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        log_in_lines(self)
        self._ranking_rows = ranking_rows
        self._scoring = scoring

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Add HR@1 among the candidates to the validation."""
        metrics: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        if self._ranking_rows is not None:
            rows = self._ranking_rows
            chosen = first_choices(self.model, rows, self.accelerator, self._scoring)
            hits = chosen == np.asarray(rows["target_place"])
            found = {f"{metric_key_prefix}_hr@1": float(hits.mean())}
            self.log(found)
            metrics |= found
        return metrics

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card at checkpoints: TRL's names neither the soft prompt nor the teacher."""
