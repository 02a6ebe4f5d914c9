"""Copies of public datasets, had from their publishers once and checked at each use."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from delrec_hf.data.archives import unpack
from delrec_hf.data.downloads import download, file_digest, locked, refuse_offline
from delrec_hf.data.published import KNOWN, KnownDataset, PublishedFile
from delrec_hf.errors import InputError
from delrec_hf.files import write_text
from delrec_hf.hashes import cached_content_hash, content_hash_of
from delrec_hf.home import home
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

SUMS = "SHA256SUMS"
"""Holds what the sha256 of a dataset's files were when they came; `sha256sum -c` reads it."""

_FAMILIES = ("movielens-", "amazon-2014/", "amazon-2023/")


@dataclass(frozen=True)
class KnownFolder:
    """A known dataset on this machine.

    Attributes:
        folder: Holds the publisher's files as they are, members of a zip unpacked.
        dataset: Says which of its files are what, and under what terms.
    """

    folder: Path
    dataset: KnownDataset


def is_known(name: str) -> bool:
    """Say whether a name is that of a known dataset, or can only be meant as one."""
    return name.lower().startswith(_FAMILIES)


def fetch_known(name: str) -> KnownFolder:
    """Return the folder of a known dataset; what is not there yet comes from its publisher.

    The folder is `home()/data/NAME`. Files that the user put there are checked and used. Files that
    came earlier are used, without a request, as long as they are what they were.

    Args:
        name: One of `KNOWN`.

    Raises:
        InputError: If the name is not known, or a file cannot be had or is not the right one.
    """
    if name not in KNOWN:
        raise InputError(_unknown(name))
    dataset = KNOWN[name]
    try:
        folder = home() / "data" / name
    except RuntimeError as error:
        raise InputError(
            f"there is no home folder ({error}); name a folder by DELREC_HOME"
        ) from error
    logger.info("%s is %s", name, dataset.terms)
    missing = [file for file in dataset.files if not _is_whole(folder, file)]
    needed = [url for file in missing for url in file.needed]
    absent = [url for url in needed if not (folder / _last(url)).exists()]
    by_hand = (
        f"download {' and '.join(absent or needed)} elsewhere and put what comes into {folder}"
    )
    if absent:
        refuse_offline(name, by_hand)
    for file in missing:
        with locked(folder / SUMS):
            if not _is_whole(folder, file):  # another process may have been faster
                _fetch(file, folder, by_hand)
    return KnownFolder(folder, dataset)


def _unknown(name: str) -> str:
    family = next((one for one in _FAMILIES if name.lower().startswith(one)), "")
    among = {one[len(family) :].lower(): one for one in KNOWN if one.startswith(family)}
    near = get_close_matches(name[len(family) :].lower(), among, n=1)
    if near:
        return f"dataset {name} is not known; did you mean `{among[near[0]]}`?"
    return f"dataset {name} is not known; expected one of {', '.join(among.values())}"


def _fetch(file: PublishedFile, folder: Path, by_hand: str) -> None:
    path = folder / file.name
    checksum = file.checksum if file.md5_url is None else _present_md5(file, folder, by_hand)
    download(_mirrored(file.url), path, size=file.size, checksum=checksum, by_hand=by_hand)
    if checksum is not None:
        logger.info("%s is as published (%s)", file.name, checksum)
    else:
        logger.info(
            "%s cannot be checked, its publisher gives no checksum; from now on it must stay as it "
            "is (%s)",
            file.name,
            SUMS,
        )
    if file.members:
        unpack(path, file.members, folder)
    _record(folder, file.kept)


def _present_md5(file: PublishedFile, folder: Path, by_hand: str) -> str:
    """Return the md5 that the publisher gives beside the file, for a file that changes."""
    path = folder / _last(str(file.md5_url))
    if not (folder / file.name).exists():
        path.unlink(missing_ok=True)  # it may be that of an earlier version
    download(_mirrored(str(file.md5_url)), path, by_hand=by_hand)
    found = re.search(r"\b[0-9a-fA-F]{32}\b", path.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        raise InputError(f"{path} from {file.md5_url} holds no md5; remove it and try again")
    return f"md5:{found[0].lower()}"


def _mirrored(url: str) -> str:
    """Return where a file is to be had: at its publisher, or at the mirror that is set."""
    mirror = os.environ.get("DELREC_MIRROR", "")
    if not mirror:
        return url
    if not mirror.startswith(("http://", "https://")):
        raise InputError(
            f"DELREC_MIRROR is {mirror}; expected an address such as https://mirror.example/data"
        )
    return f"{mirror.rstrip('/')}/{url.partition('://')[2]}"


def _is_whole(folder: Path, file: PublishedFile) -> bool:
    """Say whether a file, or what is taken out of it, is there and as it was when it came."""
    sums = _sums(folder)
    for name in file.kept:
        path = folder / name
        if name not in sums or not path.is_file():
            return False
        if cached_content_hash(path) != content_hash_of(name, sums[name]):
            raise InputError(
                f"{path} is not what it was when it came ({SUMS} beside it); remove it to have it "
                "anew, or keep your version in a folder of your own and set data.path to that"
            )
    return True


def _record(folder: Path, names: Iterable[str]) -> None:
    sums = _sums(folder)
    for name in names:
        digest = file_digest(folder / name, "sha256")
        if sums.get(name, digest) != digest:
            logger.warning("%s is not the version that was here before (%s)", name, sums[name])
        sums[name] = digest
    write_text(folder / SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def _sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (.+)$", text, re.M)}


def _last(url: str) -> str:
    return url.rpartition("/")[2]
