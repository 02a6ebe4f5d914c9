"""Recommendations for all users of a file: formats, processes, kills, and what is left out."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock

from delrec_hf import Recommender
from delrec_hf.batch import recommend_file
from delrec_hf.chunks import CHUNK
from delrec_hf.cli import main
from delrec_hf.errors import InputError
from delrec_hf.files import write_json
from delrec_hf.hashes import fingerprint
from delrec_hf.modeling.artefact import hold_teacher
from delrec_hf.ranking.weighing import Fusion, Part, Scale
from delrec_hf.teachers.models.sasrec import SASRecConfig, SASRecModel
from tests.film_rows import ITEMS, TITLES

COLUMNS = [
    *("user_id", "rank", "item_id", "title", "score"),
    *("language_model", "language_model_rank", "teacher", "teacher_rank"),
]
FUSION = Fusion(
    {"delrec": Part(0.5, (0.4, 0.6), Scale()), "teacher": Part(3.0, (2.0, 4.0), Scale())}
)


@pytest.fixture
def model(make_artefact: Callable[..., Path], tmp_path: Path) -> Path:
    """An artefact that ranks with an untrained SASRec, candidates not listed."""
    torch.manual_seed(3)
    catalogue = fingerprint(list(ITEMS))
    teacher = SASRecModel(SASRecConfig(num_items=len(ITEMS), hidden_size=8, catalogue=catalogue))
    torch.nn.init.normal_(teacher.item_embedding.weight)
    teacher.save_pretrained(tmp_path / "taught")
    write_json(tmp_path / "taught" / "teacher.json", {"type": "sasrec", "catalogue": catalogue})
    made = make_artefact(fusion=FUSION.to_dict(), candidates="unlisted")
    hold_teacher(tmp_path / "taught", made)
    return made


def histories(users: int) -> list[list[str]]:
    """Histories of one to five films, by their ids."""
    drawn = np.random.default_rng(5)
    return [
        [f"i{row}" for row in drawn.permutation(len(TITLES))[: 1 + user % 5]]
        for user in range(users)
    ]


def write_users(path: Path, users: int, strange: Sequence[str] = ()) -> Path:
    """Write users with these histories, one of whom has strange items too."""
    rows = histories(users)
    rows[0] += strange
    ids = [f"u{user}" for user in range(users)]
    pq.write_table(pa.table({"user_id": ids, "history": rows}), path)
    return path


def words(model: Path, source: Path, output: Path, *more: str) -> list[str]:
    given = ["--model", str(model), "--input", str(source), "--output", str(output)]
    return ["recommend", *given, *more]


def start(*given: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "delrec_hf", *given],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def by_user(found: pd.DataFrame) -> dict[Any, list[str]]:
    return {user: rows["item_id"].tolist() for user, rows in found.groupby("user_id", sort=False)}


def test_each_user_gets_what_recommend_gives(model: Path, tmp_path: Path) -> None:
    source = write_users(tmp_path / "users.parquet", CHUNK + 3)
    recommend_file(model, source, tmp_path / "recs.parquet", top_k=4)
    table = pq.read_table(tmp_path / "recs.parquet")
    assert table.column_names == COLUMNS
    found = table.to_pandas()
    assert found["user_id"].drop_duplicates().tolist() == [f"u{user}" for user in range(CHUNK + 3)]
    recommender = Recommender.from_pretrained(model)
    for user in (0, 1, 4, CHUNK - 1, CHUNK, CHUNK + 2):
        alone = recommender.recommend(histories(CHUNK + 3)[user], top_k=4)
        rows = found[found["user_id"] == f"u{user}"]
        assert rows["rank"].tolist() == [1, 2, 3, 4]
        assert rows["item_id"].tolist() == [one.item_id for one in alone]
        assert rows["title"].tolist() == [one.title for one in alone]
        for name in ("score", "language_model", "teacher"):
            # Batches of other widths round otherwise.
            expected = [getattr(one, name) for one in alone]
            assert rows[name].tolist() == pytest.approx(expected, abs=1e-4), name
        for name in ("language_model_rank", "teacher_rank"):
            assert rows[name].tolist() == [getattr(one, name) for one in alone], name


@pytest.mark.parametrize("candidates", ["listed", "unlisted"])
def test_a_model_alone_says_nothing_of_a_teacher(
    make_artefact: Callable[..., Path], tmp_path: Path, candidates: str
) -> None:
    made = make_artefact(candidates=candidates)
    source = write_users(tmp_path / "users.parquet", 3)
    recommend_file(made, source, tmp_path / "recs.parquet", candidates=["i8", "Fargo (1996)"])
    table = pq.read_table(tmp_path / "recs.parquet")
    assert table["teacher"].null_count == table["teacher_rank"].null_count == len(table) == 6
    assert set(table["item_id"].to_pylist()) == {"i8", "i6"}


READ: dict[str, Callable[[Path], pd.DataFrame]] = {
    "parquet": pd.read_parquet,
    "csv": pd.read_csv,
    "tsv": lambda path: pd.read_csv(path, sep="\t"),
    "csv.gz": pd.read_csv,
    "jsonl": lambda path: pd.read_json(path, lines=True),
    "jsonl.xz": lambda path: pd.read_json(path, lines=True),
}


def test_every_format_of_the_output_holds_the_same(model: Path, tmp_path: Path) -> None:
    source = write_users(tmp_path / "users.parquet", 5)
    expected = None
    for ending, read in READ.items():
        recommend_file(model, source, tmp_path / f"recs.{ending}", top_k=2)
        found = read(tmp_path / f"recs.{ending}")
        expected = found if expected is None else expected
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)


SAME = {"9": ["i0", "i2"], "5": ["i5"], "7": ["i3", "i1", "i4"]}
"""Users in the order of the files below, which differs from that of their ids."""

FILES = {
    "lists.jsonl": "".join(
        json.dumps({"user_id": user, "history": history}) + "\n" for user, history in SAME.items()
    ),
    "json.csv": 'user_id,history\n9,"[""i0"", ""i2""]"\n5,"[""i5""]"\n7,"[""i3"",""i1"",""i4""]"\n',
    "python.csv": "user_id,history\n9,\"['i0', 'i2']\"\n5,['i5']\n7,\"['i3', 'i1', 'i4']\"\n",
    "spaces.csv": "userId,history\n9,i0 i2\n5,i5\n7,i3  i1 i4\n",
    "bars.csv": (
        "user_id,history\n9,Heat (1995)|Alien (1979)\n5,i5\n"
        '7,"aliens (1986) | Heathers (1988)|Matrix, The (1999)"\n'
    ),
    "events.csv": (
        "userId,movieId,ts\n9,i0,1\n5,i5,1999-01-01\n7,i1,5\n9,i2,2\n7,i3,4\n7,i4,6\n9,i0,9\n"
    ).replace("1999-01-01", "7"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_of_the_input_means_the_same_users(
    model: Path, tmp_path: Path, name: str
) -> None:
    source = tmp_path / name
    source.write_text(FILES[name], encoding="utf-8")
    recommend_file(model, source, tmp_path / "recs.csv", top_k=3)
    found = pd.read_csv(tmp_path / "recs.csv", dtype={"user_id": str})
    recommender = Recommender.from_pretrained(model)
    together = recommender.recommend_many(list(SAME.values()), top_k=3)
    # Exact: the same batch.
    assert found["score"].tolist() == [one.score for user in together for one in user]
    assert list(by_user(found).items()) == [
        (user, [one.item_id for one in ranked]) for user, ranked in zip(SAME, together, strict=True)
    ]


def test_user_ids_of_typed_files_stay_numbers(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "users.parquet"
    lists = pa.array([["i0"], ["i1"]], pa.large_list(pa.large_string()))
    pq.write_table(pa.table({"user_id": pa.array([7, 3], pa.int32()), "films": lists}), source)
    recommend_file(model, source, tmp_path / "recs.parquet", top_k=1)
    table = pq.read_table(tmp_path / "recs.parquet")
    assert table["user_id"].type == pa.int32()
    assert table["user_id"].to_pylist() == [7, 3]


def test_who_and_what_cannot_be_ranked_is_counted(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "users.jsonl"
    given = {
        "a": ["i0", "Gone with the Wind", "i2"],
        "b": [],
        "c": ["nothing", "Gone with the Wind"],
        "d": [*ITEMS],
        "e": None,
        "f": ["i2"],
    }
    lines = [{"user_id": user, "history": history} for user, history in given.items()]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with caplog.at_level(logging.WARNING, "delrec_hf"):
        recommend_file(model, source, tmp_path / "recs.parquet", top_k=3)
    found = by_user(pd.read_parquet(tmp_path / "recs.parquet"))
    assert set(found) == {"a", "f"}
    alone = Recommender.from_pretrained(model).recommend(["i0", "i2"], top_k=3)
    assert found["a"] == [one.item_id for one in alone]
    assert "3 of 18 items" in caplog.text
    assert '(2 names: "Gone with the Wind", "nothing")' in caplog.text
    assert '2 without a history ("b", "e")' in caplog.text
    assert '1 none of whose items is known ("c")' in caplog.text
    assert '1 who have met the whole catalogue ("d")' in caplog.text


def test_ids_win_over_titles_and_the_log_says_so(
    make_artefact: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_artefact(titles={"7": "21", "21": "Amber Piano", "a": "Emma", "c": "Heat"})
    source = tmp_path / "users.csv"
    source.write_text("user_id,history\nu,21\n")
    with caplog.at_level(logging.WARNING, "delrec_hf"):
        recommend_file(made, source, tmp_path / "recs.csv")
    assert set(pd.read_csv(tmp_path / "recs.csv")["item_id"]) == {"7", "a", "c"}
    assert 'another one\'s title ("21"): they are taken for ids' in caplog.text


def test_nobody_left_is_one_line(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "users.csv"
    source.write_text("user_id,history\nu,x y\nv,\n")
    with pytest.raises(InputError, match=r'1 without a history \("v"\); 1 none of whose items'):
        recommend_file(model, source, tmp_path / "recs.csv")
    assert sorted(path.name for path in tmp_path.glob("recs*")) == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--input", "u.csv"], "--input and --output go together"),
        (["--history", "i0", "--output", "r.csv"], "--input and --output go together"),
        (["--history", "i0", "--input", "u.csv", "--output", "r.csv"], "not allowed with"),
        ([], "one of the arguments --history --input is required"),
        (["--input", "u.csv", "--output", "r.xlsx"], "r.xlsx is of an unknown format"),
        (["--input", "u.csv", "--output", "u.csv"], "is a folder or the input"),
        (["--input", "u.csv", "--output", "r.csv", "--json"], "--json prints"),
        (["--input", "none.csv", "--output", "r.csv"], "none.csv does not exist"),
        (["--input", "n.csv", "--output", "r.csv"], "expected `user_id` and `history`, or"),
        (["--input", "u.csv", "--output", "r.csv", "--top_k", "0"], "top_k is 0"),
        (["--input", "u.csv", "--output", "r.csv", "--retrieve", "0"], "retrieve is 0"),
        (
            ["--input", "u.csv", "--output", "r.csv", "--retrieve", "3", "--with_teacher", "false"],
            "retrieve needs the teacher",
        ),
        (["--input", "u.csv", "--output", "r.csv", "--candidates", "zz"], '"zz" is not among'),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_leaves_nothing(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    reason: str,
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("u.csv").write_text("user_id,history\nu,i0\n")
    Path("n.csv").write_text("user_id,foo\nu,i0\n")
    capsys.readouterr()
    assert main(["recommend", "--model", str(model), *given, "--log_level", "error"]) == 2
    log = capsys.readouterr().err
    assert "Traceback" not in log
    told = log.strip().splitlines()[-1]  # behind the bars of libraries
    assert told.startswith("delrec: error: ")
    assert reason in told
    assert sorted(path.name for path in folder.iterdir()) == ["n.csv", "u.csv"]


def test_changed_options_start_anew_and_the_old_chunks_wait(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = write_users(tmp_path / "users.parquet", 3 * CHUNK), tmp_path / "recs.csv"
    ranked: list[int] = []
    rank_rows = Recommender.rank_rows

    def counted(self: Recommender, histories: list[list[int]], *given: Any, **more: Any) -> Any:
        if len(ranked) == 1:
            ranked.clear()
            raise KeyboardInterrupt
        ranked.extend([len(histories)] * bool(histories))
        return rank_rows(self, histories, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Recommender, "rank_rows", counted)
        with pytest.raises(KeyboardInterrupt):
            recommend_file(model, source, output, top_k=2)
    (begun,) = (one for one in (tmp_path / "recs.csv.parts").iterdir() if one.is_dir())
    assert [path.name for path in sorted(begun.glob("*.parquet"))] == ["00000000.parquet"]
    assert not output.exists()
    with caplog.at_level(logging.INFO, "delrec_hf"), monkeypatch.context() as patch:
        patch.setattr(Recommender, "rank_rows", counted)
        with pytest.raises(KeyboardInterrupt):
            recommend_file(model, source, output, top_k=3)
    assert "was begun with another top_k" in caplog.text
    assert begun.is_dir()
    caplog.clear()
    with caplog.at_level(logging.INFO, "delrec_hf"):
        recommend_file(model, source, output, top_k=3)
    assert f"{CHUNK} of {3 * CHUNK} users are done already" in caplog.text
    assert not (tmp_path / "recs.csv.parts").exists()
    assert set(pd.read_csv(output)["rank"]) == {1, 2, 3}


def test_two_commands_do_not_write_one_output(model: Path, tmp_path: Path) -> None:
    source, output = write_users(tmp_path / "users.parquet", 2), tmp_path / "recs.csv"
    (tmp_path / "recs.csv.parts").mkdir()
    with (
        FileLock(tmp_path / "recs.csv.parts" / "lock"),
        pytest.raises(InputError, match=r"another process writes into .*recs\.csv\.parts"),
    ):
        recommend_file(model, source, output)
    recommend_file(model, source, output)
    assert not (tmp_path / "recs.csv.parts").exists()


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bytes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_users(tmp_path / "users.parquet", 16 * CHUNK + 5)
    straight, killed = tmp_path / "straight.parquet", tmp_path / "killed.parquet"
    recommend_file(model, source, straight)
    killed.write_text("what was there before")
    process = start(*words(model, source, killed))
    end = time.monotonic() + 300
    while len(done := list(tmp_path.glob("killed.parquet.parts/*/*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert killed.read_text() == "what was there before"
    (done[0].parent / "00000015.writing").write_text("half of a chunk")
    assert main(words(model, source, killed)) == 0
    kept = re.search(r"(\d+) of 1029 users are done already", capsys.readouterr().err)
    assert kept is not None
    assert 3 * CHUNK <= int(kept[1]) < 1029
    # Exact: the same chunks on one thread.
    assert killed.read_bytes() == straight.read_bytes()
    assert not (tmp_path / "killed.parquet.parts").exists()


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(model: Path, tmp_path: Path) -> None:
    source = write_users(tmp_path / "users.parquet", 6 * CHUNK + 5, strange=["nothing"])
    recommend_file(model, source, tmp_path / "one.csv.gz")
    two = start(*words(model, source, tmp_path / "two.csv.gz", "--accelerate_config", "cpu"))
    log = two.communicate(timeout=300)[1]
    assert two.returncode == 0, log
    assert "2 processes share the work" in log
    assert log.count("left out of the histories: 1 of") == 1
    assert (tmp_path / "two.csv.gz").read_bytes() == (tmp_path / "one.csv.gz").read_bytes()
    given = ["--accelerate_config", "cpu", "--top_k=0"]
    told = start(*words(model, source, tmp_path / "none.csv", *given))
    log = told.communicate(timeout=300)[1]
    assert told.returncode == 2
    lines = [line for line in log.splitlines() if " INFO " not in line]
    assert lines == ["delrec: error: top_k is 0; expected 1 or more"]
    one = ["recommend", "--model", str(model), "--history", "i0", "--accelerate_config", "cpu"]
    told = start(*one)
    assert told.communicate(timeout=300)[1] == (
        "delrec: error: several processes are for --input; --history needs one\n"
    )
    assert told.returncode == 2
