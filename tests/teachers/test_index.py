"""A co-occurrence index goes with a model as a file of bounded size."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array

from delrec_hf.errors import InputError
from delrec_hf.hashes import fingerprint
from delrec_hf.teachers import index
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.index import load_index, save_index, strongest

ITEMS = 40
IDS = [f"i{row}" for row in range(ITEMS)]


@pytest.fixture
def counts() -> CoOccurrence:
    generator = np.random.default_rng(0)
    follows = generator.random((ITEMS, ITEMS)) * (generator.random((ITEMS, ITEMS)) < 0.5)
    return CoOccurrence(csr_array(follows), generator.random(ITEMS))


def scores(counts: CoOccurrence) -> np.ndarray:
    histories = [np.array([3, 1, 4]), np.array([15]), np.arange(ITEMS), np.array([], dtype=int)]
    return counts.score([""] * 4, np.array([3, 1, ITEMS, 0]), histories)


def test_an_index_scores_as_what_was_counted(counts: CoOccurrence, tmp_path: Path) -> None:
    save_index(counts, IDS, tmp_path / "index.safetensors")
    found = load_index(tmp_path / "index.safetensors", IDS)
    np.testing.assert_allclose(scores(found), scores(counts), rtol=1e-6)


def test_a_large_index_keeps_the_strongest_followers_of_every_item_and_says_so(
    counts: CoOccurrence,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(index, "MOST_PAIRS", 5 * ITEMS)
    with caplog.at_level("INFO", "delrec_hf"):
        save_index(counts, IDS, tmp_path / "index.safetensors")
    assert f"keeps 200 of {counts.follows.nnz} pairs" in caplog.text
    kept = load_index(tmp_path / "index.safetensors", IDS).follows.toarray()
    for row, whole in zip(kept, counts.follows.toarray(), strict=True):
        assert set(np.flatnonzero(row)) == set(np.argsort(-whole)[:5])
    assert (tmp_path / "index.safetensors").stat().st_size < 8 * 200 + 12 * ITEMS + 1000
    assert strongest(counts, counts.follows.nnz) is counts


def test_what_is_no_index_of_this_catalogue_is_refused_in_one_line(
    counts: CoOccurrence, tmp_path: Path
) -> None:
    path = tmp_path / "index.safetensors"
    save_index(counts, IDS, path)
    with pytest.raises(InputError, match="another catalogue than these 39 items"):
        load_index(path, IDS[1:])
    outside = load_file(path)
    outside["followers"][0] = ITEMS
    save_file(outside, path, {"catalogue": fingerprint(IDS)})
    with pytest.raises(InputError, match="is no co-occurrence index") as refused:
        load_index(path, IDS)
    assert "\n" not in str(refused.value)
    path.write_bytes(b"torn")
    with pytest.raises(InputError, match="is no co-occurrence index"):
        load_index(path, IDS)
