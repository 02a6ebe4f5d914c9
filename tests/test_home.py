"""One folder keeps what outlives a run, and the environment says where it is."""

from pathlib import Path

import pytest

from delrec_hf.home import home


def test_the_folder_is_the_named_one_else_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DELREC_HOME", raising=False)
    assert home() == tmp_path / ".cache" / "delrec_hf"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert home() == tmp_path / "caches" / "delrec_hf"
    monkeypatch.setenv("DELREC_HOME", "~/mine")
    assert home() == tmp_path / "mine"
