"""What a training leaves while it runs: a log that is whole at any moment, and the time left."""

import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Trainer, TrainerCallback

from delrec_hf.callbacks import kept_log
from delrec_hf.training.recommendation import RecommendationTrainer
from tests.training.settings import every

STEPS = 6


class _AtEachStep(TrainerCallback):
    def __init__(self, call: Callable[[int], None]) -> None:
        self._call = call

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._call(state.global_step)


def _kept(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _losses(log: list[dict[str, Any]]) -> dict[int, float]:
    found = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    assert len(dict(found)) == len(found), "a step stands there twice"
    return dict(found)


def _curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_training_that_crashes_leaves_its_log_and_goes_on_without_a_gap(
    finetuner: Callable[..., RecommendationTrainer], tmp_path: Path
) -> None:
    def make(name: str) -> tuple[Trainer, Path]:
        folder = tmp_path / name
        trainer = finetuner(
            folder,
            None,
            max_steps=STEPS,
            report_to="tensorboard",
            logging_dir=str(folder / "curves"),
            **every(3),
        )
        return trainer, folder

    def fail_after_five(step: int) -> None:
        if step == 5:
            raise RuntimeError("the machine is gone")

    straight, place = make("straight")
    with kept_log(straight, place / "log.json"):
        straight.train()
    expected = _losses(_kept(place / "log.json"))
    assert list(expected) == list(range(1, STEPS + 1))

    crashed, folder = make("crashed")
    crashed.add_callback(_AtEachStep(fail_after_five))
    with pytest.raises(RuntimeError, match="gone"), kept_log(crashed, folder / "log.json"):
        crashed.train()
    log = _kept(folder / "log.json")
    assert _losses(log) == {step: expected[step] for step in range(1, 6)}
    assert [entry["step"] for entry in log if "eval_ndcg@10" in entry] == [0, 3]

    resumed, _ = make("crashed")
    with kept_log(resumed, folder / "log.json"):
        resumed.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    assert _losses(_kept(folder / "log.json")) == expected
    for tag, steps in (("train/loss", range(1, STEPS + 1)), ("eval/ndcg@10", (0, 3, 6))):
        assert _curve(folder / "curves", tag) == _curve(place / "curves", tag)
        assert [step for step, _ in _curve(folder / "curves", tag)] == list(steps)

    anew, _ = make("straight")
    anew.train()
    steps = [step for step, _ in _curve(place / "curves", "train/loss")]
    assert steps == list(range(1, STEPS + 1)), "an older training shows through"


def test_each_line_of_a_loss_says_the_time_that_is_left(
    finetuner: Callable[..., RecommendationTrainer],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = finetuner(tmp_path, None, max_steps=4)
    trainer.add_callback(_AtEachStep(lambda _: time.sleep(0.3)))
    begun = time.monotonic()
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        trainer.train()
    took = time.monotonic() - begun
    said = [
        re.fullmatch(r"step (\d) of 4(?:, (.+) s left)?: loss .*", one) for one in caplog.messages
    ]
    left = {int(one[1]): one[2] for one in said if one is not None}
    assert left.keys() == {1, 2, 3, 4}
    assert left[1] is None, "nothing is known yet"
    assert left[4] is None, "nothing is left"
    assert 0.6 <= float(left[2]) < 2 * took
    assert 0.3 <= float(left[3]) < took
