"""Training a teacher, keeping it in a folder, and getting it back."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from delrec_hf.callbacks import show_bar_alone
from delrec_hf.checkpoints import CheckpointingTrainer, deciding_settings, last_checkpoint
from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.files import read_json, replace_folder, write_json
from delrec_hf.filled_batches import FilledBatchesTrainer
from delrec_hf.finite import FiniteTrainer
from delrec_hf.hashes import content_hash, fingerprint
from delrec_hf.logging import get_logger
from delrec_hf.shards import cut_up_by
from delrec_hf.teachers.config import NEURAL, TeacherConfig
from delrec_hf.teachers.histories import Histories, flatten
from delrec_hf.teachers.learning.averaging import AveragedAdamW
from delrec_hf.teachers.learning.windows import (
    Batch,
    LengthGroups,
    TrainingWindows,
    ValidationHistories,
)
from delrec_hf.teachers.lists.ranked_lists import RankedLists
from delrec_hf.teachers.loading import fingerprints, no_file_bars, shape, trained_before
from delrec_hf.teachers.models.caser import CaserConfig, CaserModel
from delrec_hf.teachers.models.gru4rec import GRU4RecConfig, GRU4RecModel
from delrec_hf.teachers.models.sasrec import SASRecConfig, SASRecModel
from delrec_hf.teachers.models.sequential import SequentialModel
from delrec_hf.trackers import follow

logger = get_logger(__name__)

_CASER_WINDOW = 50  # labels that one pass of Caser learns; what it reads is teacher.max_length
_NEGATIVES_BY_POPULARITY = 0.75  # the power of word2vec (Mikolov et al. 2013)


def train_teacher(prepared: PreparedData, config: TeacherConfig, folder: Path) -> None:
    """Train a teacher on training items alone, or take a foreign one, and write it to a folder.

    A teacher that is there already, of the same data and settings, is kept. A run that was killed
    continues from its last checkpoint in `config.output_dir`, if data and settings are still the
    same. With several processes all train and the first one writes.

    Args:
        prepared: The data.
        config: The settings; `output_dir` holds checkpoints while training.
        folder: What was there is replaced once the teacher is complete.

    Raises:
        InputError: If the data is too short to train on, or `config.path` cannot be used.
    """
    state = PartialState()
    print_ = _fingerprint(prepared, config)
    kept = Path(folder) / "teacher.json"
    is_there = kept.is_file() and read_json(kept).get("fingerprint") == print_
    state.wait_for_everyone()  # no process may write it while another one still looks
    if is_there:
        logger.info("the teacher in %s has learned from this data as it shall: kept", folder)
        return
    record: dict[str, Any] = {
        "type": config.type,
        "settings": config.settings(),
        "catalogue": fingerprints(prepared)["catalogue"],
        "fingerprint": print_,
    }
    made: SequentialModel | RankedLists | None = None
    if config.type == "ranked_lists":
        made = RankedLists.read(
            Path(str(config.path)),
            prepared,
            allow_leaks=config.allow_leaks,
            out_of_fold=config.out_of_fold,
        )
    elif config.type in NEURAL and config.path is not None:
        before = made = trained_before(prepared, config)
        record["settings"] = shape(before.config)
    elif config.type in NEURAL:
        started = time.process_time()
        trainer = _train(prepared, config, print_)
        made = trainer.accelerator.unwrap_model(trainer.model)
        record["validation"] = {"ndcg@10": trainer.state.best_metric}
        record["epochs"] = trainer.state.epoch
        record["cpu_seconds"] = round(time.process_time() - started, 1)
    if state.is_main_process:
        with replace_folder(folder) as aside:
            if isinstance(made, RankedLists):
                made.save(aside)
            elif made is not None:
                with no_file_bars():
                    made.save_pretrained(aside)
            write_json(aside / "teacher.json", record)
    state.wait_for_everyone()


class TeacherTrainer(CheckpointingTrainer, FiniteTrainer, FilledBatchesTrainer):
    """A `Trainer` that validates by the rank of the next item in the whole catalogue."""

    section = "teacher"

    def _get_train_sampler(
        self, train_dataset: torch.utils.data.Dataset[Batch] | None = None
    ) -> torch.utils.data.Sampler[int]:
        windows: Any = self.train_dataset if train_dataset is None else train_dataset
        # The batches of all processes together are one of a single process.
        together = self._train_batch_size * self.args.world_size
        return LengthGroups(windows, together, self.args.seed)

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        prediction_loss_only: bool,  # noqa: ARG002 - Trainer's signature
        ignore_keys: list[str] | None = None,  # noqa: ARG002
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Return no loss, each target's rank among the unseen items from 0 on, and the target.

        An item that scores the same as the target, or not a number, ranks before it.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.inference_mode(), self.compute_loss_context_manager():
            found = model(input_ids=inputs["input_ids"], user_ids=inputs["user_ids"])
            scores = found.scores.float()
            allowed = scores.new_zeros(len(scores), scores.shape[1] + 1)
            allowed.scatter_(1, inputs["seen"], -torch.inf)
            scores = scores + allowed[:, 1:]
            target = scores.gather(1, inputs["labels"][:, None])
            ranks = (~(scores < target)).sum(dim=1) - 1
        return None, ranks, inputs["labels"]


class _Report(TrainerCallback):
    """Puts a line per validation into the log, in place of the Trainer's dictionaries."""

    def on_evaluate(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        *,
        metrics: Mapping[str, float],
        **_: Any,
    ) -> None:
        logger.info("epoch %d: validation NDCG@10 %.4f", state.epoch, metrics["eval_ndcg@10"])


def _train(prepared: PreparedData, config: TeacherConfig, print_: str) -> Trainer:
    assert config.max_length is not None  # the config fills it in by type
    length, context = config.max_length, 0
    if config.type == "caser":
        length, context = _CASER_WINDOW, config.max_length - 1
    windows = TrainingWindows(
        prepared,
        length,
        context,
        config.horizon,
        shuffle_ties=config.shuffle_ties,
        seed=config.seed,
    )
    validation = ValidationHistories(prepared, config.max_length)
    if not len(windows) or not len(validation):
        raise InputError(
            f"the data holds {len(windows)} training windows and {len(validation)} validation "
            f"items; a teacher of type `{config.type}` needs both: use longer sequences or another "
            "data.split"
        )
    launched = cut_up_by(config)
    if launched:
        raise InputError(
            f"{launched} cuts weights up, and a teacher is small and trains whole; launch `teach` "
            "with ddp (accelerate_config ddp), then the stages behind it as you like"
        )
    set_seed(config.seed)
    trainer = TeacherTrainer(
        model=_new_model(prepared, config),
        args=config,
        train_dataset=windows,
        eval_dataset=validation,
        data_collator=_as_it_is,
        compute_metrics=_ndcg,
        callbacks=[EarlyStoppingCallback(config.patience), _Report()],
        optimizer_cls_and_kwargs=_optimizer(config, len(windows)),
    )
    show_bar_alone(trainer)
    follow(trainer, config.logging_dir)
    with no_file_bars():
        trainer.train(resume_from_checkpoint=last_checkpoint(config.output_dir, print_))
    return trainer


def _optimizer(config: TeacherConfig, num_windows: int) -> tuple[Any, dict[str, Any]] | None:
    """Return AdamW that averages about an epoch's weights; None: an optimizer of the user's."""
    if config.optim not in ("adamw_torch", "adamw_torch_fused"):
        return None
    per_step = config.train_batch_size * config.gradient_accumulation_steps * config.world_size
    steps = max(1, num_windows // per_step)
    return AveragedAdamW, {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
        "fused": config.optim == "adamw_torch_fused",
        "decay": 1 - 1 / max(10, steps),
    }


def _new_model(prepared: PreparedData, config: TeacherConfig) -> SequentialModel:
    shared = {
        name: getattr(config, name)
        for name in ("max_length", "hidden_size", "dropout", "loss", "num_negatives")
    }
    prints = fingerprints(prepared)
    shared |= {
        "num_items": len(prepared.items),
        "calibration": config.calibration,
        "catalogue": prints["catalogue"],
        "training_items": prints["training_items"],
    }
    model: SequentialModel
    if config.type == "caser":
        users = {"num_users": len(prepared.sequences), "users": prints["users"]}
        model = CaserModel(CaserConfig(**shared, **users))
    elif config.type == "gru4rec":
        model = GRU4RecModel(GRU4RecConfig(**shared, num_hidden_layers=config.num_layers))
    else:
        layers = {"num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads}
        model = SASRecModel(SASRecConfig(**shared, **layers))
    if model.loss_name == "sampled_softmax":
        items, _ = Histories.of(prepared).training()
        counts = torch.bincount(torch.from_numpy(items), minlength=len(prepared.items))
        model.item_counts.copy_((counts + 1) ** _NEGATIVES_BY_POPULARITY)
    return model


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _ndcg(predictions: EvalPrediction) -> dict[str, float]:
    ranks = predictions.predictions
    return {"ndcg@10": float(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean())}


def _fingerprint(prepared: PreparedData, config: TeacherConfig) -> str:
    """Hash what decides a teacher; other teachers and how predictions are kept do not."""
    settings = deciding_settings(config, {"bf16"})
    for name in ("top_h", "filter_seen", "folds"):
        del settings[name]
    taken = Path(config.path) if config.path is not None else None
    lists = content_hash(taken) if taken is not None and taken.exists() else None
    sequences = Histories.of(prepared)
    moments, _ = flatten(prepared.sequences, "moments")
    parts = (sequences.items, sequences.bounds, sequences.train_ends, moments)
    data = [part.tolist() for part in parts]
    return fingerprint(settings, lists, fingerprints(prepared), data)
