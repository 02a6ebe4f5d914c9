"""Several seeds' runs as one table, against means taken by hand."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delrec_hf.errors import InputError
from delrec_hf.evaluation.kept import keep_users, users_file
from delrec_hf.evaluation.report import format_table
from delrec_hf.evaluation.seeds import summarise_seeds
from delrec_hf.evaluation.slices import ITEMS, SEEN
from delrec_hf.evaluation.statistics import estimate
from delrec_hf.evaluation.table import one_line
from delrec_hf.files import read_json, write_json

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
        measured = {name: dict.fromkeys(METRICS, one[seed]) for name, one in values.items()}
        genres = ["space|war" if k < 40 else "" for k in range(50)]
        facts = {SEEN: [k % 10 for k in range(50)], f"{ITEMS}a/b": genres}
        keep_users(folder / "logs", "", [f"u{k}" for k in range(50)], measured, facts)
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
    assert [(one["by"], one["group"], one["users"]) for one in found["slices"]] == [
        (SEEN, "0", 5), (SEEN, "1-4", 20), (SEEN, "5-24", 25),
        ("items.a/b", "space", 40), ("items.a/b", "war", 40), ("items.a/b", "unknown", 10),
    ]  # fmt: skip
    never = values["delrec"][:, ::10].mean()
    assert found["slices"][0]["systems"]["delrec"]["ndcg@10"] == pytest.approx(never)
    (of_war,) = (one for one in found["slices"][4]["comparisons"] if one["metric"] == "ndcg@10")
    expected = estimate((values["delrec"] - values["teacher"])[:, :40])
    assert of_war["ci95"] == pytest.approx(expected.interval())
    assert (of_war["seeds"], of_war["users"]) == (3, 40)
    assert found["protocol"]["intervals"] == "seeds and users"
    text = format_table(found)
    assert "Brackets: 95 % interval over seeds and users." in text
    assert "What may be claimed by NDCG@10, 3 seeds and 50 users: " in text
    assert "Mean and standard deviation over 3 seeds" in text
    assert max(map(len, text.splitlines())) <= 110
    other = pq.read_table(folders[2] / "logs" / users_file())
    turned = other.set_column(0, "user_id", pa.array([f"u{49 - k}" for k in range(50)]))
    pq.write_table(turned, folders[2] / "logs" / users_file())
    with pytest.raises(InputError, match="measured other users than"):
        summarise_seeds(folders, [1, 2, 3])
    (folders[2] / "logs" / users_file()).unlink()
    with pytest.raises(
        InputError, match=r"users\.parquet is not there; run `delrec evaluate` again"
    ):
        summarise_seeds(folders, [1, 2, 3])


def of_seed(seed: int, values: dict[str, np.ndarray], held: int) -> dict[str, Any]:
    """A results.json with everything that stands beside the systems' table."""
    systems = {name: {"ndcg@10": float(one[seed].mean())} for name, one in values.items()}
    lists = {name: {"gini": 0.1 * seed, "novelty": 2.0} for name in values}
    block = {"systems": systems, "comparisons": [], "lists": {"length": 10, "systems": lists}}
    block["protocol"] = {"num_candidates": 100, "users": 50, "retriever": "delrec"}
    block["lists"]["users"] = held
    order = {name: {"order_sensitivity": 0.2 + 0.1 * seed} for name in values}
    return {
        "protocol": {"dataset": "toy"},
        "systems": order,
        "retrieved": {**block, "recall_ceiling": held / 50},
        "whole_catalogue": block,
        "distillation": {"no prompt": {"agreement": 0.5}},
    }


def test_what_stands_beside_the_table_is_summarised_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generator = np.random.default_rng(0)
    values = {name: generator.random((3, 50)) for name in ("zero-shot", "delrec")}
    agreed = (generator.random((3, 40)) < 0.6).astype(float)
    folders = [tmp_path / str(seed) for seed in range(3)]
    users = [f"u{k}" for k in range(50)]
    for seed, folder in enumerate(folders):
        measured = {name: {"ndcg@10": one[seed]} for name, one in values.items()}
        for block in ("", "retrieved", "whole_catalogue"):
            keep_users(folder / "logs", block, users, measured)
        told = {"no prompt": {"agreement": agreed[seed]}}
        keep_users(folder / "logs", "distillation", users[:40], told)
        write_json(folder / "results.json", of_seed(seed, values, held=20 + seed))
    found = summarise_seeds(folders, [1, 2, 3])
    assert found["systems"]["delrec"]["order_sensitivity"] == pytest.approx(0.3)
    assert found["systems"]["delrec"]["sd"]["order_sensitivity"] == pytest.approx(0.1)
    assert found["retrieved"]["recall_ceiling"] == pytest.approx(0.42)
    assert found["retrieved"]["sd"]["recall_ceiling"] == pytest.approx(0.02)
    for block in ("retrieved", "whole_catalogue"):
        delrec = found[block]["systems"]["delrec"]
        assert delrec["ndcg@10"] == pytest.approx(values["delrec"].mean())
        expected = estimate(values["delrec"]).interval()
        assert delrec["ci95"]["ndcg@10"] == pytest.approx(expected)
        spread = values["delrec"].mean(axis=1).std(ddof=1)
        assert delrec["sd"]["ndcg@10"] == pytest.approx(spread)
        (pair,) = found[block]["comparisons"]
        expected = estimate(values["delrec"] - values["zero-shot"]).interval()
        assert pair["ci95"] == pytest.approx(expected)
        assert found[block]["lists"]["length"] == 10  # of all seeds
        assert found[block]["lists"]["users"] == [20, 21, 22]  # of each
        of_lists = found[block]["lists"]["systems"]["delrec"]
        assert (of_lists["gini"], of_lists["sd"]["gini"]) == pytest.approx((0.1, 0.1))
        assert (of_lists["novelty"], of_lists["sd"]["novelty"]) == (2, 0)
    told = found["distillation"]["no prompt"]
    assert told["agreement"] == pytest.approx(agreed.mean())
    assert told["sd"]["agreement"] == pytest.approx(agreed.mean(axis=1).std(ddof=1))
    assert told["ci95"] == pytest.approx(estimate(agreed).interval())
    assert told["users"] == 40
    text = format_table(found)
    assert "another order: zero-shot 0.300 ± 0.100, delrec 0.300 ± 0.100." in one_line(text)
    assert "by delrec, reranked; 0.420 ± 0.020 of the targets are there" in text
    assert text.count("Mean and standard deviation over 3 seeds") == 3
    assert len(re.findall(r"\ndelrec +0.100 ± 0.100 +2.000 ± 0.000\n", text)) == 2
    shown = f"{agreed.mean():.3f} ± {agreed.mean(axis=1).std(ddof=1):.3f} ["
    assert f"no prompt  {shown}" in text
    assert max(map(len, text.splitlines())) <= 110
    of_one = read_json(folders[1] / "results.json")
    del of_one["retrieved"]
    write_json(folders[1] / "results.json", of_one)
    assert "retrieved" not in summarise_seeds(folders, [1, 2, 3])
    assert "2 of 3 seeds have `retrieved`; left out of the summary over seeds" in caplog.text
