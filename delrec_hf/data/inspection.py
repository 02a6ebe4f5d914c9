"""What `prepare` would read and write, without writing it."""

import numpy as np

from delrec_hf.data.account import listed
from delrec_hf.data.config import DataConfig
from delrec_hf.data.interactions import read_interactions
from delrec_hf.data.sequences import Sequences, build_sequences, split_sequences
from delrec_hf.data.titles import readable_titles

_SHOWN_USERS, _SHOWN_ITEMS = 3, 12


def inspect(config: DataConfig) -> list[str]:
    """Read, check and split a dataset, and say what came of it.

    Args:
        config: What to read and how to cut it.

    Returns:
        Lines: which files and columns, what is left out, how much is left, the first sequences.

    Raises:
        InputError: Whatever `prepare` would refuse.
    """
    source = read_interactions(config)
    sequences = build_sequences(source.interactions, source.items, config.num_candidates)
    split = split_sequences(sequences, config)
    titles = readable_titles(source.items["title"][:], config.max_title_characters)
    left_out = {**source.left_out, **sequences.left_out}
    examples = ", ".join(f"{len(users)} {part}" for part, (users, _) in split.targets.items())
    return [
        "would read",
        *(f"  {line}" for line in source.reading),
        "would leave out",
        *(f"  {line}" for line in listed(left_out) or ["nothing"]),
        "would keep",
        f"  {len(sequences.user_ids)} users, {len(titles)} items "
        f"({len(titles) - len(np.unique(sequences.items))} of them met by nobody), "
        f"{len(sequences.items)} interactions",
        f"  examples: {examples}, of {config.num_candidates} candidates each",
        "first sequences, oldest item first",
        *_first(sequences, titles),
    ]


def _first(sequences: Sequences, titles: list[str]) -> list[str]:
    lines = []
    for row, user in enumerate(sequences.user_ids[:_SHOWN_USERS]):
        items = sequences.items[sequences.starts[row] : sequences.starts[row + 1]]
        shown = " | ".join(titles[item] for item in items[:_SHOWN_ITEMS])
        more = f" | ... ({len(items)} in all)" if len(items) > _SHOWN_ITEMS else ""
        lines.append(f"  {user}: {shown}{more}")
    return lines
