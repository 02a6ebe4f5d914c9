"""The recipe section `teacher`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments

from delrec_hf.errors import InputError
from delrec_hf.trackers import check_trackers

NEURAL = ("sasrec", "gru4rec", "caser")

DEFAULTS: dict[str, dict[str, Any]] = {
    "sasrec": {
        "max_length": 50,
        "hidden_size": 128,
        "num_layers": 2,
        "dropout": 0.2,
        "weight_decay": 0.5,
        "per_device_train_batch_size": 16,
    },
    "gru4rec": {
        "max_length": 10,
        "hidden_size": 64,
        "num_layers": 1,
        "dropout": 0.4,
        "weight_decay": 0.1,
        "per_device_train_batch_size": 32,
    },
    "caser": {
        "max_length": 5,
        "hidden_size": 64,
        "num_layers": 1,
        "dropout": 0.4,
        "weight_decay": 0.5,
        "per_device_train_batch_size": 32,
    },
}
"""What a type decides where the recipe is silent: the winners of recipes/search/ml-100k.yaml."""

_TRAINED = (
    "max_length",
    "hidden_size",
    "num_layers",
    "dropout",
    "loss",
    "num_negatives",
    "calibration",
    "horizon",
    "shuffle_ties",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "per_device_train_batch_size",
    "num_train_epochs",
    "patience",
    "seed",
)
_SETTINGS = {
    "sasrec": (*_TRAINED, "num_heads"),
    "gru4rec": _TRAINED,
    "caser": _TRAINED,
    "random": ("seed",),
    "popularity": (),
    "markov": (),
    "co-occurrence": (),
    "ranked_lists": ("allow_leaks", "out_of_fold"),
}
"""The settings that make a teacher of each type what it is."""


@dataclass
class TeacherConfig(TrainingArguments):
    """Recipe section `teacher`: transformers' `TrainingArguments` and the keys below."""

    type: Literal[
        "sasrec",
        "gru4rec",
        "caser",
        "co-occurrence",
        "markov",
        "popularity",
        "random",
        "ranked_lists",
    ] = field(default="sasrec", metadata={"help": "which recommender teaches"})
    path: str | None = field(
        default=None,
        metadata={
            "help": "ranked_lists: the file of lists; sasrec, gru4rec, caser: folder or Hub id of "
            "a trained teacher, which is taken as it is"
        },
    )
    allow_leaks: bool = field(
        default=False,
        metadata={"help": "ranked_lists: take lists that seem to know what was held out"},
    )
    out_of_fold: bool = field(
        default=False,
        metadata={
            "help": "ranked_lists: the lists at training positions are from recommenders that "
            "have not seen their user"
        },
    )
    folds: int = field(
        default=0,
        metadata={
            "help": "label training positions by so many more teachers, none of which has seen "
            "the users it labels; 0: by the teacher itself"
        },
    )
    top_h: int = field(default=10, metadata={"help": "how many of its best items are kept"})
    filter_seen: bool = field(
        default=True, metadata={"help": "leave out of its best items what the user already has"}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "how many last items it reads (default: by type)"}
    )
    hidden_size: int | None = field(
        default=None, metadata={"help": "width of the item embeddings (default: by type)"}
    )
    num_layers: int | None = field(
        default=None,
        metadata={"help": "SASRec's attention blocks, GRU4Rec's layers (default: by type)"},
    )
    num_heads: int = field(default=2, metadata={"help": "SASRec's attention heads"})
    dropout: float | None = field(
        default=None, metadata={"help": "share of values dropped in training (default: by type)"}
    )
    loss: Literal["softmax", "sampled_softmax", "bce", "gbce"] | None = field(
        default=None,
        metadata={"help": "default: softmax below 100,000 items, sampled_softmax from there on"},
    )
    num_negatives: int = field(
        default=256, metadata={"help": "items drawn against the target: all losses but softmax"}
    )
    calibration: float = field(default=0.75, metadata={"help": "t of gbce, 0 to 1"})
    horizon: int = field(
        default=1,
        metadata={
            "help": "how many next items a position learns, weighted 1, 1/2, 1/3 ...; more than "
            "one where the order of neighbours is partly chance"
        },
    )
    shuffle_ties: bool = field(
        default=True,
        metadata={
            "help": "put a user's items of equal timestamps into a new order each epoch; off: the "
            "file's order, where it means something"
        },
    )
    patience: int = field(
        default=4, metadata={"help": "stop after so many epochs without a better validation"}
    )

    num_train_epochs: float = field(default=100, metadata={"help": "at most so many epochs"})
    learning_rate: float = field(default=4e-3, metadata={"help": "peak learning rate"})
    lr_scheduler_type: str = field(default="constant_with_warmup", metadata={"help": "schedule"})
    warmup_steps: float = field(default=50, metadata={"help": "steps up to the peak"})
    weight_decay: float | None = field(
        default=None,
        metadata={"help": "how much the weights are drawn to 0 (default: by type)"},
    )
    per_device_train_batch_size: int | None = field(
        default=None, metadata={"help": "windows per step (default: by type)"}
    )
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "users per step"})
    eval_strategy: str = field(default="epoch", metadata={"help": "when to validate"})
    save_strategy: str = field(default="epoch", metadata={"help": "when to keep a checkpoint"})
    logging_strategy: str = field(default="epoch", metadata={"help": "when to log the loss"})
    save_total_limit: int | None = field(default=1, metadata={"help": "checkpoints to keep"})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "keep the best epoch"})
    metric_for_best_model: str | None = field(
        default="ndcg@10", metadata={"help": "what is best on validation"}
    )
    greater_is_better: bool | None = field(default=True, metadata={"help": "its direction"})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "a resumed run counts its patience on"}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "every parameter of a teacher takes part in every step"}
    )
    dataloader_pin_memory: bool = field(default=False, metadata={"help": "pin batches in memory"})
    remove_unused_columns: bool = field(default=False, metadata={"help": "leave this off"})
    logging_dir: str | None = field(
        default=None,
        metadata={"help": "TensorBoard's files; default: the run's logs/tensorboard/teacher"},
    )
    seed: int = field(default=42, metadata={"help": "decides the weights and the order"})

    def __post_init__(self) -> None:
        for name, value in DEFAULTS.get(self.type, DEFAULTS["sasrec"]).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        super().__post_init__()
        assert self.hidden_size is not None  # filled in above
        assert self.dropout is not None
        if self.hidden_size % self.num_heads and self.type == "sasrec":
            raise InputError(
                f"teacher.hidden_size {self.hidden_size} is not a multiple of teacher.num_heads "
                f"{self.num_heads}; change one of them"
            )
        whole = ("top_h", "max_length", "hidden_size", "num_layers", "num_heads", "patience")
        for name in (*whole, "num_negatives", "horizon"):
            if getattr(self, name) < 1:
                raise InputError(f"teacher.{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.dropout < 1:
            raise InputError(f"teacher.dropout is {self.dropout}; expected 0 or more, below 1")
        if not 0 <= self.calibration <= 1:
            raise InputError(f"teacher.calibration is {self.calibration}; expected 0 to 1")
        self._check_path()
        self._check_folds()
        check_trackers(self, "teacher")

    def _check_path(self) -> None:
        if self.type == "ranked_lists" and self.path is None:
            raise InputError(
                "teacher.type is `ranked_lists` and teacher.path is missing; give the file of "
                "lists, with columns user_id, position, item_id, rank"
            )
        if self.path is not None and self.type not in (*NEURAL, "ranked_lists"):
            raise InputError(
                f"teacher.path is {self.path!r}, and a teacher of type `{self.type}` reads no "
                f"file; leave it out, or choose a type out of ranked_lists, {', '.join(NEURAL)}"
            )

    def _check_folds(self) -> None:
        if self.out_of_fold and self.type != "ranked_lists":
            raise InputError(
                f"teacher.out_of_fold speaks about lists from a file, and teacher.type is "
                f"`{self.type}`; leave it out, and set teacher.folds for labels out of fold"
            )
        if self.folds == 0:
            return
        if self.folds < 2:
            raise InputError(
                f"teacher.folds is {self.folds}; expected 2 or more, or 0 for labels by the "
                "teacher itself"
            )
        if self.type == "ranked_lists":
            raise InputError(
                f"teacher.folds is {self.folds}, and lists from a file are not trained; leave it "
                "out, and set teacher.out_of_fold: true if they were made out of fold"
            )
        if self.type == "random":
            raise InputError(
                f"teacher.folds is {self.folds}, and a `random` teacher learns from no user; leave "
                "it out"
            )
        if self.path is not None:
            raise InputError(
                f"teacher.folds is {self.folds}, and the teacher in {self.path!r} is taken as it "
                "is; leave out teacher.path, so that it is trained, or teacher.folds"
            )

    def settings(self) -> dict[str, Any]:
        """Return what makes this teacher what it is, for records and cards."""
        return {name: getattr(self, name) for name in _SETTINGS[self.type]}
