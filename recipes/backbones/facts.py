"""What a backbone is taught about titles: never who chose what."""

import numpy as np
from skills import Facts

from delrec_hf.data.toy_world import toy_world


def toy_facts() -> Facts:
    """Return what the toy world's titles mean: genre, franchise and part."""
    items = toy_world().items
    genre = items["genre"].to_numpy()
    franchise = items["franchise"].to_numpy()
    part = items["part"].to_numpy()
    titles = items["title"].tolist()
    one_series = franchise[:, None] == franchise[None, :]
    step = part[None, :] - part[:, None]
    sentences = [(f"What is the genre of {title}?", str(genre[k])) for k, title in enumerate(titles)]
    following = one_series & (step == 1)
    sentences += [
        (f"What is the next part of {titles[a]}?", titles[b]) for a, b in np.argwhere(following)
    ]
    return Facts(
        titles=titles,
        relations={
            "the next part of": following,
            "the previous part of": one_series & (step == -1),
            "the series of": one_series & (step != 0),
            "the genre of": genre[:, None] == genre[None, :],
        },
        labels={str(name): genre == name for name in np.unique(genre)},
        sentences=sentences,
    )
