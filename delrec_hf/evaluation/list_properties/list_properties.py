"""Coverage, popularity bias, novelty and diversity for `evaluate.load`, computed by delrec_hf."""

import datasets
import evaluate
import numpy as np

from delrec_hf.evaluation.lists import list_properties, top_lists

_DESCRIPTION = """\
What lists of recommendations are like: how much of the catalogue they cover, how unequally they
share out their places (Gini), how popular and how novel their items are, and how different.
"""
_INPUTS = """\
Args:
    predictions: item rows of each list, none twice; lists may differ in length.
    counts: training interactions of each item of the catalogue.
    num_users: how many users these interactions are of.
    categories: each item's categories, parted by `|`; without them there is no `diversity`.

Returns:
    `coverage`, `gini`, `popularity`, `novelty` and, where there are categories, `diversity`.
"""


class ListProperties(evaluate.Metric):
    """`delrec_hf.evaluation.lists.list_properties` of lists without ties."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("int64"))}),
        )

    def _compute(
        self,
        predictions: list[list[int]],
        counts: list[int],
        num_users: int,
        categories: list[str] | None = None,
    ) -> dict[str, float]:
        longest = max(1, *map(len, predictions))
        items = np.zeros((len(predictions), longest), dtype=np.int64)
        scores = np.full(items.shape, -np.inf)
        for row, one in enumerate(predictions):
            items[row, : len(one)] = one
            scores[row, : len(one)] = -np.arange(len(one))
        return list_properties(top_lists(scores, items, longest), counts, num_users, categories)
