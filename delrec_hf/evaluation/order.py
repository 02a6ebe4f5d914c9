"""How much a ranking hangs on the order in which candidates are listed."""

import numpy as np
from datasets import Dataset

from delrec_hf.data.candidates import with_candidates
from delrec_hf.evaluation.systems import Score


def order_sensitivity(score: Score, examples: Dataset, permutations: int, seed: int) -> float:
    r"""Return the share of first choices that change when the same candidates are listed anew.

    $\frac{1}{P |U|} \sum_{p} \sum_u [\text{first}(u) \ne \text{first}_p(u)]$, over permutations p
    of each user's candidates.

    Args:
        score: Scores examples' candidates, `(users, candidates)`.
        examples: Rows with `candidates`, in the order that they are listed in.
        permutations: How often the candidates are listed anew.
        seed: Decides the orders.
    """
    candidates = np.array(examples["candidates"][:], dtype=np.int64)
    rows = np.arange(len(candidates))
    first = candidates[rows, score(examples).argmax(axis=1)]
    generator = np.random.default_rng(seed)
    changed = []
    for _ in range(permutations):
        order = generator.permuted(np.tile(np.arange(candidates.shape[1]), (len(rows), 1)), axis=1)
        listed = np.take_along_axis(candidates, order, axis=1)
        again = score(with_candidates(examples, listed)).argmax(axis=1)
        changed.append(float((listed[rows, again] != first).mean()))
    return float(np.mean(changed))
