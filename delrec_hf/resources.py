"""Where the recipes and card templates lie, in a checkout and in an installed wheel."""

from pathlib import Path

import jinja2


def resource(name: str) -> Path:
    """Return the path of a file or folder that ships with the toolkit.

    Args:
        name: Its path in the repository: `recipes/...` or `hub_cards/...`.

    Raises:
        FileNotFoundError: If this installation does not hold it.

    >>> resource("recipes/accelerate_configs/cpu.yaml").name
    'cpu.yaml'
    """
    package = Path(__file__).resolve().parent
    for place in (package, package.parent):  # the wheel keeps them inside the package
        if (place / name).exists():
            return place / name
    raise FileNotFoundError(
        f"`{name}` is not part of this installation of delrec_hf; install it again from its wheel "
        "or from a full checkout"
    )


def card_environment() -> jinja2.Environment:
    """Return what the cards in `hub_cards` are written with: Markdown, nothing may be undefined."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource("hub_cards")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: each card's own filters keep values apart
    )
