"""Public datasets: where their publishers keep them, checksums, and terms."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublishedFile:
    """A file as its publisher offers it.

    Attributes:
        url: Where it is; its last part is the name that it keeps.
        members: What is taken out of it, if it is a zip.
        size: Its bytes, if they are known and stay.
        checksum: `sha256:...` or `md5:...`, if it is known and stays.
        md5_url: Where the publisher keeps its present md5, for a file that changes.
    """

    url: str
    members: tuple[str, ...] = ()
    size: int | None = None
    checksum: str | None = None
    md5_url: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the files that it is used as."""
        return tuple(Path(member).name for member in self.members) or (self.name,)

    @property
    def needed(self) -> tuple[str, ...]:
        """Where everything is that must be had for it."""
        return (self.url,) if self.md5_url is None else (self.url, self.md5_url)


@dataclass(frozen=True)
class KnownDataset:
    """A public dataset.

    Attributes:
        files: Its files.
        interactions: Name of the file of interactions.
        items: Name of the file of items.
        domain: What the items are, as `data.domain` says it.
        terms: Under what conditions it may be used, what to cite, and where that is written.
    """

    files: tuple[PublishedFile, ...]
    interactions: str
    items: str
    domain: str
    terms: str


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_AMAZON_2023 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw"
_AMAZON_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"

_AMAZON_2023_TERMS = (
    "Amazon Reviews 2023: no licence text; cite Hou et al. 2024, https://arxiv.org/abs/2403.03952; "
    "see https://amazon-reviews-2023.github.io"
)
_AMAZON_2014_TERMS = (
    "Amazon product data 2014: no licence text; cite He & McAuley 2016, "
    "https://arxiv.org/abs/1602.01585, and McAuley et al. 2015, https://arxiv.org/abs/1506.04757; "
    "see https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html"
)

# What the pages named in the terms list; they give neither sizes nor checksums.
_AMAZON_2023_CATEGORIES = (  # noqa: SIM905 - words read better than lines
    "All_Beauty Amazon_Fashion Appliances Arts_Crafts_and_Sewing Automotive Baby_Products "
    "Beauty_and_Personal_Care Books CDs_and_Vinyl Cell_Phones_and_Accessories "
    "Clothing_Shoes_and_Jewelry Digital_Music Electronics Gift_Cards Grocery_and_Gourmet_Food "
    "Handmade_Products Health_and_Household Health_and_Personal_Care Home_and_Kitchen "
    "Industrial_and_Scientific Kindle_Store Magazine_Subscriptions Movies_and_TV "
    "Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies Software "
    "Sports_and_Outdoors Subscription_Boxes Tools_and_Home_Improvement Toys_and_Games Video_Games "
    "Unknown"
).split()
_AMAZON_2014_CATEGORIES = (  # noqa: SIM905
    "Amazon_Instant_Video Apps_for_Android Automotive Baby Beauty Books CDs_and_Vinyl "
    "Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics "
    "Grocery_and_Gourmet_Food Health_and_Personal_Care Home_and_Kitchen Kindle_Store "
    "Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies "
    "Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games Video_Games"
).split()

_SHAREABLE = "no commercial use without permission, redistribution under the same terms alone"

_DOMAINS = {
    "Amazon_Instant_Video": "movie",
    "Books": "book",
    "Digital_Music": "music",
    "Kindle_Store": "book",
    "Movies_and_TV": "movie",
    "Video_Games": "game",
}
"""What the items of Amazon's categories are; those of all others are products."""


def _movielens(
    name: str,
    size: int | None,
    checksum: str | None,
    members: tuple[str, str],
    readme: str,
    conditions: str = "no commercial use and no redistribution without permission",
) -> KnownDataset:
    url = f"{_GROUPLENS}/{name}.zip"
    md5_url = f"{url}.md5" if checksum is None else None
    file = PublishedFile(url, members, size, checksum, md5_url)
    terms = (
        "MovieLens: for research, with acknowledgement (Harper & Konstan 2015, "
        f"https://doi.org/10.1145/2827872); {conditions}; "
        f"see {_GROUPLENS}/{readme}"
    )
    interactions, items = file.kept
    return KnownDataset((file,), interactions, items, "movie", terms)


def _amazon(category: str, reviews: str, items: str, terms: str) -> KnownDataset:
    files = (PublishedFile(reviews), PublishedFile(items))
    domain = _DOMAINS.get(category, "product")
    return KnownDataset(files, files[0].name, files[1].name, domain, terms)


# Sizes and sha256 are those of github.com/tensorflow/datasets,
# tensorflow_datasets/url_checksums/movielens.txt; sizes and md5 those of
# github.com/lenskit/lenskit-codex, movielens/ML10M/ml-10m.zip.dvc and ML32M/ml-32m.zip.dvc, and the
# same md5 lie beside GroupLens' files. ml-latest-small changes: its md5 is asked for when it comes.
KNOWN = {
    "movielens-100k": _movielens(
        "ml-100k",
        4924029,
        "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        ("ml-100k/u.data", "ml-100k/u.item"),
        "ml-100k-README.txt",
    ),
    "movielens-1m": _movielens(
        "ml-1m",
        5917549,
        "sha256:a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        ("ml-1m/ratings.dat", "ml-1m/movies.dat"),
        "ml-1m-README.txt",
    ),
    "movielens-10m": _movielens(
        "ml-10m",
        65566137,
        "md5:ce571fd55effeba0271552578f2648bd",
        ("ml-10M100K/ratings.dat", "ml-10M100K/movies.dat"),
        "ml-10m-README.html",
    ),
    "movielens-20m": _movielens(
        "ml-20m",
        198702078,
        "sha256:96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        ("ml-20m/ratings.csv", "ml-20m/movies.csv"),
        "ml-20m-README.html",
    ),
    "movielens-25m": _movielens(
        "ml-25m",
        261978986,
        "sha256:8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        ("ml-25m/ratings.csv", "ml-25m/movies.csv"),
        "ml-25m-README.html",
    ),
    "movielens-32m": _movielens(
        "ml-32m",
        238950008,
        "md5:d472be332d4daa821edc399621853b57",
        ("ml-32m/ratings.csv", "ml-32m/movies.csv"),
        "ml-32m-README.html",
        conditions=_SHAREABLE,
    ),
    "movielens-latest-small": _movielens(
        "ml-latest-small",
        None,
        None,
        ("ml-latest-small/ratings.csv", "ml-latest-small/movies.csv"),
        "ml-latest-small-README.html",
        conditions=_SHAREABLE,
    ),
    **{
        f"amazon-2023/{one}": _amazon(
            one,
            f"{_AMAZON_2023}/review_categories/{one}.jsonl.gz",
            f"{_AMAZON_2023}/meta_categories/meta_{one}.jsonl.gz",
            _AMAZON_2023_TERMS,
        )
        for one in _AMAZON_2023_CATEGORIES
    },
    # The reviews of the 5-core, which the literature means by "Beauty" and the like.
    **{
        f"amazon-2014/{one}": _amazon(
            one,
            f"{_AMAZON_2014}/reviews_{one}_5.json.gz",
            f"{_AMAZON_2014}/meta_{one}.json.gz",
            _AMAZON_2014_TERMS,
        )
        for one in _AMAZON_2014_CATEGORIES
    },
}
"""The known datasets by the names that `data.path` takes."""
