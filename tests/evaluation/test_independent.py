"""The metrics against trec_eval's, by way of ir-measures, on random rankings with ties."""

import itertools
from collections import defaultdict
from collections.abc import Iterator

import ir_measures
import numpy as np
from ir_measures import AP, RR, R, ScoredDoc, Success, nDCG

from delrec_hf.evaluation.lists import list_properties, top_lists
from delrec_hf.evaluation.metrics import per_user_metrics
from delrec_hf.evaluation.relevant_sets import metrics_of_sets

NAMES = {
    **{Success @ k: f"hr@{k}" for k in (1, 5, 10)},
    **{R @ k: f"recall@{k}" for k in (1, 5, 10)},
    **{nDCG @ k: f"ndcg@{k}" for k in (5, 10)},
    RR: "mrr",
    AP: "map",
}


def orders(scores: list[float], relevant: list[bool]) -> Iterator[list[bool]]:
    """Every order that ties allow, as what is relevant at each rank, all equally likely."""
    levels = []
    for level in sorted(set(scores), reverse=True):
        size = scores.count(level)
        marked = sum(r for r, s in zip(relevant, scores, strict=True) if s == level)
        levels.append(
            [[p in hit for p in range(size)] for hit in itertools.combinations(range(size), marked)]
        )
    for chosen in itertools.product(*levels):
        yield list(itertools.chain(*chosen))


def trec_eval(rankings: dict[str, list[bool]], totals: dict[str, int]) -> dict[str, dict]:
    """Each query's measures by trec_eval; relevant items that no ranking has make up the total."""
    run = [
        ScoredDoc(query, f"{query}/{rank}", float(-rank))
        for query, marks in rankings.items()
        for rank in range(len(marks))
    ]
    qrels: dict[str, dict[str, int]] = {}
    for query, marks in rankings.items():
        found = {f"{query}/{rank}": 1 for rank, mark in enumerate(marks) if mark}
        missing = {f"{query}/missing{n}": 1 for n in range(totals[query] - len(found))}
        qrels[query] = {**found, **missing}
    measured: dict[str, dict[str, float]] = defaultdict(dict)
    for one in ir_measures.pytrec_eval.iter_calc(list(NAMES), qrels, run):
        measured[one.query_id][NAMES[one.measure]] = one.value
    return measured


def test_a_thousand_random_rankings_have_the_metrics_that_trec_eval_gives_them() -> None:
    generator = np.random.default_rng(0)
    values = np.array([0.0, 1.0, 2.0, 3.0, np.nan, -np.inf])
    rankings, totals, cases = {}, {}, []
    for case in range(1000):
        size = int(generator.integers(1, 10))
        scores = values[generator.choice(6, p=[0.25, 0.2, 0.2, 0.15, 0.1, 0.1], size=size)]
        relevant = generator.random(size) < 0.3 if case % 2 else np.arange(size) == 0
        total = int(relevant.sum() + (generator.integers(0, 3) if case % 2 else 0))
        if not total:
            total = 1
        clean = np.where(np.isfinite(scores), scores, -1.0).tolist()
        names = []
        for number, marks in enumerate(orders(clean, relevant.tolist())):
            names.append(f"{case}.{number}")
            rankings[names[-1]], totals[names[-1]] = marks, total
        cases.append((scores, relevant, total, names))
    theirs = trec_eval(rankings, totals)
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for scores, relevant, total, names in cases:
        ours = metrics_of_sets(scores[None], relevant[None], [total])
        for metric, value in ours.items():
            pairs[metric].append((value[0], np.mean([theirs[name][metric] for name in names])))
        if relevant.sum() == total == 1:
            alone = per_user_metrics(scores[None], [int(relevant.argmax())])
            pairs["alone"] += [(value[0], ours[metric][0]) for metric, value in alone.items()]
    assert set(pairs) == {*NAMES.values(), "alone"}
    for metric, found in pairs.items():
        assert len(found) >= 1000
        np.testing.assert_allclose(*zip(*found, strict=True), rtol=0, atol=1e-12, err_msg=metric)


def test_lists_are_like_the_mean_over_every_draw_of_ties() -> None:
    """Coverage, popularity, novelty and diversity, with every way to fill the lists tried."""
    generator = np.random.default_rng(1)
    categories = ["a", "a|b", "b", "c", "a|c", "c"]
    for _ in range(12):
        items = np.stack([generator.permutation(6) for _ in range(3)])
        scores = generator.choice([0.0, 1.0, 2.0], size=(3, 6))
        counts = generator.integers(0, 9, 6)
        ways = [list(fillings(row, 3)) for row in scores]
        of_each = []
        for chosen in itertools.product(*ways):
            alone = np.full(scores.shape, -np.inf)
            for row, columns in enumerate(chosen):
                alone[row, list(columns)] = 1.0
            of_each.append(list_properties(top_lists(alone, items, 3), counts, 9, categories))
        found = list_properties(top_lists(scores, items, 3), counts, 9, categories)
        for name in ("coverage", "popularity", "novelty", "diversity"):
            expected = np.mean([one[name] for one in of_each])
            np.testing.assert_allclose(found[name], expected, atol=1e-12, err_msg=name)


def fillings(scores: np.ndarray, k: int) -> Iterator[tuple[int, ...]]:
    """Every list of k columns in which nothing stands that scores less than what is left out."""
    for columns in itertools.combinations(range(len(scores)), k):
        left = np.delete(scores, columns)
        if scores[list(columns)].min() >= left.max():
            yield columns
