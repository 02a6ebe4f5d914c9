"""HR@k, recall@k, NDCG@k, MRR and MAP for `evaluate.load`, computed by delrec_hf itself."""

import datasets
import evaluate
import numpy as np

from delrec_hf.evaluation.metrics import per_user_metrics
from delrec_hf.evaluation.relevant_sets import metrics_of_sets

_DESCRIPTION = """\
HR, recall, NDCG, MRR and MAP of the relevant items among scored candidates, as expected values
under random tie-breaking. Scores that are not finite rank last.
"""
_INPUTS = """\
Args:
    predictions: scores of the candidates of each row, higher is better; rows of one length.
    references: place of the relevant item in each row, from 0; or a list of places, where several
        are relevant.

Returns:
    The mean over the rows of `hr@1`, `hr@5`, `hr@10`, `ndcg@5`, `ndcg@10` and `mrr`; for lists of
    places of `recall@1`, `recall@5`, `recall@10` and `map` as well.
"""
_CITATION = """\
@article{delrec, title={DELRec: Distilling Sequential Pattern to Enhance LLMs-based Sequential
Recommendation}, journal={arXiv preprint arXiv:2406.11156}, year={2024}}
"""
_SCORES = datasets.Sequence(datasets.Value("float64"))
_PLACE = datasets.Value("int64")


class RankingMetrics(evaluate.Metric):
    """Means over rows of `per_user_metrics`, or of `metrics_of_sets`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": _SCORES, "references": _PLACE}),
                datasets.Features(
                    {"predictions": _SCORES, "references": datasets.Sequence(_PLACE)}
                ),
            ],
        )

    def _compute(
        self, predictions: list[list[float]], references: list[int] | list[list[int]]
    ) -> dict[str, float]:
        if len(references) and isinstance(references[0], list):
            relevant = np.zeros(np.shape(predictions), dtype=bool)
            for row, places in enumerate(references):
                relevant[row, places] = True
            found = metrics_of_sets(predictions, relevant)
        else:
            found = per_user_metrics(predictions, references)
        return {name: float(values.mean()) for name, values in found.items()}
