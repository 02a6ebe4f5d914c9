"""Stage 2: LoRA trained to recommend, behind the frozen soft prompt."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from peft import AdaLoraConfig, LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from delrec_hf.errors import InputError, suggest
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.scoring import SUM, Scoring
from delrec_hf.training.common import (
    StageConfig,
    check_cartridge,
    check_lengths,
    check_trainer_config,
)
from delrec_hf.training.listwise import ListwiseCollator
from delrec_hf.training.rank_allocation import RankAllocation, adalora_config
from delrec_hf.training.trainer import RankingTrainer

CONTROLS = ("lora-only", "random-prompt", "no-ta", "no-rps", "cartridge")


@dataclass
class FinetuneConfig(StageConfig):
    """Settings of stage 2: every `SFTConfig` key and these; the recipe section `finetune`."""

    lora_type: Literal["lora", "rslora", "dora", "adalora"] = field(
        default="lora",
        metadata={
            "help": "LoRA; with a scale that suits any rank (rslora); with each weight's size "
            "learned apart (dora); or with ranks where they do most (adalora)"
        },
    )
    lora_r: int = field(
        default=16,
        metadata={
            "help": "rank of the LoRA matrices; adalora starts with half as many again and leaves "
            "so many a layer, on average"
        },
    )
    lora_alpha: int = field(
        default=32,
        metadata={
            "help": "LoRA's scale is alpha / rank (adalora: the rank it starts with); with rslora "
            "alpha / square root of the rank"
        },
    )
    lora_dropout: float = field(default=0.05, metadata={"help": "dropout in front of LoRA"})
    lora_target_modules: list[str] | str | None = field(
        default=None,
        metadata={"help": "names of the layers to adapt; default: PEFT's choice (query and value)"},
    )
    max_train_users: int | None = field(
        default=None,
        metadata={"help": "learn from the true next items of so many users, drawn by data.seed"},
    )
    controls: list[str] = field(
        default_factory=lambda: ["lora-only"],
        metadata={
            "help": "what to train besides, as long as delrec: LoRA alone (`lora-only`), behind an "
            "untrained prompt (`random-prompt`), behind one distilled by one task (`no-ta`, "
            "`no-rps`), behind a distilled cartridge (`cartridge`)"
        },
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "peak learning rate"})
    weight_decay: float = field(default=1e-6, metadata={"help": "weight decay"})
    metric_for_best_model: str | None = field(
        default="ndcg@10", metadata={"help": "validation metric that chooses the checkpoint"}
    )

    def __post_init__(self) -> None:
        """Check what SFTConfig does not know."""
        for name in self.controls:
            if name not in CONTROLS:
                raise InputError(
                    f"`finetune.controls` names `{name}`; expected names out of "
                    f"{', '.join(CONTROLS)}{suggest(name, CONTROLS)}"
                )
        if self.lora_r < 1:
            raise InputError(f"`finetune.lora_r` is {self.lora_r}; expected a rank of 1 or more")
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
        InputError: If PEFT finds no layer to adapt, or cannot adapt those of this backbone.
    """
    set_seed(config.seed)
    lora = _lora_config(backbone, config)
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


def _lora_config(backbone: PreTrainedModel, config: FinetuneConfig) -> LoraConfig:
    if (
        config.lora_type == "dora"
        and getattr(backbone, "is_loaded_in_8bit", False)
        and backbone.device.type == "cpu"
    ):
        raise InputError(
            "`finetune.lora_type` is dora, and on a CPU PEFT's DoRA loses the scales of 8-bit "
            "weights at the second forward; set `backbone.load_in_8bit: false`, or load_in_4bit"
        )
    layers = config.lora_target_modules
    settings: dict[str, Any] = {
        "task_type": TaskType.CAUSAL_LM,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
    }
    if config.lora_type == "adalora":
        return adalora_config(backbone, config.lora_r, layers, **settings)
    return LoraConfig(
        r=config.lora_r,
        target_modules=layers,
        use_rslora=config.lora_type == "rslora",
        use_dora=config.lora_type == "dora",
        **settings,
    )


class RecommendationTrainer(RankingTrainer):
    """Trains LoRA on LLM-based Sequential Recommendation; validates by ranking.

    Args:
        model: From `with_lora`.
        args: The settings.
        train_rows: For the loss `title` encoded rows (`input_ids`, `labels`), for `listwise` rows
            to rank (`prompt_ids`, `candidate_ids`, `target_place`).
        validation_rows: The same of the validation part.
        ranking_rows: Validation rows to rank, by which the checkpoint is chosen.
        processing_class: The tokenizer.
        scoring: How candidates are scored: as they will be ranked.
        temperature: What scores are divided by in the loss `listwise`.
    """

    args: FinetuneConfig
    section = "finetune"

    def __init__(
        self,
        model: PeftModel,
        args: FinetuneConfig,
        train_rows: Dataset,
        validation_rows: Dataset,
        ranking_rows: Dataset,
        processing_class: PreTrainedTokenizerBase,
        scoring: Scoring = SUM,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        check_cartridge(model, args, "finetune")
        for rows in (train_rows, validation_rows):
            check_lengths(rows, model, args, "finetune")
        is_title = args.loss == "title"
        pad = processing_class.pad_token_id
        super().__init__(
            model,
            args,
            train_dataset=train_rows.select_columns(["input_ids", "labels"])
            if is_title
            else train_rows,
            data_collator=DataCollatorForLanguageModeling(pad_token_id=pad)
            if is_title
            else ListwiseCollator(),
            ranking_rows={"": ranking_rows},
            title_rows={"": validation_rows.select_columns(["input_ids", "labels"])}
            if is_title
            else {},
            processing_class=processing_class,
            scoring=scoring,
            temperature=temperature,
            **kwargs,
        )
        self._allocation: RankAllocation | None = None
        backbone = model.get_base_model()
        if isinstance(backbone.peft_config["default"], AdaLoraConfig):
            self._check_adalora()
            self._allocation = RankAllocation(backbone)
            self.add_callback(self._allocation)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of the rows; with AdaLoRA its gradient is regularised, too.

        The value stays that of the rows, so that losses of training and validation, and of all
        ways of LoRA, can be compared.
        """
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self._allocation is None or not self.model.training:
            return loss
        regularisation = self._allocation.regularisation()
        if num_items_in_batch is not None:  # then the Trainer adds up the micro-batches of a step
            regularisation = regularisation / self.current_gradient_accumulation_steps
        return loss + regularisation - regularisation.detach()

    def _check_adalora(self) -> None:
        """Refuse what would allocate by other gradients than those of whole weights.

        Raises:
            InputError: With the reason and the cure.
        """
        cure = "or set `finetune.lora_type: lora`"
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise InputError(
                "`finetune.lora_type` is adalora, which measures whole weights, and FSDP and "
                f"DeepSpeed cut them up; train with DDP (accelerate_config ddp), {cure}"
            )
        if self.args.fp16:
            raise InputError(
                "`finetune.lora_type` is adalora, which measures each step's gradient, and with "
                f"`finetune.fp16` some overflow; set `finetune.bf16: true`, {cure}"
            )

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Count a checkpoint as the best only if its ranks are within AdaLoRA's budget."""
        if self._allocation and not self._allocation.is_settled(self.state.global_step):
            return False
        return bool(super()._determine_best_metric(metrics, trial))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._allocation and self.args.should_save:
            self._allocation.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._allocation and checkpoint is not None:
            self._allocation.load(Path(checkpoint))

    def _get_num_items_in_batch(
        self, batch_samples: list[Any], device: torch.device
    ) -> torch.Tensor | None:
        return self.items_of(batch_samples, device) if batch_samples else None
