"""Where interactions and items are looked for."""

import hashlib
import io
import zipfile

import pandas as pd
import pytest

from delrec_hf.data.config import DataConfig
from delrec_hf.data.prepared import prepare
from delrec_hf.data.sources import _from_hub, read_tables
from delrec_hf.errors import InputError
from tests.data import inputs
from tests.data.publisher import publishing

TIMES, TITLES = [3, 1, 2], ["Heat", "Emma", "Mask, The"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Keep what `datasets` caches out of the user's cache, and old tests' data out of this one."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def frames():
    events = pd.DataFrame({"user_id": ["a", "b", "c"], "item_id": [1, 2, 3], "timestamp": TIMES})
    return events, pd.DataFrame({"item_id": [1, 2, 3], "title": TITLES})


def test_a_hub_dataset_reads_from_its_configurations(tmp_path):
    for frame, name in zip(frames(), ("one", "two"), strict=True):
        frame.to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: interactions\n  data_files: one.parquet\n"
        "- config_name: items\n  data_files: two.parquet\n---\n"
    )
    for given in ((None, None), ("interactions", "two.parquet")):
        events, items = _from_hub(str(tmp_path), *given)
        assert events.data["timestamp"].to_pylist() == TIMES
        assert items.data["title"].to_pylist() == TITLES
    with pytest.raises(InputError, match=r"data.items is nope, but .* has interactions, items"):
        _from_hub(str(tmp_path), None, "nope")


def test_a_hub_dataset_reads_from_all_splits_of_its_one_configuration(tmp_path):
    events, _ = frames()
    events["title"] = TITLES
    events[:2].to_parquet(tmp_path / "train.parquet")
    events[2:].to_parquet(tmp_path / "test.parquet")
    table, items = _from_hub(str(tmp_path), None, None)
    assert sorted(table.data["timestamp"].to_pylist()) == sorted(TIMES)
    assert items is None


def test_a_file_and_the_name_of_another_are_refused(folder):
    with pytest.raises(InputError, match=r"is the file .* already; remove data.interactions"):
        read_tables(DataConfig(path=str(folder / "interactions.csv"), interactions="other.csv"))


def test_a_missing_path_is_refused():
    for path in ("no/such/folder", "missing.csv", "./missing"):
        with pytest.raises(InputError, match=r"does not exist; set data.path"):
            read_tables(DataConfig(path=path))


def test_what_is_neither_here_nor_on_the_hub_is_refused(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no folder or file here, and no dataset that can be"):
        read_tables(DataConfig(path="nobody/nothing"))
    with pytest.raises(InputError, match=r"or toy or toy-hidden; did you mean `toy-hidden`\?"):
        read_tables(DataConfig(path="toy-hiden"))
    with pytest.raises(InputError, match=r"did you mean `toy-hidden`\?"):
        read_tables(DataConfig(path="./toy-hidden"))


def test_a_folder_without_a_known_name_is_refused_with_what_it_holds(folder):
    (folder / "interactions.csv").rename(folder / "log.csv")
    with pytest.raises(InputError, match=r"found items.csv, log.csv; .* set data.interactions"):
        read_tables(DataConfig(path=str(folder)))
    with pytest.raises(InputError, match=r"data.interactions names x.csv, .* found items.csv"):
        read_tables(DataConfig(path=str(folder), interactions="x.csv"))


def test_two_files_of_one_table_are_refused(folder):
    (folder / "items.tsv").write_text("item_id\ttitle\n")
    with pytest.raises(InputError, match=r"several files of items \(items.csv, items.tsv\)"):
        read_tables(DataConfig(path=str(folder)))


def test_a_known_name_is_fetched_once_and_prepared(tmp_path, monkeypatch, caplog):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        rated = inputs.events("userId,movieId,timestamp,rating", extra=lambda row: "4.5")
        file.writestr("ml-latest-small/ratings.csv", rated)
        file.writestr("ml-latest-small/movies.csv", inputs.items("movieId,title"))
    name = "ml-latest-small.zip"
    place = f"/files.grouplens.org/datasets/movielens/{name}"
    for offline in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(offline, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DELREC_HOME", str(tmp_path / "home"))
    config = DataConfig(path="movielens-latest-small", num_candidates=5, domain="book")
    with publishing() as server:
        monkeypatch.setenv("DELREC_MIRROR", server.url)
        server.files[place] = archive.getvalue()
        checksum = hashlib.md5(archive.getvalue()).hexdigest()
        server.files[f"{place}.md5"] = f"MD5 ({name}) = {checksum}\n".encode()
        prepared = prepare(config, tmp_path / "data")
    assert prepared.info["dataset"] == "movielens-latest-small"
    assert "Harper & Konstan" in prepared.info["terms"]
    assert prepared.items["title"][:] == inputs.TITLES
    assert "data.domain: movie would fit movielens-latest-small" in caplog.text
    again = prepare(config, tmp_path / "again")  # the server is gone
    assert again.examples["test"][:] == prepared.examples["test"][:]


def test_a_misspelt_known_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"did you mean `movielens-latest-small`\?"):
        read_tables(DataConfig(path="movielens-latest-smal"))
    with pytest.raises(InputError, match=r"did you mean `amazon-2023/All_Beauty`\?"):
        read_tables(DataConfig(path="amazon-2023/All_Beuty"))
