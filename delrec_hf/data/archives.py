"""Files out of zip archives."""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from delrec_hf.errors import InputError
from delrec_hf.logging import byte_progress

_BLOCK = 1 << 20


def unpack(archive: Path, members: Iterable[str], folder: Path) -> None:
    """Put some members of a zip into a folder, under the last part of their names.

    Each is written aside, and renamed when it is whole and its CRC is right.

    Raises:
        InputError: If the archive is damaged, or does not hold a member.
    """
    try:
        with ZipFile(archive) as opened:
            for member in members:
                _unpack_one(opened, member, folder / Path(member).name)
    except KeyError as error:
        raise InputError(
            f"{archive} does not hold {error.args[0]}; remove it to download it again"
        ) from error
    except (BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise InputError(
            f"{archive} is not a zip that can be read ({' '.join(str(error).split())}); remove it "
            "to download it again"
        ) from error


def _unpack_one(opened: ZipFile, member: str, path: Path) -> None:
    size = opened.getinfo(member).file_size
    aside = path.with_name(f".{path.name}.writing")
    try:
        with (
            opened.open(member) as source,
            aside.open("wb") as target,
            byte_progress(desc=f"unpacking {path.name}", total=size) as bar,
        ):
            while block := source.read(_BLOCK):
                target.write(block)
                bar.update(len(block))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
