"""What the trainers of both stages do alike: the loss, and validation by ranking."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from peft import PeftModel
from scipy.special import log_softmax
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer
from trl.models.utils import _ForwardRedirection

from delrec_hf.checkpoints import CheckpointingTrainer
from delrec_hf.filled_batches import FilledBatchesTrainer
from delrec_hf.finite import FiniteTrainer
from delrec_hf.labels import IGNORED
from delrec_hf.logging import get_logger
from delrec_hf.ranking.rows import score_rows, scorer_of
from delrec_hf.ranking.scoring import Scoring
from delrec_hf.ranking.support import way_of
from delrec_hf.ranking.tree import tree_width
from delrec_hf.shards import fill, in_shards, reshard
from delrec_hf.trackers import follow
from delrec_hf.training.common import StageConfig, log_in_lines, widths
from delrec_hf.training.compiling import compile_layers, uncompiled
from delrec_hf.training.listwise import ListwiseCollator, listwise_losses
from delrec_hf.training.sharded import ShardedTrainer
from delrec_hf.training.title import title_loss

logger = get_logger(__name__)

FloatArray = npt.NDArray[np.float64]


class _Start(TrainerCallback):
    """Logs what validation says of the start when a training begins, not where it goes on.

    By ranking alone, and only where the best checkpoint is kept. The Trainer wraps the model for
    several processes before: weights that are cut up lie in their shards already.
    """

    def __init__(self, rank: Callable[[str], Iterable[dict[str, float]]], log: Callable[..., None]):
        self._rank, self._log = rank, log

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        if args.load_best_model_at_end and args.eval_strategy != "no" and state.global_step == 0:
            for found in self._rank("eval"):
                self._log(found)


class RankingTrainer(
    CheckpointingTrainer, FiniteTrainer, FilledBatchesTrainer, ShardedTrainer, SFTTrainer
):
    """TRL's SFTTrainer that learns titles or rankings, and validates by ranking.

    Args:
        model: The model, what shall train set to train.
        args: The settings.
        train_dataset: What `data_collator` takes.
        ranking_rows: Name to validation rows with `prompt_ids`, `candidate_ids` and `target_place`,
            and `chances` where the target is a distribution. The name stands before the metrics.
        title_rows: Name to validation rows with `input_ids` and `labels`, for the loss `title`.
        scoring: How candidates are scored: as they will be ranked.
        temperature: What scores are divided by to make a distribution over the candidates.
        kwargs: Handed to SFTTrainer.
    """

    args: StageConfig
    control: TrainerControl

    def __init__(
        self,
        model: PeftModel,
        args: StageConfig,
        *,
        train_dataset: Dataset,
        ranking_rows: Mapping[str, Dataset],
        title_rows: Mapping[str, Dataset],
        scoring: Scoring,
        temperature: float,
        **kwargs: Any,
    ) -> None:
        args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
        args.remove_unused_columns = False
        validation = dict(title_rows if args.loss == "title" else ranking_rows)
        if args.train_sampling_strategy == "group_by_length":
            train_dataset = train_dataset.add_column(args.length_column_name, widths(train_dataset))
        backend, args.torch_compile_backend = args.torch_compile_backend, None
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=validation.get("", validation),
            **kwargs,
        )
        args.torch_compile_backend = backend  # of which the Trainer would compile the whole model
        if args.torch_compile:
            layers = compile_layers(self.model, str(backend), args.torch_compile_mode)
            logger.info("%s: %d layers compiled", self.section, layers)
        # SFTTrainer casts what trains on a quantised backbone to bfloat16; a saved adapter loads in
        # float32 and would give other logits than the model that was validated.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        log_in_lines(self)
        follow(self, args.logging_dir)
        self.add_callback(_Start(self._rankings, self.log))
        self._ranking_rows = ranking_rows
        self._scoring = scoring
        self._temperature = temperature

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; where the best checkpoint is kept, the start counts as one, logged as step 0.

        With few rows to learn from, a training can rank worse from its first steps on. Then what
        trains is set back to what it was.
        """
        if not self.args.load_best_model_at_end or self.args.eval_strategy == "no":
            return super().train(*args, **kwargs)
        start = {name: one.detach().clone() for name, one in self._trained()}
        output = super().train(*args, **kwargs)
        metric = str(self.args.metric_for_best_model).removeprefix("eval_")
        logged = (one for one in self.state.log_history if one["step"] == 0)
        first = next((one[f"eval_{metric}"] for one in logged if f"eval_{metric}" in one), None)
        best = self.state.best_metric
        if best is None or first is None:
            return output
        if first > best if self.args.greater_is_better else first < best:
            logger.warning(
                "%s: no checkpoint has a better %s on validation than the start (%.4g, %.4g); "
                "what was trained is as before training",
                self.section,
                metric,
                best,
                first,
            )
            reshard(self.model)
            for name, one in self._trained():
                fill(one, start[name])
        return output

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return (one for one in self.model.named_parameters() if one[1].requires_grad)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean over tokens for titles, and over rows for rankings.

        Both are computed under the forward of whatever the model is wrapped in, so that gradients
        are reduced over processes.
        """
        own = self.accelerator.unwrap_model(model)
        of_titles = "candidate_ids" not in inputs
        if of_titles and not self._learns_titles_here(own):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

        def losses() -> torch.Tensor:
            # accelerate hangs autocast on the forward that is redirected here.
            with self.accelerator.autocast():
                scorer = scorer_of(own, self._scoring)
                if of_titles:
                    return title_loss(scorer, inputs)
                return listwise_losses(scorer, inputs, self._temperature, self.args.title_weight)

        loss = _ForwardRedirection()(model, own, losses).sum()
        rows = num_items_in_batch
        if rows is None:
            rows = (
                (inputs["labels"][:, 1:] != IGNORED).sum().clamp(min=1)
                if of_titles
                else len(inputs["prompt_ids"])
            )
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # of which DDP takes the mean
        loss = loss / rows
        return (loss, {}) if return_outputs else loss

    def _learns_titles_here(self, own: PeftModel) -> bool:
        """Say whether the loss of titles is the plain one, of a backbone that can be cut in two."""
        plain = self.args.loss_type == "nll" and self.label_smoother is None
        cut_up = self.is_fsdp_enabled or self.is_deepspeed_enabled
        way, _ = way_of(own.get_base_model())
        return plain and not cut_up and not self.aux_loss_enabled and way == "tree"

    def items_of(self, batches: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Count what the loss is a mean over: answers' tokens, or rows, of all processes."""
        if self.args.loss == "title":
            counts = [int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches]
        else:
            counts = [sum(bool(one.any()) for one in batch["chances"]) for batch in batches]
        count = torch.tensor(sum(counts), device=device)
        if self.args.average_tokens_across_devices:
            count = self.accelerator.reduce(count, "sum")
        return count.clamp(min=1)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Rank the validation rows; with the loss `title` measure that loss, too."""
        metrics: dict[str, float] = {}
        if self.args.loss == "title":
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
            if eval_dataset is not None:  # one of several sets, as the line above asks for each
                return metrics
        for found in self._rankings(metric_key_prefix):
            self.log(found)
            metrics |= found
        if self.args.loss == "listwise":
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
        return metrics

    def _rankings(self, metric_key_prefix: str) -> Iterator[dict[str, float]]:
        """Rank all validation rows, and say of each set what it is worth."""
        for name, rows in self._ranking_rows.items():
            prefix = f"{metric_key_prefix}_{name}_" if name else f"{metric_key_prefix}_"
            yield {prefix + metric: value for metric, value in self.ranked(rows).items()}

    def ranked(self, rows: Dataset) -> dict[str, float]:
        """Return what the model's ranking of these rows is worth; dropout stays off.

        Returns:
            `hr@1` and `ndcg@10` of the target, ties counted against it; with the loss `listwise`
            also that `loss`, without the title's own part.

        Raises:
            InputError: If a score is not finite.
        """
        was_training = self.model.training
        self.model.eval()
        hidden = bool(self.args.disable_tqdm)

        def score() -> list[FloatArray]:
            scorer = scorer_of(self.model, self._scoring)
            return score_rows(scorer, rows, self.accelerator, disable_tqdm=hidden)

        with uncompiled():
            # FSDP gathers what stands outside the layers under the model's own forward alone.
            sharded = in_shards(self.model)
            scores = _ForwardRedirection()(self.model, self.model, score) if sharded else score()
        self.model.train(was_training)
        places = rows["target_place"][:]
        ranks = np.array([(one >= one[k]).sum() for one, k in zip(scores, places, strict=True)])
        gains = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0)
        found = {"hr@1": float((ranks == 1).mean()), "ndcg@10": float(gains.mean())}
        if self.args.loss == "listwise":
            chances = [one.numpy() for one in ListwiseCollator()(list(rows))["chances"]]
            found["loss"] = -float(
                np.mean(
                    [
                        (wanted * log_softmax(one / self._temperature)).sum()
                        for one, wanted in zip(scores, chances, strict=True)
                    ]
                )
            )
        return found

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count the operations of a batch; of rows to rank, by the tokens of their trees."""
        if "candidate_ids" not in inputs:
            return int(super().floating_point_ops(inputs))
        rows = zip(inputs["prompt_ids"], inputs["candidate_ids"], strict=True)
        tokens = sum(tree_width(prompt, offered, 0) for prompt, offered in rows)
        return int(super().floating_point_ops({"input_ids": torch.empty(tokens)}))

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card at checkpoints: TRL's names neither the soft prompt nor the teacher."""
