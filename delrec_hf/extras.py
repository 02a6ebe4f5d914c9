"""What commands need that only an extra of this package installs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from delrec_hf.errors import InputError


@contextmanager
def extra(command: str, packages: Sequence[str]) -> Iterator[None]:
    """Say in one line what a command needs that is not installed.

    Args:
        command: Its name, which is that of its extra.
        packages: What the extra installs.

    Raises:
        InputError: If what is imported within needs one of them, and it is not there.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in packages:
            raise
        raise InputError(
            f"`delrec {command}` needs {package}: `pip install 'delrec-hf[{command}]'` (in a "
            f"checkout: `pip install -c constraints.txt {' '.join(packages)}`)"
        ) from missing
