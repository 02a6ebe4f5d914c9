"""What comes out of a zip is whole, or nothing comes out."""

import zipfile
from pathlib import Path

import pytest

from delrec_hf.data.archives import unpack
from delrec_hf.errors import InputError

RATINGS = b"1::2::5::978300760\n" * 5_000


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("ml-1m/ratings.dat", RATINGS)
        written.writestr("ml-1m/movies.dat", b"2::Jumanji (1995)::Adventure\n")
        written.writestr("ml-1m/users.dat", b"1::F::1::10::48067\n")
    return path


def test_the_wanted_members_alone_come_out(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    unpack(archive, ["ml-1m/ratings.dat", "ml-1m/movies.dat"], folder)
    assert sorted(one.name for one in folder.iterdir()) == ["movies.dat", "ratings.dat"]
    assert (folder / "ratings.dat").read_bytes() == RATINGS


@pytest.mark.parametrize("fault", ["cut", "changed", "empty", "no zip"])
def test_a_broken_zip_ends_in_one_line_and_leaves_nothing(
    archive: Path, tmp_path: Path, fault: str
) -> None:
    whole = archive.read_bytes()
    half = len(whole) // 2
    broken = {
        "cut": whole[:half],
        "changed": whole[:60] + bytes([whole[60] ^ 1]) + whole[61:],
        "empty": b"",
        "no zip": b"<html>Not Found</html>",
    }
    archive.write_bytes(broken[fault])
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(InputError, match="remove it to download it again") as error:
        unpack(archive, ["ml-1m/ratings.dat"], folder)
    assert str(archive) in str(error.value)
    assert "\n" not in str(error.value)
    assert list(folder.iterdir()) == []


def test_a_missing_member_is_named(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ml-1m.zip does not hold .*ml-1m/tags.dat"):
        unpack(archive, ["ml-1m/tags.dat"], tmp_path)
