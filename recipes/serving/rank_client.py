"""Rank candidates with an exported model behind vLLM, with nothing but the standard library.

python recipes/serving/rank_client.py --model runs/quickstart/plain --end '<|im_end|>' \
    --prompt "$(cat prompt.txt)" --candidates "Heat (1995)" "Alien (1979)"

The server tokenises (`/tokenize`), and its completions API says what each token of a prompt was
worth (`echo` and `logprobs`). A candidate's score is the log-probability of its title and of the
end of the turn behind the prompt: `scoring: sum`.
"""

import argparse
import json
import urllib.request
from collections.abc import Sequence
from typing import Any


def rank(
    url: str, model: str, messages: Sequence[dict[str, str]], candidates: Sequence[str], end: str
) -> list[tuple[str, float]]:
    """Return candidates with their scores, best first.

    Args:
        url: The server's root, without `/v1`.
        model: What it calls the model.
        messages: The chat up to the user's last turn, as `delrec_hf` words it.
        candidates: Titles.
        end: What ends the assistant's turn in the chat template.
    """
    prompt = _tokens(url, model=model, messages=list(messages), add_generation_prompt=True)
    answers = [
        _tokens(url, model=model, prompt=title + end, add_special_tokens=False)
        for title in candidates
    ]
    asked = {
        "model": model,
        "prompt": [prompt + answer for answer in answers],
        "echo": True,
        "logprobs": 1,
        "max_tokens": 1,  # one that is not looked at: servers differ on 0
        "temperature": 0,
    }
    scores = [0.0] * len(answers)
    for choice in _post(f"{url}/v1/completions", asked)["choices"]:
        of_answer = slice(len(prompt), len(prompt) + len(answers[choice["index"]]))
        scores[choice["index"]] = sum(choice["logprobs"]["token_logprobs"][of_answer])
    return sorted(zip(candidates, scores, strict=True), key=lambda one: -one[1])


def _tokens(url: str, **asked: Any) -> list[int]:
    return _post(f"{url}/tokenize", asked)["tokens"]


def _post(url: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def main() -> None:
    """Rank the candidates of the command line."""
    parser = argparse.ArgumentParser(description="Rank candidates with a model behind vLLM.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server's root")
    parser.add_argument("--model", required=True, help="what the server calls the model")
    parser.add_argument("--prompt", required=True, help="what the user says")
    parser.add_argument("--end", required=True, help="what ends the assistant's turn")
    parser.add_argument("--candidates", required=True, nargs="+", help="titles")
    known = parser.parse_args()
    messages = [{"role": "user", "content": known.prompt}]
    for title, score in rank(known.url, known.model, messages, known.candidates, known.end):
        print(f"{score:9.3f}  {title}")


if __name__ == "__main__":
    main()
