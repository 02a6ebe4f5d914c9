"""A hash is that of the present content, whoever hashed it before."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from delrec_hf.hashes import cached_content_hash, content_hash, content_hash_of

HASH = (
    "import sys; from pathlib import Path; from delrec_hf.hashes import cached_content_hash\n"
    "print(*(cached_content_hash(Path(place)) for place in sys.argv[1:]))\n"
)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders with a file that was written a while ago: what was written just now is not kept."""
    root = tmp_path_factory.mktemp("settled")
    for number in range(20):
        folder = root / str(number) / "weights"
        folder.mkdir(parents=True)
        (folder / "a.bin").write_bytes(b"one%d" % number)
    time.sleep(2.1)
    return iter(sorted(root.glob("*/weights")))


@pytest.fixture
def weights(settled: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of these folders, and no cache beside it."""
    folder = next(settled)
    monkeypatch.setenv("DELREC_HOME", str(folder.parent / "home"))
    return folder


def test_the_hash_of_a_file_follows_from_its_name_and_sha256(weights: Path) -> None:
    path = weights / "a.bin"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert content_hash_of(path.name, sha256) == content_hash(path)


def _kept(folder: Path) -> list[list[str]]:
    kept = folder.parent / "home" / "content_hashes.json"
    return list(json.loads(kept.read_text()).values()) if kept.is_file() else []


def _in_a_process(*places: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HASH, *map(str, places)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_hash_is_read_from_the_cache_while_the_files_stay_as_they_are(weights: Path) -> None:
    expected = content_hash(weights)
    assert cached_content_hash(weights) == expected
    assert [digest for _, digest in _kept(weights)] == [expected]
    kept = weights.parent / "home" / "content_hashes.json"
    kept.write_text(kept.read_text().replace(expected, "from the cache"))
    assert _in_a_process(weights).communicate()[0].strip() == "from the cache"
    assert cached_content_hash(weights) == expected  # this process remembers


@pytest.mark.parametrize(("added", "keeps_time"), [(b"!", True), (b"", False), (b"", True)])
def test_changed_content_is_seen_by_its_size_or_times(
    weights: Path, added: bytes, keeps_time: bool
) -> None:
    path = weights / "a.bin"
    found, before = cached_content_hash(weights), path.stat()
    assert _kept(weights)
    path.write_bytes(path.read_bytes()[::-1] + added)
    if keeps_time:  # as a copy does that keeps times
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cached_content_hash(weights) == content_hash(weights) != found


def test_a_new_file_in_a_folder_is_seen(weights: Path) -> None:
    found = cached_content_hash(weights)
    (weights / "b.bin").write_bytes(b"another")
    assert cached_content_hash(weights) == content_hash(weights) != found


def test_processes_that_hash_at_once_leave_a_cache_that_can_be_read(
    weights: Path, settled: Iterator[Path]
) -> None:
    places = [weights, *(next(settled) for _ in range(5))]
    expected = " ".join(map(content_hash, places))
    running = [_in_a_process(*places) for _ in range(3)]
    assert [one.communicate()[0].strip() for one in running] == [expected] * 3
    assert _kept(weights)
    assert {digest for _, digest in _kept(weights)} <= set(expected.split())


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"a": 1}', '{"a": [1, 2, 3]}'])
def test_a_broken_cache_is_written_anew(weights: Path, content: str) -> None:
    kept = weights.parent / "home" / "content_hashes.json"
    kept.parent.mkdir()
    kept.write_text(content)
    assert cached_content_hash(weights) == content_hash(weights)
    assert [digest for _, digest in _kept(weights)] == [content_hash(weights)]


def test_without_a_place_for_the_cache_hashes_are_right(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DELREC_HOME", str(weights / "a.bin" / "no folder"))
    assert cached_content_hash(weights) == content_hash(weights)


def test_places_that_are_gone_leave_the_cache(weights: Path) -> None:
    cached_content_hash(weights)
    moved = weights.rename(weights.with_name("moved"))
    assert cached_content_hash(moved) == content_hash(moved)
    assert len(_kept(moved)) == 1
