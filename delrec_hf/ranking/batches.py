"""Which prompts and candidates go through one forward together."""

from collections.abc import Iterator, Sequence

from delrec_hf.ranking import budget
from delrec_hf.ranking.tree import tree_width

TokenIds = list[int]


def cut(
    prompt: TokenIds,
    candidates: Sequence[TokenIds],
    virtual_tokens: int,
    at_once: int | None = None,
) -> Iterator[Sequence[TokenIds]]:
    """Yield the candidates in parts whose trees fit the budget of tokens, each one at least one.

    A part is no narrower than its prompt, which each part reads again.
    """
    trunk = tree_width(prompt, [], virtual_tokens)
    widest = min(at_once or budget.TOKENS, max(budget.TREE, 2 * trunk))
    start, width = 0, trunk
    for place, one in enumerate(candidates):
        if place > start and width + len(one) > widest:
            yield candidates[start:place]
            start, width = place, trunk
        width += len(one)
    yield candidates[start:]


def make_batches(
    prompts: Sequence[TokenIds],
    candidates: Sequence[Sequence[TokenIds]],
    virtual_tokens: int = 0,
    at_once: int | None = None,
) -> list[list[int]]:
    """Group rows of like length into batches under a budget of tokens.

    The grouping depends on the rows alone, so that each process of several computes what one
    process with as many threads would, bit for bit.

    Args:
        prompts: Token ids up to where the answer starts.
        candidates: For each prompt the candidates' token ids.
        virtual_tokens: How many stand in front of each prompt.
        at_once: The budget, where it is another one than `budget.TOKENS`.

    Returns:
        Lists of row numbers.
    """
    most = at_once or budget.TOKENS
    widths = [
        tree_width(prompt, offered, virtual_tokens)
        for prompt, offered in zip(prompts, candidates, strict=True)
    ]
    batches: list[list[int]] = []
    for row in sorted(range(len(widths)), key=lambda r: (-widths[r], r)):
        if batches and (len(batches[-1]) + 1) * widths[batches[-1][0]] <= most:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
