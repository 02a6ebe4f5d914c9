"""Several seeds' runs as one table, against means taken by hand."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delrec_hf.errors import InputError
from delrec_hf.evaluation.report import format_table
from delrec_hf.evaluation.seeds import USERS_FILE, summarise_seeds
from delrec_hf.evaluation.slices import SEEN
from delrec_hf.evaluation.statistics import estimate

METRICS = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr", "log_loss")


def test_comparisons_pair_seeds_and_users(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = {
        name: generator.random((3, 50))
        for name in ("teacher", "delrec/no-ta", "lora-only", "delrec")
    }
    folders = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        (folder / "logs").mkdir(parents=True)
        columns = {f"{name}/{m}": one[seed] for name, one in values.items() for m in METRICS}
        users = [f"u{k}" for k in range(50)]
        facts = {"user_id": users, SEEN: [k % 10 for k in range(50)]}
        pq.write_table(pa.table({**facts, **columns}), folder / "logs" / USERS_FILE)
        names = ("teacher/sasrec", "delrec/no-ta", "lora-only", "delrec")
        systems = {name: {"seconds": 1.5, "weights": {"x": seed}} for name in names}
        protocol = {"dataset": "toy", "users": 50, "seeds": [42]}
        content = {"protocol": protocol, "systems": systems}
        (folder / "results.json").write_text(json.dumps(content))
        folders.append(folder)
    found = summarise_seeds(folders, [1, 2, 3])
    assert found["protocol"]["seeds"] == [1, 2, 3]
    teacher = found["systems"]["teacher/sasrec"]
    assert teacher["ndcg@10"] == pytest.approx(values["teacher"].mean())
    assert teacher["sd"]["ndcg@10"] == pytest.approx(values["teacher"].mean(1).std(ddof=1))
    assert teacher["seconds"] == 4.5
    assert teacher["weights_by_seed"] == [{"x": 0}, {"x": 1}, {"x": 2}]
    pairs = {(one["a"], one["b"], one["metric"]): one for one in found["comparisons"]}
    for other, name in (("lora-only", "lora-only"), ("teacher", "teacher/sasrec")):
        expected = estimate(values["delrec"] - values[other])
        shown = pairs["delrec", name, "ndcg@10"]
        assert shown["difference"] == pytest.approx(expected.mean)
        assert shown["ci95"] == pytest.approx(expected.interval())
        assert shown["p"] == expected.p
        assert shown["detectable"] == expected.detectable(level=0.05 / 3)
        assert shown["p"] <= shown["p_holm"] <= 3 * shown["p"]  # of three pairs by each metric
        assert (shown["seeds"], shown["users"]) == (3, 50)
    assert [(one["seen"], one["users"]) for one in found["slices"]] == [
        ("0", 5), ("1-4", 20), ("5-24", 25)
    ]  # fmt: skip
    never = values["delrec"][:, ::10].mean()
    assert found["slices"][0]["systems"]["delrec"]["ndcg@10"] == pytest.approx(never)
    assert found["protocol"]["intervals"] == "seeds and users"
    text = format_table(found)
    assert "Brackets: 95 % interval over seeds and users." in text
    assert "What may be claimed by NDCG@10, 3 seeds and 50 users: " in text
    assert "Mean and standard deviation over 3 seeds" in text
    assert max(map(len, text.splitlines())) <= 110
    other = pq.read_table(folders[2] / "logs" / USERS_FILE)
    turned = other.set_column(0, "user_id", pa.array([f"u{49 - k}" for k in range(50)]))
    pq.write_table(turned, folders[2] / "logs" / USERS_FILE)
    with pytest.raises(InputError, match="measured other users than"):
        summarise_seeds(folders, [1, 2, 3])
