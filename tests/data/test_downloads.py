"""A download is the whole, right file under its name, or one line that says what to do."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from urllib3.util import Retry

from delrec_hf.data import downloads
from delrec_hf.data.downloads import download
from delrec_hf.errors import InputError
from tests.data.publisher import Answer, Publisher, publishing

BODY = bytes(range(256)) * 12_000  # three blocks
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
IN_A_PROCESS = (
    "import sys; from pathlib import Path; from delrec_hf.data.downloads import download\n"
    "download(sys.argv[1], Path(sys.argv[2]))\n"
)


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing() as server:
        server.files["/set.zip"] = BODY
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "set.zip"


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tries as ever, without the pauses between them."""
    monkeypatch.setattr(downloads, "RETRIES", Retry(total=5, backoff_factor=0))


def visible(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir() if not one.name.startswith("."))


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def process(publisher: Publisher, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", IN_A_PROCESS, f"{publisher.url}/set.zip", path])


def test_a_file_comes_whole_and_a_second_call_asks_nothing(
    publisher: Publisher, path: Path
) -> None:
    for _ in range(2):
        download(f"{publisher.url}/set.zip", path, size=len(BODY), checksum=SHA256)
        assert path.read_bytes() == BODY
        assert visible(path) == ["set.zip"]
    assert publisher.asked == ["/set.zip"]


def test_the_rest_alone_is_asked_for_when_a_connection_ends_early(
    publisher: Publisher, path: Path
) -> None:
    publisher.answers = [Answer(cut=1_000_000), Answer(cut=500_000), Answer()]
    download(f"{publisher.url}/set.zip", path, checksum=SHA256)
    assert path.read_bytes() == BODY
    assert publisher.asked == ["/set.zip", "/set.zip bytes=1000000-", "/set.zip bytes=1500000-"]
    assert visible(path) == ["set.zip"]


def test_a_download_starts_anew_where_the_server_knows_no_ranges(
    publisher: Publisher, path: Path
) -> None:
    publisher.ranges = False
    publisher.answers = [Answer(cut=1_000_000), Answer()]
    download(f"{publisher.url}/set.zip", path, checksum=SHA256)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("server", ["heeds If-Range", "ignores If-Range", "names no version"])
def test_halves_of_two_versions_are_never_joined(
    publisher: Publisher, path: Path, server: str
) -> None:
    publisher.heeds_if_range = server == "heeds If-Range"
    publisher.etag = server != "names no version"
    publisher.answers = [Answer(cut=1_000_000, then=BODY[::-1])]
    download(f"{publisher.url}/set.zip", path)
    assert path.read_bytes() == BODY[::-1]
    assert len(publisher.asked) == (3 if server == "ignores If-Range" else 2)


def test_a_date_tells_versions_apart_where_there_is_no_strong_tag(
    publisher: Publisher, path: Path
) -> None:
    publisher.etag, publisher.heeds_if_range = False, False
    publisher.headers = {"ETag": 'W/"1"', "Last-Modified": "Wed, 26 Sep 2018 21:50:51 GMT"}
    publisher.answers = [Answer(cut=1_000_000), Answer()]
    download(f"{publisher.url}/set.zip", path)
    assert path.read_bytes() == BODY
    assert publisher.asked[1] == "/set.zip bytes=1000000-"


def test_bytes_are_the_files_own_where_the_server_calls_them_compressed(
    publisher: Publisher, path: Path
) -> None:
    publisher.headers = {"Content-Encoding": "x-gzip"}
    download(f"{publisher.url}/set.zip", path, checksum=SHA256)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=500),
        Answer(status=503, headers={"Retry-After": "1"}),
        Answer(status=429, headers={"Retry-After": "soon"}),
        Answer(cut=0),
    ],
    ids=["500", "503", "429", "no answer"],
)
def test_what_passes_is_tried_again(publisher: Publisher, path: Path, answer: Answer) -> None:
    publisher.answers = [answer, Answer()]
    start = time.monotonic()
    download(f"{publisher.url}/set.zip", path)
    assert path.read_bytes() == BODY
    assert len(publisher.asked) == 2
    assert time.monotonic() - start >= float(answer.headers.get("Retry-After") == "1")


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("answer", [Answer(status=503), Answer(cut=0)], ids=["503", "no answer"])
def test_what_does_not_pass_ends_in_one_line(
    publisher: Publisher, path: Path, answer: Answer
) -> None:
    publisher.answers = 20 * [answer]
    with pytest.raises(InputError, match="cannot be had") as error:
        download(f"{publisher.url}/set.zip", path)
    assert f"download {publisher.url}/set.zip elsewhere and put it at {path}" in one_line(error)
    assert len(publisher.asked) == 6


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_not_there_is_asked_for_once(
    publisher: Publisher, path: Path, status: int
) -> None:
    publisher.answers = [Answer(status=status)]
    with pytest.raises(InputError, match=f"status {status}") as error:
        download(f"{publisher.url}/set.zip", path)
    assert f"{publisher.url}/set.zip" in one_line(error)
    assert str(path) in one_line(error)
    assert publisher.asked == ["/set.zip"]
    assert visible(path) == []


def test_a_server_that_asks_for_a_long_pause_is_not_waited_for(
    publisher: Publisher, path: Path
) -> None:
    publisher.answers = [Answer(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(InputError, match=r"asks for a pause of 3600 s\); start again later"):
        download(f"{publisher.url}/set.zip", path)


@pytest.mark.usefixtures("_impatient")
def test_without_a_network_one_line_says_what_to_put_where(path: Path) -> None:
    with pytest.raises(InputError, match="cannot be had") as error:
        download("http://127.0.0.1:9/set.zip", path)
    assert f"download http://127.0.0.1:9/set.zip elsewhere and put it at {path}" in one_line(error)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/set.zip", "set.zip", "http://"])
def test_an_address_that_is_none_is_not_tried_again(path: Path, url: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match="cannot be had"):
        download(url, path)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_offline_nothing_is_asked(
    publisher: Publisher, path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(InputError, match=f"{variable} is set") as error:
        download(f"{publisher.url}/set.zip", path)
    assert f"{publisher.url}/set.zip elsewhere and put it at {path}" in one_line(error)
    assert publisher.asked == []
    path.write_bytes(BODY)
    download(f"{publisher.url}/set.zip", path, checksum=SHA256)


def test_a_wrong_checksum_leaves_nothing_and_says_what_it_found(
    publisher: Publisher, path: Path
) -> None:
    publisher.files["/set.zip"] = BODY[::-1]
    with pytest.raises(InputError, match="is not the expected file: its sha256 is") as error:
        download(f"{publisher.url}/set.zip", path, checksum=SHA256)
    text = one_line(error)
    assert hashlib.sha256(BODY[::-1]).hexdigest() in text
    assert SHA256.removeprefix("sha256:") in text
    assert f"{publisher.url}/set.zip" in text
    assert visible(path) == []
    publisher.files["/set.zip"] = BODY
    download(f"{publisher.url}/set.zip", path, checksum=SHA256)
    assert path.read_bytes() == BODY


def test_an_md5_is_checked_too(publisher: Publisher, path: Path) -> None:
    with pytest.raises(InputError, match="its md5 is"):
        download(f"{publisher.url}/set.zip", path, checksum=f"md5:{'0' * 32}")
    download(f"{publisher.url}/set.zip", path, checksum=f"md5:{hashlib.md5(BODY).hexdigest()}")


def test_a_wrong_size_is_seen_before_the_file_comes(publisher: Publisher, path: Path) -> None:
    with pytest.raises(InputError, match=f"has {len(BODY)} bytes, expected 5") as error:
        download(f"{publisher.url}/set.zip", path, size=5)
    assert str(path) in one_line(error)
    assert visible(path) == []


def test_a_web_page_in_place_of_the_file_is_refused(publisher: Publisher, path: Path) -> None:
    publisher.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(InputError, match="is a web page, not the file") as error:
        download(f"{publisher.url}/set.zip", path)
    assert str(path) in one_line(error)
    assert visible(path) == []


def test_a_killed_process_leaves_a_part_that_the_next_goes_on_with(
    publisher: Publisher, path: Path
) -> None:
    publisher.answers = [Answer(pause=60)]
    part = path.with_name("set.zip.part")
    killed = process(publisher, path)
    while not part.exists() or part.stat().st_size < 1_000_000:
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    have = part.stat().st_size
    assert visible(path) == ["set.zip.part", "set.zip.part.version"]
    download(f"{publisher.url}/set.zip", path, checksum=SHA256)
    assert path.read_bytes() == BODY
    assert publisher.asked == ["/set.zip", f"/set.zip bytes={have}-"]
    assert visible(path) == ["set.zip"]


@pytest.mark.parametrize("size", [len(BODY), None])
def test_a_part_that_is_whole_is_not_fetched_again(
    publisher: Publisher, path: Path, size: int | None
) -> None:
    publisher.answers = [Answer(cut=len(BODY) - 1)] + 6 * [Answer(status=404)]
    with pytest.raises(InputError):
        download(f"{publisher.url}/set.zip", path)
    with path.with_name("set.zip.part").open("ab") as part:
        part.write(BODY[-1:])
    publisher.answers.clear()
    publisher.asked.clear()
    download(f"{publisher.url}/set.zip", path, size=size, checksum=SHA256)
    assert path.read_bytes() == BODY
    assert publisher.asked == ([] if size else [f"/set.zip bytes={len(BODY)}-"])


def test_a_part_longer_than_the_file_is_thrown_away(publisher: Publisher, path: Path) -> None:
    publisher.answers = [Answer(cut=1_000_000), Answer(status=404)]
    with pytest.raises(InputError):
        download(f"{publisher.url}/set.zip", path)
    with path.with_name("set.zip.part").open("ab") as part:
        part.write(BODY)
    download(f"{publisher.url}/set.zip", path)
    assert path.read_bytes() == BODY


def test_two_processes_at_once_download_once(publisher: Publisher, path: Path) -> None:
    publisher.answers = [Answer(pause=2)]
    running = [process(publisher, path) for _ in range(2)]
    assert [one.wait() for one in running] == [0, 0]
    assert path.read_bytes() == BODY
    assert publisher.asked == ["/set.zip"]


def test_threads_at_once_download_once(publisher: Publisher, path: Path) -> None:
    publisher.answers = [Answer(pause=0.5)]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(download, f"{publisher.url}/set.zip", path) for _ in range(4)]:
            done.result()
    assert path.read_bytes() == BODY
    assert publisher.asked == ["/set.zip"]


def test_a_file_put_there_by_hand_is_checked_and_used(publisher: Publisher, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(BODY)
    download(f"{publisher.url}/set.zip", path, size=len(BODY), checksum=SHA256)
    path.write_bytes(BODY[::-1])
    with pytest.raises(
        InputError, match=r"its sha256 is .* remove it to download it again"
    ) as error:
        download(f"{publisher.url}/set.zip", path, size=len(BODY), checksum=SHA256)
    assert str(path) in one_line(error)
    assert path.read_bytes() == BODY[::-1]
    path.write_bytes(BODY[:-1])
    with pytest.raises(InputError, match=f"it has {len(BODY) - 1} bytes, expected {len(BODY)}"):
        download(f"{publisher.url}/set.zip", path, size=len(BODY), checksum=SHA256)
    assert publisher.asked == []


def test_a_folder_that_cannot_be_written_is_named(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"cannot be written .* name another folder by DELREC_HOME"
    ):
        download(f"{publisher.url}/set.zip", tmp_path / "file" / "set.zip")


def test_a_full_disk_ends_in_one_line_and_keeps_what_came(publisher: Publisher, path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
    command = [sys.executable, "-c", limit + IN_A_PROCESS, f"{publisher.url}/set.zip", str(path)]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert "InputError" in ended.stderr.splitlines()[-1]
    assert "cannot be written" in ended.stderr.splitlines()[-1]
    assert path.with_name("set.zip.part").stat().st_size == 2_000_000
    download(f"{publisher.url}/set.zip", path, checksum=SHA256)
    assert publisher.asked[1] == "/set.zip bytes=2000000-"
