"""A known dataset is had from its publisher once, checked, and used without a network after."""

import gzip
import hashlib
import io
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from delrec_hf.data.known import SUMS, fetch_known, is_known
from delrec_hf.data.published import KNOWN
from delrec_hf.errors import InputError
from delrec_hf.instructions.templates import DOMAINS
from tests.data.publisher import Answer, Publisher, publishing

MOVIELENS = [name for name in KNOWN if name.startswith("movielens-")]
BEAUTY = "amazon-2023/All_Beauty"
SMALL = "movielens-latest-small"
IN_A_PROCESS = "import sys; from delrec_hf.data.known import fetch_known; fetch_known(sys.argv[1])"
DOCS = Path(__file__).parents[2] / "docs" / "known-data.md"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DELREC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A mirror of the publishers, with files in the shape of theirs."""
    with publishing() as server:
        monkeypatch.setenv("DELREC_MIRROR", f"{server.url}/mirror")
        yield server


def place(url: str) -> str:
    """Return where the mirror has what is published at an address."""
    return f"/mirror/{url.removeprefix('https://')}"


def movielens_zip(name: str, content: str = "1") -> bytes:
    """Return a zip as GroupLens makes it, with a few files that nobody asks for."""
    members = KNOWN[name].files[0].members
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in (
            *members,
            members[0].replace("ratings", "tags").replace("u.data", "u1.base"),
        ):
            archive.writestr(member, f"{member} {content}\n" * 1_000)
    return stream.getvalue()


def publish_small(publisher: Publisher, content: str = "1") -> bytes:
    body = movielens_zip(SMALL, content)
    url = KNOWN[SMALL].files[0].url
    publisher.files[place(url)] = body
    line = f"MD5 (ml-latest-small.zip) = {hashlib.md5(body).hexdigest()}\n"
    publisher.files[place(f"{url}.md5")] = line.encode()
    return body


def publish_beauty(publisher: Publisher, stars: int = 5) -> list[bytes]:
    review = b'{"user_id": "A", "parent_asin": "B", "timestamp": 1, "rating": %d}\n' % stars
    bodies = [gzip.compress(review * 50), gzip.compress(b'{"parent_asin": "B", "title": "Soap"}\n')]
    for file, body in zip(KNOWN[BEAUTY].files, bodies, strict=True):
        publisher.files[place(file.url)] = body
    return bodies


def publish(publisher: Publisher, name: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Publish a small MovieLens, and let the table know its size and checksum."""
    if name == SMALL:
        return publish_small(publisher)
    body, file = movielens_zip(name), KNOWN[name].files[0]
    kind = str(file.checksum).partition(":")[0]
    checksum = f"{kind}:{hashlib.new(kind, body).hexdigest()}"
    dataset = replace(KNOWN[name], files=(replace(file, size=len(body), checksum=checksum),))
    monkeypatch.setitem(KNOWN, name, dataset)
    publisher.files[place(file.url)] = body
    return body


def visible(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))


@pytest.mark.parametrize("name", MOVIELENS)
def test_movielens_comes_as_its_publisher_has_it(
    publisher: Publisher, name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = publish(publisher, name, monkeypatch)
    found = fetch_known(name)
    assert found.folder == home / "data" / name
    names = (found.dataset.interactions, found.dataset.items)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        for member, kept in zip(found.dataset.files[0].members, names, strict=True):
            assert (found.folder / kept).read_bytes() == archive.read(member)
    others = {"ml-latest-small.zip.md5"} if name == SMALL else set()
    archive_name = found.dataset.files[0].name
    assert set(visible(found.folder)) == {*names, SUMS, archive_name} | others


def test_amazon_stays_compressed(publisher: Publisher) -> None:
    bodies = publish_beauty(publisher)
    found = fetch_known(BEAUTY)
    names = [found.dataset.interactions, found.dataset.items]
    assert names == ["All_Beauty.jsonl.gz", "meta_All_Beauty.jsonl.gz"]
    assert [(found.folder / name).read_bytes() for name in names] == bodies
    assert visible(found.folder) == sorted([*names, SUMS])


def test_a_dataset_is_asked_for_once_and_then_needs_no_network(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_beauty(publisher)
    publish_small(publisher)
    for name in (BEAUTY, SMALL):
        fetch_known(name)
        fetch_known(name)
    assert len(publisher.asked) == len(set(publisher.asked)) == 4
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (BEAUTY, SMALL):
        fetch_known(name)


def test_a_mirrors_file_must_be_the_publishers(publisher: Publisher, home: Path) -> None:
    publisher.files[place(KNOWN["movielens-1m"].files[0].url)] = movielens_zip("movielens-1m")
    with pytest.raises(InputError, match="bytes, expected 5917549: it has changed at its source"):
        fetch_known("movielens-1m")
    (home / "data" / "movielens-1m" / "ml-1m.zip").write_bytes(bytes(5917549))
    with pytest.raises(InputError, match="expected a6898adb50b9ca05aa231689da44c217cb524e7ebd39d2"):
        fetch_known("movielens-1m")


def test_a_file_that_changes_is_checked_against_the_md5_of_the_day(publisher: Publisher) -> None:
    publish_small(publisher)
    url = KNOWN[SMALL].files[0].url
    good = publisher.files[place(f"{url}.md5")]
    publisher.files[place(f"{url}.md5")] = b"%s  ml-latest-small.zip\n" % (b"0" * 32)
    with pytest.raises(InputError, match=f"its md5 is .*, expected {'0' * 32}"):
        fetch_known(SMALL)
    publisher.files[place(f"{url}.md5")] = b"<html>"
    with pytest.raises(InputError, match="holds no md5"):
        fetch_known(SMALL)
    publisher.files[place(f"{url}.md5")] = good.split()[-1].upper() + b"  ml-latest-small.zip\n"
    fetch_known(SMALL)


def test_a_new_version_replaces_one_that_was_removed_and_is_told(
    publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    publish_small(publisher)
    publish_beauty(publisher)
    small, beauty = fetch_known(SMALL).folder, fetch_known(BEAUTY).folder
    for path in (
        small / "ml-latest-small.zip",
        small / "ratings.csv",
        beauty / "All_Beauty.jsonl.gz",
    ):
        path.unlink()
    publish_small(publisher, "2")
    publish_beauty(publisher, stars=4)
    fetch_known(SMALL)
    fetch_known(BEAUTY)
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert [text.split()[0] for text in told] == [
        "ratings.csv",
        "movies.csv",
        "All_Beauty.jsonl.gz",
    ]
    assert (small / "movies.csv").read_text().endswith("2\n")
    assert b'"rating": 4' in gzip.decompress((beauty / "All_Beauty.jsonl.gz").read_bytes())


def test_a_file_that_changed_here_is_refused_until_it_is_removed(publisher: Publisher) -> None:
    publish_beauty(publisher)
    path = fetch_known(BEAUTY).folder / "All_Beauty.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(InputError, match=r"is not what it was when it came.*remove it to have it"):
        fetch_known(BEAUTY)
    path.unlink()
    fetch_known(BEAUTY)
    publish_small(publisher)
    path = fetch_known(SMALL).folder / "ratings.csv"
    path.write_text("userId,movieId\n")
    with pytest.raises(InputError, match="is not what it was when it came"):
        fetch_known(SMALL)
    path.unlink()
    publisher.files.clear()  # the zip is here
    fetch_known(SMALL)
    assert path.stat().st_size > 1_000


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
def test_the_checksums_kept_are_those_of_sha256sum(publisher: Publisher) -> None:
    publish_small(publisher)
    folder = fetch_known(SMALL).folder
    checked = subprocess.run(
        ["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, text=True, check=True
    )
    assert checked.stdout.splitlines() == ["movies.csv: OK", "ratings.csv: OK"]


def test_the_log_names_terms_and_what_was_checked(
    publisher: Publisher, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    publish(publisher, "movielens-100k", monkeypatch)
    publish_beauty(publisher)
    fetch_known("movielens-100k")
    assert "no commercial use and no redistribution without permission" in caplog.text
    assert (
        f"ml-100k.zip is as published ({KNOWN['movielens-100k'].files[0].checksum})" in caplog.text
    )
    caplog.clear()
    fetch_known(BEAUTY)
    assert "cite Hou et al. 2024" in caplog.text
    assert caplog.text.count("cannot be checked, its publisher gives no checksum") == 2


def test_offline_one_line_names_every_file_and_its_place(
    publisher: Publisher, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (BEAUTY, SMALL, "movielens-1m"):
        with pytest.raises(InputError, match=f"^{name} is not here and HF_HUB_OFFLINE") as error:
            fetch_known(name)
        text = str(error.value)
        assert "\n" not in text
        assert all(url in text for file in KNOWN[name].files for url in file.needed)
        assert str(home / "data" / name) in text
    assert publisher.asked == []
    assert not home.exists()


def test_files_put_there_by_hand_are_checked_and_used(
    publisher: Publisher, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = publish(publisher, "movielens-10m", monkeypatch)
    small, bodies = publish_small(publisher), publish_beauty(publisher)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    by_hand = {
        "movielens-10m/ml-10m.zip": body,
        f"{SMALL}/ml-latest-small.zip": small,
        f"{SMALL}/ml-latest-small.zip.md5": hashlib.md5(small).hexdigest().encode(),
        f"{BEAUTY}/All_Beauty.jsonl.gz": bodies[0],
    }
    for name, content in by_hand.items():
        (home / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "data" / name).write_bytes(content)
    assert (fetch_known("movielens-10m").folder / "ratings.dat").is_file()
    assert (fetch_known(SMALL).folder / "ratings.csv").is_file()
    with pytest.raises(InputError, match=r"meta_All_Beauty\.jsonl\.gz") as error:
        fetch_known(BEAUTY)
    assert "/All_Beauty.jsonl.gz" not in str(error.value)
    assert publisher.asked == []
    monkeypatch.delenv("HF_DATASETS_OFFLINE")
    fetch_known(BEAUTY)
    assert publisher.asked_for("All_Beauty") == publisher.asked_for("meta_All_Beauty") == 1


def test_a_broken_zip_put_there_by_hand_is_refused(
    publisher: Publisher, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(publisher, "movielens-100k", monkeypatch)
    folder = home / "data" / "movielens-100k"
    folder.mkdir(parents=True)
    (folder / "ml-100k.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"it has 2 bytes, expected .* remove it to download it"):
        fetch_known("movielens-100k")


def test_what_a_killed_process_left_is_finished(publisher: Publisher) -> None:
    publish_small(publisher)
    folder = fetch_known(SMALL).folder
    (folder / SUMS).unlink()
    (folder / "movies.csv").unlink()
    (folder / "ratings.csv").write_text("half of it")
    fetch_known(SMALL)
    assert (folder / "ratings.csv").stat().st_size > 1_000
    assert len(publisher.asked) == 2


def test_two_processes_at_once_ask_once(publisher: Publisher) -> None:
    publish_beauty(publisher)
    publisher.answers = [Answer(pause=1), Answer(pause=1)]
    command = [sys.executable, "-c", IN_A_PROCESS, BEAUTY]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [one.wait() for one in running] == [0, 0]
    assert len(publisher.asked) == 2


def test_threads_at_once_unpack_once(
    publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publish_small(publisher)
    publisher.answers = [Answer(), Answer(pause=0.5)]
    with ThreadPoolExecutor(3) as pool:
        folders = {one.folder for one in pool.map(fetch_known, 3 * [SMALL])}
    assert len(folders) == 1
    assert len(publisher.asked) == 2
    assert caplog.text.count("ml-latest-small.zip is as published") == 1


def test_names_that_are_not_known_get_the_nearest() -> None:
    nearest = {
        "amazon-2023/All_Beuty": BEAUTY,
        "amazon-2023/Beauty": BEAUTY,
        "amazon-2014/beauty": "amazon-2014/Beauty",
        "MovieLens-100K": "movielens-100k",
        "movielens-10": "movielens-10m",
    }
    for name, meant in nearest.items():
        assert is_known(name)
        with pytest.raises(InputError, match=rf"{name} is not known; did you mean `{meant}`\?"):
            fetch_known(name)
    with pytest.raises(InputError, match=r"expected one of movielens-100k, movielens-1m, .*-32m"):
        fetch_known("movielens-netflix")


def test_other_names_are_left_to_the_hub() -> None:
    assert all(is_known(name) for name in KNOWN)
    for name in ("toy", "OWNER/movielens", "movielens", "amazon/reviews", "data/amazon-2023/Books"):
        assert not is_known(name)


def test_a_mirror_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELREC_MIRROR", "mirror.example")
    with pytest.raises(InputError, match=r"DELREC_MIRROR is mirror\.example; expected an address"):
        fetch_known(BEAUTY)


def test_the_table_is_sound() -> None:
    lengths = {"sha256": 64, "md5": 32}
    for name, dataset in KNOWN.items():
        assert dataset.domain in DOMAINS
        assert "https://" in dataset.terms
        assert "\n" not in dataset.terms
        kept = [one for file in dataset.files for one in file.kept]
        assert [dataset.interactions, dataset.items] == kept, name
        for file in dataset.files:
            assert file.url.startswith("https://")
            kind, _, digits = (file.checksum or f"md5:{'0' * 32}").partition(":")
            assert re.fullmatch(f"[0-9a-f]{{{lengths[kind]}}}", digits)


def test_the_page_on_known_data_says_what_the_table_says() -> None:
    page = DOCS.read_text(encoding="utf-8")
    for name, dataset in KNOWN.items():
        family, _, category = name.partition("/")
        assert (category or family) in page
        for file in dataset.files:
            assert file.checksum is None or file.checksum.partition(":")[2] in page
            assert file.size is None or f"{file.size:,}" in page
