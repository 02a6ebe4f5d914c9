"""Where interactions and items lie: a file, a folder, or a dataset on the Hub."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import (
    Dataset,
    DatasetDict,
    concatenate_datasets,
    get_dataset_config_names,
    load_dataset,
)

from delrec_hf.data.config import TABLES, DataConfig
from delrec_hf.data.known import fetch_known, is_known
from delrec_hf.data.published import KNOWN
from delrec_hf.data.readers import FORMATS, Layout, Table, file_format, plain_name, read_table
from delrec_hf.data.toy_world import TOY_WORLDS, toy_world
from delrec_hf.errors import InputError, suggest
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

_NAMES = {
    "interactions": (
        *("interactions", "ratings", "reviews", "events", "transactions", "u.data", "behaviors"),
        *("transactions_train", "yelp_academic_dataset_review"),
    ),
    "items": (
        *("items", "movies", "books", "games", "products", "metadata", "u.item", "news"),
        *("articles", "yelp_academic_dataset_business"),
    ),
}
"""What files, configurations and splits that hold a table are called, the likeliest first."""

_PATTERNS = {
    "interactions": re.compile(
        r"reviews_.+|.+_reviews|ratings_.+|goodreads_interactions.*|.+\.inter"
    ),
    "items": re.compile(r"meta_.+|.+_games|goodreads_books.*|(?!u\.item$).+\.item"),
}
"""How publishers call them (Amazon, Steam, Goodreads, RecBole), where no file has a name above."""

_CORE = re.compile(r"^(?:reviews_|ratings_)?(?P<core>.+?)(?:_\d+)?(?:\.(?:train|valid|test))?$")
"""Amazon's `reviews_Toys_5` and `Toys_5` are of the items in `meta_Toys`."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def read_tables(config: DataConfig) -> tuple[Table, Table | None]:
    """Read the table of interactions and, where there is one, the table of items.

    Raises:
        InputError: If nothing is there, or nothing that can be told apart by name.
    """
    if config.path in TOY_WORLDS:
        world = toy_world(config.path)
        events = pa.Table.from_pandas(world.interactions, preserve_index=False)
        return Table(config.path, events), Table(config.path, pa.Table.from_pandas(world.items))
    path, interactions, items = config.path, config.interactions, config.items
    if is_published(path):
        found = fetch_known(path)
        path = str(found.folder)
        interactions = interactions or found.dataset.interactions
        items = items or found.dataset.items
        if config.domain != found.dataset.domain:
            logger.warning(
                "prompts speak of these items as `%s`; data.domain: %s would fit %s",
                config.domain,
                found.dataset.domain,
                config.path,
            )
    files = local_files(path, interactions, items)
    if files is None:
        return _from_hub(path, interactions, items)
    first, second = files
    layouts = [
        Layout(config.separator, config.encoding, config.names_of(table)) for table in TABLES
    ]
    logger.info("reading interactions from %s, items from %s", first, second or "the same file")
    return read_table(first, layouts[0]), None if second is None else read_table(second, layouts[1])


def is_published(path: str) -> bool:
    """Say whether a path is the name of a known dataset, and no file or folder here."""
    return is_known(path) and not Path(path).expanduser().exists()


def published_terms(path: str) -> str | None:
    """Return the terms of a known dataset; None for other data."""
    return KNOWN[path].terms if is_published(path) and path in KNOWN else None


def local_files(
    path: str, interactions: str | None = None, items: str | None = None
) -> tuple[Path, Path | None] | None:
    """Return the file of interactions and the one of items, if there is one; None: on the Hub.

    Args:
        path: A folder that holds both; a file of interactions, beside which the items are looked
            for; or the Hub id of a dataset, whose configurations, splits or files hold them.
        interactions: File name, or name on the Hub, where it is not `interactions`, `ratings`, ...
        items: The same for the items.

    Raises:
        InputError: If nothing is there, or nothing that can be told apart by name.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        first, second = _find(place, "interactions", interactions), _find(place, "items", items)
        if first is None and second is not None:
            first = _reviews_of(second, _tables_of(place))
        if first is None:
            raise InputError(
                f"folder {path} holds no interactions; found {_listing(place)}; name the file "
                f"interactions.csv (or {FORMATS}) or set data.interactions"
            )
        return first, None if second == first else second
    if place.is_file() and interactions is not None:
        raise InputError(
            f"data.path is the file {path} already; remove data.interactions, or set data.path to "
            "its folder"
        )
    if place.is_file():
        return place, _beside(place, items)
    if _HUB_ID.fullmatch(path) and file_format(place) is None:
        return None
    raise InputError(
        f"{path} does not exist; set data.path to a folder, a file of interactions, the Hub id "
        f"of a dataset, {' or '.join(TOY_WORLDS)}, or a known dataset such as movielens-1m"
        f"{suggest(path, [*TOY_WORLDS, *KNOWN])}"
    )


def _beside(place: Path, items: str | None) -> Path | None:
    """Return the file of items beside a file of interactions, if there is one."""
    if items is None:
        own = f"meta_{_core(place)}"
        found = [one for one in _tables_of(place.parent) if Path(plain_name(one)).stem == own]
        if len(found) == 1:
            return found[0]
    found_file = _find(place.parent, "items", items)
    is_other = found_file is not None and items is None and plain_name(found_file)[:5] == "meta_"
    return None if is_other or found_file == place else found_file


def _reviews_of(meta: Path, files: list[Path]) -> Path | None:
    """Return the file of interactions that Amazon's `meta_X` belongs to: `X`, `X_5`."""
    core = Path(plain_name(meta)).stem.removeprefix("meta_")
    found = [one for one in files if one != meta and _core(one) == core]
    return found[0] if len(found) == 1 else None


def _core(file: Path) -> str:
    match = _CORE.match(Path(plain_name(file)).stem)
    return match["core"] if match else ""


def _tables_of(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_file() and file_format(one))


def _find(folder: Path, table: str, given: str | None) -> Path | None:
    """Return the file of a folder that holds a table, if there is one."""
    if given is not None:
        path = folder / given
        if not path.is_file():
            raise InputError(
                f"data.{table} names {given}, but {folder} does not hold it; found "
                f"{_listing(folder)}"
            )
        return path
    files = _tables_of(folder)
    for name in (*_NAMES[table], None):
        found = [one for one in files if _is_called(plain_name(one), name, table)]
        if len(found) > 1:
            raise InputError(
                f"folder {folder} holds several files of {table} "
                f"({', '.join(one.name for one in found)}); set data.{table} to one of them"
            )
        if found:
            return found[0]
    return None


def _is_called(plain: str, name: str | None, table: str) -> bool:
    """Say whether a file has this name, with any ending; None: one of the publishers' names."""
    if name is None:
        pattern = _PATTERNS[table]
        return bool(pattern.fullmatch(Path(plain).stem) or pattern.fullmatch(plain))
    return name in (plain, Path(plain).stem)


def _listing(folder: Path) -> str:
    names = sorted(one.name for one in folder.iterdir())
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") if names else "nothing"


def _from_hub(repo: str, interactions: str | None, items: str | None) -> tuple[Table, Table | None]:
    try:
        configurations = get_dataset_config_names(repo)
        first = _hub_table(repo, configurations, "interactions", interactions)
        second = _hub_table(repo, configurations, "items", items)
    except InputError:
        raise
    except Exception as error:  # the Hub, its cache and datasets raise what they like
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{repo} is no folder or file here, and no dataset that can be loaded from the Hub "
            f"({type(error).__name__}: {reason}); set data.path to a folder, a file, a Hub id, or "
            f"{' or '.join(TOY_WORLDS)}{suggest(repo, [*TOY_WORLDS, *KNOWN])}"
        ) from error
    if first is None:
        raise InputError(
            f"dataset {repo} has the configurations {', '.join(configurations)}, none called "
            "interactions; set data.interactions to a configuration, split or file of it"
        )
    return first, second


def _hub_table(repo: str, configurations: list[str], table: str, given: str | None) -> Table | None:
    """Load the configuration, else the split, else the file of a Hub dataset that holds a table.

    A dataset of one configuration without a split of that name holds interactions in all splits.
    """
    wanted = (given,) if given else _NAMES[table]
    chosen = _first_of(wanted, configurations)
    if chosen is not None:
        return _joined(f"{repo} ({chosen})", load_dataset(repo, chosen))
    if given and file_format(Path(given)):
        return _joined(f"{repo} ({given})", load_dataset(repo, data_files=given))
    if len(configurations) == 1:
        parts = load_dataset(repo, configurations[0])
        split = _first_of(wanted, parts)
        if split is not None:
            return _joined(f"{repo} ({split})", {split: parts[split]})
        if table == "interactions" and not given:
            return _joined(repo, parts)
        configurations = list(parts)
    if given:
        raise InputError(
            f"data.{table} is {given}, but dataset {repo} has {', '.join(configurations)}"
        )
    return None


def _joined(label: str, parts: DatasetDict | dict[str, Any]) -> Table:
    rows: Dataset = concatenate_datasets(list(parts.values()))
    data: pa.Table = rows.with_format("arrow")[:]
    if not data.num_rows:
        raise InputError(f"dataset {label} holds no rows")
    return Table(label, data)


def _first_of(wanted: Iterable[str], there: Iterable[str]) -> str | None:
    names = set(there)
    return next((name for name in wanted if name in names), None)
