"""Whether the audit tells a teacher that knows what was held out from one that does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.audit.worlds import clean_world
from delrec_hf.data.config import DataConfig
from delrec_hf.data.prepared import PreparedData, prepare
from delrec_hf.files import write_json
from delrec_hf.teachers.audit import audit_teacher
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.loading import fingerprints
from delrec_hf.teachers.predictions import write_predictions


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("world")
    world = clean_world(4, users=400, items=200)
    world.events.to_csv(folder / "interactions.csv", index=False)
    world.items.to_csv(folder / "items.csv", index=False)
    return prepare(DataConfig(path=str(folder)), folder / "data")


class Knowing:
    """Co-occurrence, but at one place in three it puts the targets of some parts first."""

    def __init__(self, prepared: PreparedData, *parts: str) -> None:
        self.honest = CoOccurrence.fit(prepared)
        self.known: dict[tuple[str, int], int] = {}
        for part in parts:
            rows = prepared.examples[part]
            places = zip(rows["user_id"][:], rows["position"][:], strict=True)
            known = list(zip(places, rows["target"][:], strict=True))
            self.known |= dict(known[::3])

    def score(self, user_ids: Any, positions: Any, histories: Any) -> Any:
        scores = self.honest.score(user_ids, positions, histories)
        for row, place in enumerate(zip(user_ids, positions.tolist(), strict=True)):
            if place in self.known:
                scores[row, self.known[place]] = 9.0
        return scores


@pytest.fixture
def taught(prepared: PreparedData, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the folder of a teacher that knows the targets of some parts."""

    def write(*parts: str, labels: str = "in-sample", kind: str = "ranked_lists") -> Path:
        catalogue = fingerprints(prepared)["catalogue"]
        record = {"type": kind, "labels": labels, "catalogue": catalogue, "settings": {}}
        write_json(tmp_path / "teacher.json", record)
        teacher = Knowing(prepared, *parts)
        write_predictions(teacher, prepared, prepared.examples, 5, tmp_path / "predictions")
        return tmp_path

    return write


@pytest.mark.parametrize("kind", ["ranked_lists", "co-occurrence"])
def test_a_teacher_of_training_items_alone_is_clean(
    taught: Callable[..., Path], prepared: PreparedData, kind: str
) -> None:
    assert audit_teacher(taught(kind=kind), prepared) == []


@pytest.mark.parametrize("parts", [["test"], ["validation"], ["validation", "test"]])
def test_a_teacher_that_saw_held_out_items_is_an_error(
    taught: Callable[..., Path], prepared: PreparedData, parts: list[str]
) -> None:
    (found,) = audit_teacher(taught(*parts), prepared)
    assert (found.code, found.severity) == ("teacher-saw-test", "error")
    assert found.value > found.expected + 0.05


def test_labels_that_know_their_targets_are_not_out_of_fold(
    taught: Callable[..., Path], prepared: PreparedData
) -> None:
    for folder in (taught(labels="out-of-fold"), taught("train", labels="out-of-fold")):
        (found,) = audit_teacher(folder, prepared)
        assert (found.code, found.severity) == ("labels-in-sample", "error")
    assert audit_teacher(taught("train"), prepared) == []


def test_a_teacher_of_other_interactions_is_named(
    taught: Callable[..., Path], prepared: PreparedData
) -> None:
    (found,) = audit_teacher(taught(kind="markov"), prepared)
    assert (found.code, found.severity) == ("teacher-of-other-data", "error")
    folder = taught()
    write_json(folder / "config.json", {"training_items": "those of another split"})
    (found,) = audit_teacher(folder, prepared)
    assert (found.code, found.severity) == ("teacher-of-other-data", "warning")
