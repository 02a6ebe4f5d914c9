"""What each stage of a recipe reads, how much memory it takes and how long."""

from dataclasses import dataclass, field, replace
from functools import partial

import torch

from delrec_hf.devices import counts_memory, total_memory
from delrec_hf.evaluation.evaluator import PERMUTED_USERS
from delrec_hf.planning.backbone_cost import BackboneCost
from delrec_hf.planning.cost import Pass
from delrec_hf.planning.counts import language_models, steps_of, too_long
from delrec_hf.planning.fitting import fitting
from delrec_hf.planning.lengths import Lengths, Reading
from delrec_hf.planning.workload import Workload
from delrec_hf.ranking import budget
from delrec_hf.runs.trainings import LEFT_OUT
from delrec_hf.training.common import StageConfig
from delrec_hf.training.distillation import DistilConfig
from delrec_hf.training.recommendation import FinetuneConfig

_STATE = 16  # bytes of each weight that trains: itself, its gradient, AdamW's two moments
_TIMED = 1024  # tokens of the batch that is timed
_RANK = Pass(learns=False)


@dataclass(frozen=True)
class StagePlan:
    """What a stage will cost; None: it is not planned, or has none.

    Attributes:
        name: The stage.
        examples: Rows that it learns from, or ranks.
        tokens_per_epoch: Tokens that it reads of all these rows once, virtual ones included.
        longest: Tokens of the longest prompt and answer, virtual ones included.
        trainable: Parameters that learn.
        steps: Optimizer steps of one training.
        memory: Bytes at the peak.
        hours: Hours, of all its trainings.
        lines: What is to be said besides: what it is of, what does not fit, what to change.
    """

    name: str
    examples: int | None = None
    tokens_per_epoch: float | None = None
    longest: int | None = None
    trainable: int | None = None
    steps: int | None = None
    memory: int | None = None
    hours: float | None = None
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StageCosts:
    """Plans the stages of a recipe.

    Attributes:
        work: The rows.
        cost: The backbone.
        device_memory: Bytes that the device has, if that is told.
    """

    work: Workload
    cost: BackboneCost
    device_memory: int | None

    def all(self) -> list[StagePlan]:
        """Return every stage in order."""
        teacher = self.work.run.recipe.settings("teacher")
        number = len(self.work.prepared.examples["train"])
        ends = "it ends by its own validation; minutes beside a language model's hours"
        return [
            StagePlan("prepare", number, lines=["prepare: not planned: seconds to minutes"]),
            StagePlan("teach", lines=[f"teach: not planned: {teacher.type}; {ends}"]),
            self._calibrate(),
            self._distil(),
            self._finetune(),
            self._evaluate(),
        ]

    def _calibrate(self) -> StagePlan:
        config = self.work.run.recipe.settings("calibrate")
        bare, known = self.work.calibrated(config)
        hours = self._ranking_hours(bare, 0) + self._ranking_hours(known, 0)
        memory = self._ranking_memory(self.cost, [bare, known], 0)
        return StagePlan(
            "calibrate",
            known.number + bare.number,
            known.tokens(0) + bare.tokens(0),
            int(max(known.longest.max(), bare.longest.max())),
            memory=memory,
            hours=hours,
            lines=self._ranking_cure("calibrate", memory, [bare, known], 0),
        )

    def _distil(self) -> StagePlan:
        config = self.work.run.trainer_settings("distil", "distil")
        found = {task: self.work.trained(config, task) for task in config.tasks}
        return self._training("distil", config, found, None, [config.num_virtual_tokens])

    def _finetune(self) -> StagePlan:
        config = self.work.run.trainer_settings("finetune", "finetune")
        virtual = self._virtual
        found = {"lsr": self.work.trained(config, "lsr")}
        each = [0 if name == "lora-only" else virtual for name in config.controls] + [virtual]
        plan = self._training("finetune", config, found, config, each)
        again = self._prompts_again(config)
        if again:
            plan.lines.append(
                f"finetune: of its hours {again:.3f} distil the prompts of its controls"
            )
        names = ", ".join((*config.controls, "delrec"))
        plan.lines.insert(0, f"finetune: {len(each)} trainings: {names}")
        return replace(plan, hours=(plan.hours or 0.0) + again)

    def _prompts_again(self, config: FinetuneConfig) -> float:
        """Return the hours of distilling prompts for controls, some by the rest of the tasks."""
        hours = 0.0
        distil = self.work.run.trainer_settings("distil", "distil")
        for control in config.controls:
            rest = [task for task in distil.tasks if task != LEFT_OUT.get(control, task)]
            if (control in LEFT_OUT and rest) or control == "cartridge":
                found = {task: self.work.trained(distil, task) for task in rest}
                hours += self._training_hours(distil, found, None, distil.num_virtual_tokens)
        return hours

    @property
    def _virtual(self) -> int:
        number: int = self.work.run.trainer_settings("distil", "distil").num_virtual_tokens
        return number

    def _training(
        self,
        name: str,
        config: StageConfig,
        found: dict[str, Lengths],
        lora: FinetuneConfig | None,
        each: list[int],
    ) -> StagePlan:
        """Plan a stage that trains once for each number of virtual tokens in `each`."""
        virtual = max(each)
        longest = max(int(one.longest.max()) for one in found.values()) + virtual
        memory = self._training_memory(config, found, lora, virtual)
        positions = getattr(self.cost.config.get_text_config(), "max_position_embeddings", None)
        lines = too_long(name, config, found, virtual, positions)
        need = partial(self._training_memory, config, found, lora, virtual)
        lines += fitting(name, memory, self.device_memory, need, self.cost, config)
        return StagePlan(
            name,
            max(one.number for one in found.values()),
            sum(one.tokens(virtual) for one in found.values()),
            longest,
            self.cost.trainable(lora, virtual, getattr(config, "prompt_type", None)),
            steps_of(config, found)[0],
            memory,
            sum(self._training_hours(config, found, lora, one) for one in each),
            lines,
        )

    def _what(self, config: StageConfig, lora: FinetuneConfig | None) -> Pass:
        return Pass(lora, True, bool(config.gradient_checkpointing), bool(config.bf16))

    def _training_hours(
        self,
        config: StageConfig,
        found: dict[str, Lengths],
        lora: FinetuneConfig | None,
        virtual: int,
    ) -> float:
        """Return the hours of one training: its steps, and validating as often as it does."""
        what = self._what(config, lora)
        _, epochs, validations = steps_of(config, found)
        batch_rows = config.per_device_train_batch_size
        seconds = 0.0
        for task, rows in found.items():
            read = rows.learned(batch_rows, virtual)
            # The shorter task starts again where the longer one goes on.
            share = epochs * max(one.number for one in found.values()) / max(1, rows.number)
            one = min(batch_rows, max(1, int(_TIMED // (rows.mean + virtual))))
            usual = rows.usual(one, virtual)
            times = share * self._again(config, rows, virtual)
            seconds += self.cost.seconds(what, usual, read * times)
            ranked = self.work.validated(config, task)
            seconds += validations * 3600 * self._ranking_hours(ranked, virtual)
            if config.loss == "title":
                titles = self.work.validated(config, task, title=True)
                read = titles.learned(1, virtual)
                seconds += max(0, validations - 1) * self._ranking_seconds(ranked, virtual, read)
        return seconds / 3600

    def _again(self, config: StageConfig, rows: Lengths, virtual: int) -> float:
        """Return what a batch costs that is cut: one forward more, where several hold it."""
        wide = config.per_device_train_batch_size * (rows.mean + virtual)
        return 1.5 if config.loss == "listwise" and wide > self._at_once(learns=True) else 1.0

    def _at_once(self, *, learns: bool) -> int:
        """Return how many tokens go through one forward: see `budget.tokens`."""
        memory = self.device_memory
        device = torch.accelerator.current_accelerator()
        if self.cost.on_device and memory is None and device and counts_memory(device):
            memory = total_memory(device)
        if not self.cost.on_device or memory is None:
            return budget.TOKENS
        found = budget.tokens_within(memory, self.cost.config, self.cost.dtype)
        return found if learns else max(budget.TOKENS, found)

    def _training_memory(
        self,
        config: StageConfig,
        found: dict[str, Lengths],
        lora: FinetuneConfig | None,
        virtual: int,
        cost: BackboneCost | None = None,
        batch_rows: int | None = None,
        checkpointing: bool | None = None,
    ) -> int:
        """Return the bytes at a training's peak, some settings changed."""
        cost, what = cost or self.cost, self._what(config, lora)
        if checkpointing is not None:
            what = replace(what, checkpointing=checkpointing)
        rows = batch_rows or config.per_device_train_batch_size
        if isinstance(config, DistilConfig) and config.task_weighting == "fixed":
            rows *= len(config.tasks)  # both are held until the one backward
        held = _STATE * cost.trainable(lora, virtual, getattr(config, "prompt_type", None))
        widest = max(found.values(), key=lambda one: int(one.widths.max()))
        batch = widest.fullest(rows, virtual)
        if config.loss == "listwise":
            at_once = self._at_once(learns=True)
            batch = widest.fullest(min(rows, max(1, at_once // batch.length)), virtual)
        most = cost.memory(what, batch, held)
        validation = [self.work.validated(config, task) for task in found]
        return max(most, self._ranking_memory(cost, validation, virtual, held))

    def _ranking_memory(
        self, cost: BackboneCost, found: list[Lengths], virtual: int, held: float = 0
    ) -> int:
        batches = []
        for one in found:
            length = int(one.widths.max()) + virtual
            rows = min(one.number, max(1, self._at_once(learns=False) // length))
            batches.append(one.fullest(rows, virtual))
        fullest = max(batches, key=lambda batch: batch.rows * batch.length)
        return cost.memory(_RANK, fullest, held)

    def _ranking_cure(
        self, name: str, memory: int, found: list[Lengths], virtual: int
    ) -> list[str]:
        def need(cost: BackboneCost) -> int:
            return self._ranking_memory(cost, found, virtual)

        return fitting(name, memory, self.device_memory, need, self.cost)

    def _ranking_hours(self, rows: Lengths, virtual: int) -> float:
        return self._ranking_seconds(rows, virtual, rows.ranked(virtual)) / 3600

    def _ranking_seconds(self, rows: Lengths, virtual: int, reading: Reading) -> float:
        usual = rows.usual(max(1, int(_TIMED // (rows.mean + virtual))), virtual)
        return self.cost.seconds(_RANK, usual, reading)

    def _evaluate(self) -> StagePlan:
        config = self.work.run.recipe.settings("evaluate")
        controls = self.work.run.trainer_settings("finetune", "finetune").controls
        systems = language_models(config, controls)
        rows = self.work.tested(config)
        fitted = min(config.fit_users, len(self.work.prepared.examples["validation"]))
        listed = self.work.run.recipe.settings("instructions").listed
        again = config.permutations * min(PERMUTED_USERS, rows.number) if listed else 0
        hours = 0.0
        retrieved = (
            self.work.tested(config, candidates=config.retrieve) if config.retrieve else None
        )
        untrained = [name for name in systems if name.startswith("zero-shot")]
        for name in systems:
            if name in untrained[1:]:  # other scores of what the first one has read
                continue
            virtual = 0 if name == "lora-only" or name in untrained else self._virtual
            known = self.work.kept_by_calibrate(config) if name in untrained else 0
            times = (rows.number + fitted + again - known) / max(1, rows.number)
            hours += times * self._ranking_hours(rows, virtual)
            if retrieved is not None:
                hours += (
                    (rows.number + fitted) / rows.number * self._ranking_hours(retrieved, virtual)
                )
            if config.whole_catalogue:
                hours += self._whole_catalogue(
                    rows, min(config.whole_catalogue, rows.number), virtual
                )
        if "prompt-only" in systems:  # agreement with the teacher: without, untrained, distilled
            rps = self.work.tested(config, "rps")
            hours += 3 * self._ranking_hours(rps, self._virtual)
        memory = self._ranking_memory(self.cost, [rows], self._virtual)
        return StagePlan(
            "evaluate",
            rows.number,
            rows.tokens(0),
            int(rows.longest.max()) + self._virtual,
            memory=memory,
            hours=hours,
            lines=[
                f"evaluate: ranks with {', '.join(systems) or 'no language model'}",
                *self._ranking_cure("evaluate", memory, [rows], self._virtual),
            ],
        )

    def _whole_catalogue(self, rows: Lengths, users: int, virtual: int) -> float:
        tokens = self.work.catalogue()
        wide = rows.mean + virtual
        read = Reading(wide + tokens, wide**2 + tokens * (wide + budget.CHUNK), tokens)
        return self._ranking_seconds(rows, virtual, read * users) / 3600
