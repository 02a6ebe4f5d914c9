"""The client for other servers ranks an exported model as the Python API ranks the model.

vLLM is not installed here; in its place stands a server that answers the two requests in the same
shapes, with the exported model in transformers.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from delrec_hf import Recommender
from delrec_hf.instructions.templates import lsr_prompt
from delrec_hf.modeling.export import export
from delrec_hf.resources import resource

HISTORY = ["Heat (1995)", "Alien (1979)"]
OFFERED = ["M (1931)", "The Matrix (1999)", "Fargo (1996)", "A Bug's Life (1998)", "Aliens (1986)"]


class StandIn:
    """What vLLM answers to `/tokenize` and `/v1/completions`."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/tokenize" and "messages" in body:
            ids = self.tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=body["add_generation_prompt"]
            )["input_ids"]
            return {"tokens": ids, "count": len(ids)}
        if path == "/tokenize":
            special = body["add_special_tokens"]
            ids = self.tokenizer(body["prompt"], add_special_tokens=special)["input_ids"]
            return {"tokens": ids, "count": len(ids)}
        assert path == "/v1/completions"
        assert body["echo"]
        assert body["logprobs"] == body["max_tokens"] == 1
        choices = [self._echoed(place, ids) for place, ids in enumerate(body["prompt"])]
        return {"object": "text_completion", "choices": choices[::-1]}

    @torch.inference_mode()
    def _echoed(self, place: int, ids: list[int]) -> dict[str, Any]:
        likely = self.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        best = int(likely[-1].argmax())
        worth = [likely[n, token].item() for n, token in enumerate([*ids[1:], best])]
        return {"index": place, "logprobs": {"token_logprobs": [None, *worth]}}


@pytest.fixture
def folder(make_artefact: Callable[..., Path]) -> Path:
    return make_artefact(candidates="unlisted")


@pytest.fixture
def url(folder: Path, tmp_path: Path) -> Iterator[str]:
    export(folder, tmp_path / "plain")
    stand_in = StandIn(tmp_path / "plain")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(stand_in.answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_client_ranks_as_the_python_api(folder: Path, url: str) -> None:
    recommender = Recommender.from_pretrained(folder)
    expected = recommender.recommend(HISTORY, OFFERED)
    prompt = lsr_prompt(recommender.config.domain, HISTORY)
    script = str(resource("recipes/serving/rank_client.py"))
    words = ["--url", url, "--model", "plain", "--prompt", prompt, "--end", "<|im_end|>"]
    done = subprocess.run(
        [sys.executable, script, *words, "--candidates", *OFFERED],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = [line.strip().split("  ", 1) for line in done.stdout.splitlines()]
    assert [title for _, title in found] == [one.title for one in expected]
    scores = [float(score) for score, _ in found]
    # In a vocabulary of 400 the rows that now hold virtual tokens take a noticeable share.
    assert scores == pytest.approx([one.score for one in expected], abs=0.1)
