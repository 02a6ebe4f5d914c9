"""Stage 1: the teacher's pattern distilled into a soft prompt, the backbone frozen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from delrec_hf.errors import InputError
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.scoring import SUM, Scoring
from delrec_hf.shards import cut_up_by
from delrec_hf.training.common import (
    StageConfig,
    check_cartridge,
    check_lengths,
    check_trainer_config,
)
from delrec_hf.training.listwise import ListwiseCollator
from delrec_hf.training.pairs import TaskCollator, pair_tasks
from delrec_hf.training.task_weighting import dynamic_weights, fixed_weights
from delrec_hf.training.trainer import RankingTrainer

TASKS = ("ta", "rps")


@dataclass
class DistilConfig(StageConfig):
    """Settings of stage 1: every `SFTConfig` key and these; the recipe section `distil`."""

    tasks: list[str] = field(
        default_factory=lambda: list(TASKS), metadata={"help": "which of `ta` and `rps` to learn"}
    )
    rps_labels: Literal["first", "scores"] = field(
        default="first",
        metadata={
            "help": "what RPS learns: the teacher's first choice, or (`listwise`) its distribution "
            "over the candidates"
        },
    )
    rps_temperature: float | None = field(
        default=None,
        metadata={
            "help": "what the teacher's scores are divided by to make that distribution; default: "
            "what fits the validation targets best"
        },
    )
    positions: Literal["examples", "all"] = field(
        default="examples",
        metadata={
            "help": "learn at the positions of stage 2, or at every training position with new "
            "candidates each time"
        },
    )
    prompt_type: Literal["prompt_tuning", "cartridge"] = field(
        default="prompt_tuning",
        metadata={
            "help": "learn embeddings that are read before each row, or a cartridge: keys and "
            "values that its tokens find in every layer"
        },
    )
    num_virtual_tokens: int = field(default=80, metadata={"help": "length of the soft prompt"})
    prompt_init: Literal["random", "vocabulary", "text"] | None = field(
        default=None,
        metadata={
            "help": "start from noise, from sampled tokens or from `prompt_init_text`, which a "
            "cartridge has the backbone read; default: text for a cartridge, else vocabulary"
        },
    )
    prompt_init_text: str = field(
        default="Predict the next item as a sequential recommender would, from order and taste.",
        metadata={"help": "the text that `prompt_init: text` starts from"},
    )
    task_weighting: Literal["dynamic", "fixed"] = field(
        default="dynamic",
        metadata={"help": "by the gradients' norms, or by `ta_weight` and `rps_weight`"},
    )
    weighting_exponent: float = field(
        default=0.5, metadata={"help": "weight = gradient norm ** -exponent, normalised"}
    )
    ta_weight: float = field(default=1.0, metadata={"help": "TA's share where weights are fixed"})
    rps_weight: float = field(default=1.0, metadata={"help": "RPS's share where weights are fixed"})
    learning_rate: float = field(default=5e-3, metadata={"help": "peak learning rate"})
    weight_decay: float = field(default=1e-5, metadata={"help": "weight decay"})
    metric_for_best_model: str | None = field(
        default=None, metadata={"help": "validation metric that chooses the checkpoint"}
    )

    def __post_init__(self) -> None:
        """Check what SFTConfig does not know."""
        unknown = set(self.tasks) - set(TASKS)
        if unknown or not self.tasks:
            raise InputError(f"`distil.tasks` is {self.tasks}; expected `ta`, `rps` or both")
        if self.rps_labels == "scores" and self.loss != "listwise":
            raise InputError(
                "`distil.rps_labels` is `scores`, a distribution over the candidates, which the "
                "loss `title` cannot learn; set `distil.loss: listwise`, or `rps_labels: first`"
            )
        if self.rps_temperature is not None and not self.rps_temperature > 0:
            raise InputError(
                f"`distil.rps_temperature` is {self.rps_temperature}; expected a number above 0"
            )
        is_cartridge = self.prompt_type == "cartridge"
        fewest = 2 if is_cartridge else 1  # a cartridge's first token does not learn
        if self.num_virtual_tokens < fewest:
            raise InputError(
                f"`distil.num_virtual_tokens` is {self.num_virtual_tokens}; expected {fewest} or "
                "more"
            )
        if self.prompt_init is None:
            self.prompt_init = "text" if is_cartridge else "vocabulary"
        if min(self.ta_weight, self.rps_weight) < 0 or self.ta_weight + self.rps_weight == 0:
            raise InputError(
                f"`distil.ta_weight` is {self.ta_weight} and `rps_weight` {self.rps_weight}; "
                "expected numbers of 0 or more, one of them above 0"
            )
        if self.metric_for_best_model is None:
            self.metric_for_best_model = f"{'rps' if 'rps' in self.tasks else 'ta'}_ndcg@10"
        super().__post_init__()
        check_trainer_config(self, "distil")


def _check_whole_prompt(config: DistilConfig) -> None:
    """Refuse launches that leave no process the whole soft prompt and its whole gradient."""
    sharding = cut_up_by(config)
    if sharding in ("FSDP", "DeepSpeed ZeRO-3"):
        raise InputError(
            f"{sharding} shards the soft prompt and its gradient, and stage 1 needs both whole to "
            "weigh the tasks and to keep the prompt; launch it with ddp, or with zero2 and "
            "`distil.task_weighting: fixed`"
        )


class PatternDistillationTrainer(RankingTrainer):
    """Trains the soft prompt on Temporal Analysis and Recommendation Pattern Simulating.

    Each task runs its own forward and backward: the batch is split, so this costs what one mixed
    batch costs, and gives the gradient of each task on the soft prompt. The step is their weighted
    sum.

    Args:
        model: Backbone with an untrained soft prompt, see `soft_prompt.new_soft_prompt`.
        args: The settings.
        train_rows: Task to rows: for the loss `title` encoded ones (`input_ids`, `labels`), for
            `listwise` rows to rank (`prompt_ids`, `candidate_ids`, `target_place`, and `chances`
            where the teacher's whole distribution is learned).
        validation_rows: The same of the validation part.
        ranking_rows: Task to validation rows to rank; of RPS, HR@1 is the agreement with the
            teacher's first choice.
        processing_class: The tokenizer.
        scoring: How candidates are scored: as they will be ranked.
        temperature: What scores are divided by in the loss `listwise`.
    """

    args: DistilConfig
    section = "distil"

    def __init__(
        self,
        model: DelRecModel,
        args: DistilConfig,
        train_rows: Mapping[str, Dataset],
        validation_rows: Mapping[str, Dataset],
        ranking_rows: Mapping[str, Dataset],
        processing_class: PreTrainedTokenizerBase,
        scoring: Scoring = SUM,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        _check_whole_prompt(args)
        check_cartridge(model, args, "distil")
        for rows in (*train_rows.values(), *validation_rows.values()):
            check_lengths(rows, model, args, "distil")
        pad = processing_class.pad_token_id
        collate = (
            DataCollatorForLanguageModeling(pad_token_id=pad)
            if args.loss == "title"
            else ListwiseCollator()
        )
        super().__init__(
            model,
            args,
            train_dataset=pair_tasks({task: train_rows[task] for task in args.tasks}, args.seed),
            data_collator=TaskCollator(args.tasks, collate),
            ranking_rows={task: ranking_rows[task] for task in args.tasks},
            title_rows={task: validation_rows[task] for task in args.tasks},
            processing_class=processing_class,
            scoring=scoring,
            temperature=temperature,
            **kwargs,
        )
        if self.is_deepspeed_enabled and args.task_weighting == "dynamic":
            raise InputError(
                "DeepSpeed keeps each task's gradient to itself; set `distil.task_weighting: fixed`"
            )
        self._gradients: dict[str, torch.Tensor] = {}
        self._step_losses: dict[str, torch.Tensor] = {}

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Count what each task's loss is a mean over, in all micro-batches of a step."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        items = {
            task: self.items_of([batch[task] for batch in batches], device)
            for task in self.args.tasks
        }
        return batches, items

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Take the gradient of each task apart and leave their weighted sum in the soft prompt.

        Args:
            model: The model.
            inputs: Task to batch.
            num_items_in_batch: Task to the number of tokens, or rows, of the whole step.
        """
        model.train()
        losses = {}
        for task in self.args.tasks:
            batch = self._prepare_inputs(inputs[task])
            with self.compute_loss_context_manager():
                losses[task] = self.compute_loss(
                    model, batch, num_items_in_batch=num_items_in_batch[task]
                )
            if self.args.task_weighting == "dynamic":
                self.accelerator.backward(losses[task])
                self._keep_gradient(task)
        if self.args.task_weighting == "fixed":
            # A micro-batch's loss is its share of the step's already, as in the Trainer's own step.
            own = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
            self.accelerator.backward(_weighted_sum(losses, self._fixed_weights()), **own)
        for task, loss in losses.items():
            whole = loss.detach() * self.current_gradient_accumulation_steps
            reported = self.accelerator.reduce(whole, reduction="mean").item()
            self._metrics["train"][f"{task}_loss"].append(reported)
            self._step_losses[task] = self._step_losses.get(task, 0.0) + loss.detach()
        total = self._finish_step() if self.accelerator.sync_gradients else whole.new_zeros(())
        self._losses.append(total)
        return total

    def _finish_step(self) -> torch.Tensor:
        """Weigh the tasks after a step's last micro-batch; return the loss of the whole step.

        No earlier: before, no process knows the others' gradients, nor what they will come to.
        """
        dynamic = self.args.task_weighting == "dynamic"
        weights = self._apply_dynamic_weights() if dynamic else self._fixed_weights()
        for task, weight in weights.items():
            self._metrics["train"][f"{task}_weight"].append(weight)
        losses, self._step_losses = self._step_losses, {}
        return _weighted_sum(losses, weights)

    def _fixed_weights(self) -> dict[str, float]:
        given = {"ta": self.args.ta_weight, "rps": self.args.rps_weight}
        return fixed_weights({task: given[task] for task in self.args.tasks})

    def _keep_gradient(self, task: str) -> None:
        """Move the prompt's gradient to the task's, summed over the micro-batches of a step."""
        prompt = self.model.learned_prompt
        gradient, prompt.grad = prompt.grad, None
        before = self._gradients.get(task)
        self._gradients[task] = gradient if before is None else before + gradient

    def _apply_dynamic_weights(self) -> dict[str, float]:
        """Set the prompt's gradient to the weighted sum of the tasks'."""
        gradients = {
            task: self.accelerator.reduce(gradient, reduction="mean")
            for task, gradient in self._gradients.items()
        }
        self._gradients = {}
        weights = dynamic_weights(gradients, self.args.weighting_exponent)
        self.model.learned_prompt.grad = _weighted_sum(gradients, weights)
        return weights

    def ranked(self, rows: Dataset) -> dict[str, float]:
        """Return what the ranking is worth; HR@1 of RPS also by its name in reports."""
        found = super().ranked(rows)
        if rows is self._ranking_rows.get("rps"):
            found["agreement"] = found["hr@1"]
        return found

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Count the operations of both tasks' batches."""
        return sum(
            super(PatternDistillationTrainer, self).floating_point_ops(inputs[task])
            for task in self.args.tasks
        )


def _weighted_sum(values: Mapping[str, torch.Tensor], weights: Mapping[str, float]) -> torch.Tensor:
    return torch.stack([value * weights[task] for task, value in values.items()]).sum(0)
