"""Artefacts with a teacher, and their pages on a port of this machine."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn

from delrec_hf import Recommender
from delrec_hf.files import write_json
from delrec_hf.hashes import fingerprint
from delrec_hf.modeling.artefact import hold_teacher
from delrec_hf.ranking.weighing import Fusion, Part, Scale
from delrec_hf.teachers.models.sasrec import SASRecConfig, SASRecModel
from tests.film_rows import ITEMS

WEIGHTS = Fusion(
    {
        "delrec": Part(0.5, (0.4, 0.6), Scale()),
        "teacher": Part(3.0, (2.0, 4.0), Scale("raw", 0.0, -9.0)),
    }
)


@pytest.fixture
def with_teacher(make_artefact: Callable[..., Path], tmp_path: Path) -> Callable[..., Recommender]:
    """A function that returns a recommender with an untrained SASRec and weights."""

    def make(titles: dict[str, str] = ITEMS, **facts: Any) -> Recommender:
        torch.manual_seed(3)
        catalogue = fingerprint(list(titles))
        model = SASRecModel(SASRecConfig(num_items=len(titles), hidden_size=8, catalogue=catalogue))
        torch.nn.init.normal_(model.item_embedding.weight)
        taught = tmp_path / "taught"
        model.save_pretrained(taught)
        write_json(taught / "teacher.json", {"type": "sasrec", "catalogue": catalogue})
        given = {"fusion": WEIGHTS.to_dict(), "candidates": "unlisted"} | facts
        folder = make_artefact(titles=titles, **given)
        hold_teacher(taught, folder)
        return Recommender.from_pretrained(folder)

    return make


@pytest.fixture
def show() -> Iterator[Callable[..., str]]:
    """A function that serves the page of a recommender, and returns its address."""
    pytest.importorskip("gradio", reason="needs gradio, which the extra `dev` brings")
    from delrec_hf.demo.desk import Desk
    from delrec_hf.demo.server import app_of

    with ExitStack() as ending:

        def start(recommender: Recommender, name: str = "tiny") -> str:
            config = uvicorn.Config(
                app_of(Desk(recommender), name),
                lifespan="on",
                log_config=None,
                timeout_graceful_shutdown=1,
            )
            server = uvicorn.Server(config)
            listening = ending.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            ending.callback(thread.join, 60)
            ending.callback(setattr, server, "should_exit", True)
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield start
