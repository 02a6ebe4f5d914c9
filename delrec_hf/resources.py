"""Where the recipes and card templates lie, in a checkout and in an installed wheel."""

from pathlib import Path


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
