"""The chats that backbones are trained on."""

import hashlib
import re
from itertools import islice
from pathlib import Path
from typing import Any

import facts
import numpy as np
import pytest
import train_backbone
import yaml
from skills import ANCHORS, ChatMaker, Rule

from delrec_hf.data.toy_world import toy_world
from delrec_hf.instructions.templates import load_domain
from delrec_hf.resources import resource

WEIGHTS = {
    "the genre of": (1, 1),
    "the next part of": (1, 1),
    "the previous part of": (1, 1),
    "the series of": (1, 1),
}


def settings_of(name: str) -> dict[str, Any]:
    path = resource("recipes/backbones") / f"{name}.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def toy_chats(**more: Any) -> ChatMaker:
    domain = load_domain("movie")
    known = facts.toy_facts()
    return ChatMaker(known, domain, (2, 8), (4, 12), 6, WEIGHTS, seed=5, **more)


def parse_rule(text: str) -> Rule | None:
    if not text:
        return None
    link, _, rest = text.partition(", or else ")
    found = re.fullmatch(r"(.+) the ([\w-]+) one", link)
    assert found is not None
    assert found[2] in ANCHORS
    return Rule(found[1], found[2], parse_rule(rest))


def test_the_shipped_toy_backbone_read_these_chats() -> None:
    make = train_backbone.chat_maker(facts.toy_facts(), settings_of("toy"))
    drawn = repr([(chat.rule, chat.turns) for chat in islice(make, 600)])
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "da07deb35df7b458"


def test_answers_follow_the_stated_rule() -> None:
    make = toy_chats()
    rows = {title: row for row, title in enumerate(make.facts.titles)}
    checked = 0
    for chat in islice(make, 300):
        question, answer = chat.turns[0]
        if not chat.rule or "[masked]" in question:
            continue
        head, offered = question.rsplit("\nCandidates:\n", 1)
        history = [rows[line[2:]] for line in head.splitlines() if line.startswith("- ")]
        candidates = [rows[line[2:]] for line in offered.splitlines() if line.startswith("- ")]
        rule = parse_rule(chat.rule.removeprefix("Rule: ").removesuffix(".\n"))
        assert rule is not None
        assert rows[answer] in rule.answers(make.facts, history, candidates)
        checked += 1
    assert checked > 50


def test_lists_are_drawn_at_random_whatever_users_did() -> None:
    world = toy_world()
    rows = dict(zip(world.items["item_id"], range(len(world.items)), strict=True))
    make = toy_chats()
    neighbours = np.zeros((len(rows), len(rows)))
    for _ in range(2000):
        history, _ = make._lists([])
        np.add.at(neighbours, (history[:-1], history[1:]), 1)
    steps = world.interactions["item_id"].map(rows).to_numpy()
    followed = np.zeros_like(neighbours)
    np.add.at(followed, (steps[:-1], steps[1:]), 1)
    off = ~np.eye(len(rows), dtype=bool)
    assert abs(np.corrcoef(neighbours[off], followed[off])[0, 1]) < 0.03


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_sentence_share_decides_how_many_chats_have_no_lists(share: float) -> None:
    chats = list(islice(toy_chats(sentence_share=share), 50))
    assert all(("Candidates:" in chat.turns[0][0]) == (share == 0.0) for chat in chats)


def test_ml_100k_weighs_every_relation_and_its_chats_encode(films: Path) -> None:
    settings = settings_of("ml-100k") | {"history": [1, 2], "candidates": [2, 3], "batch_size": 4}
    known = facts.movie_facts(films)
    assert set(settings["rule_weights"]) == set(known.relations)
    make = train_backbone.chat_maker(known, settings)
    tokenizer = train_backbone.train_tokenizer(make, known, 400)
    batch = next(iter(train_backbone.ChatBatches(make, tokenizer, settings)))
    answers = batch["labels"][0][batch["labels"][0] != -100]
    assert tokenizer.decode(answers).count("<|im_end|>") >= settings["turns"]
    assert (batch["labels"] == batch["input_ids"]).any(1).all()
