"""HR@k, NDCG@k and MRR for `evaluate.load`, computed by delrec_hf itself."""

import datasets
import evaluate

from delrec_hf.evaluation.metrics import per_user_metrics

_DESCRIPTION = """\
HR@1, HR@5, HR@10, NDCG@5, NDCG@10 and MRR of one relevant item among scored candidates, as expected
values under random tie-breaking. Scores that are not finite rank last.
"""
_INPUTS = """\
Args:
    predictions: scores of the candidates of each row, higher is better; rows of one length.
    references: place of the relevant item in each row, from 0.

Returns:
    The mean over the rows of `hr@1`, `hr@5`, `hr@10`, `ndcg@5`, `ndcg@10` and `mrr`.
"""
_CITATION = """\
@article{delrec, title={DELRec: Distilling Sequential Pattern to Enhance LLMs-based Sequential
Recommendation}, journal={arXiv preprint arXiv:2406.11156}, year={2024}}
"""


class RankingMetrics(evaluate.Metric):
    """Means over rows of `delrec_hf.evaluation.metrics.per_user_metrics`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        found = per_user_metrics(predictions, references)
        return {name: float(values.mean()) for name, values in found.items()}
