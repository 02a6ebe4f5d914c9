"""Chats that teach a backbone to read lists: skills over shuffled lists, and facts about titles.

Every list is drawn at random: no user's sequence is read here. A *relation* says which items
answer a question about another item ("the next part of"), a *label* which items have a property
("horror"). A *rule* is a relation and an anchor in the list, with a second one to fall back on.
Some chats state a rule before their first turn, the place where a soft prompt sits, and then ask
the vague questions of the three tasks; so a soft prompt can choose among the skills.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from delrec_hf.instructions.templates import (
    Domain,
    WorkedExample,
    lsr_prompt,
    rps_prompt,
    ta_prompt,
)

ANCHORS = {"last": -1, "second-to-last": -2, "third-to-last": -3, "first": 0}
ANSWER_ONLY = "Answer with its title only."


@dataclass(frozen=True)
class Facts:
    """What is known about the items.

    Attributes:
        titles: One per item.
        relations: Wording of a relation to `(items, items)` bool: does the column's item answer
            a question about the row's?
        labels: Wording of a property to `(items,)` bool.
        sentences: Other questions about items, with their answers.
    """

    titles: list[str]
    relations: dict[str, npt.NDArray[np.bool_]]
    labels: dict[str, npt.NDArray[np.bool_]]
    sentences: list[tuple[str, str]]


@dataclass(frozen=True)
class Rule:
    """A relation to an anchor, and what to do where no candidate has it."""

    relation: str
    anchor: str
    otherwise: "Rule | None" = None

    def __str__(self) -> str:
        text = f"{self.relation} the {self.anchor} one"
        return text if self.otherwise is None else f"{text}, or else {self.otherwise}"

    def answers(self, facts: Facts, history: list[int], candidates: list[int]) -> list[int]:
        """Return the candidates that follow the rule."""
        position = ANCHORS[self.anchor]
        if len(history) >= abs(position):
            holds = facts.relations[self.relation][history[position]]
            found = [item for item in candidates if holds[item]]
            if found:
                return found
        return [] if self.otherwise is None else self.otherwise.answers(facts, history, candidates)


@dataclass(frozen=True)
class Chat:
    """A stated rule (or nothing) and the turns: question, answer."""

    rule: str
    turns: list[tuple[str, str]]


class ChatMaker:
    """Draws chats without end.

    Args:
        facts: What is known about the items.
        domain: How the items are spoken about.
        history: Shortest and longest history.
        candidates: Fewest and most candidates.
        turns: Questions per chat about one pair of lists.
        rule_weights: How often a rule's first and second relation is drawn, per relation.
        seed: Decides every chat.
        sentence_share: Share of the chats that ask about single items, without lists.
    """

    def __init__(
        self,
        facts: Facts,
        domain: Domain,
        history: tuple[int, int],
        candidates: tuple[int, int],
        turns: int,
        rule_weights: dict[str, tuple[float, float]],
        seed: int,
        sentence_share: float = 0.05,
    ) -> None:
        self.facts, self.domain, self.turns = facts, domain, turns
        self.history_range, self.candidate_range = history, candidates
        self.relations = list(facts.relations)
        weights = np.array([rule_weights[name] for name in self.relations], dtype=float)
        self.first, self.second = (weights / weights.sum(axis=0)).T
        self.random = np.random.default_rng(seed)
        self.sentence_share = sentence_share

    def __iter__(self) -> Iterator[Chat]:
        while True:
            kind = self.random.random()
            if kind < self.sentence_share and self.facts.sentences:
                chosen = self.random.integers(len(self.facts.sentences), size=2 * self.turns)
                yield Chat("", [self.facts.sentences[int(k)] for k in chosen])
            elif kind < self.sentence_share + 0.2:
                yield self._masked_chat()
            else:
                yield self._list_chat()

    def _rule(self) -> Rule:
        """Draw a rule; three in four have something to fall back on."""
        anchors = list(ANCHORS)
        second = Rule(
            self.relations[self.random.choice(len(self.relations), p=self.second)],
            anchors[self.random.choice(4, p=[0.35, 0.35, 0.15, 0.15])],
        )
        if self.random.random() < 0.25:
            return second
        return Rule(
            self.relations[self.random.choice(len(self.relations), p=self.first)],
            anchors[self.random.choice(4, p=[0.55, 0.25, 0.1, 0.1])],
            second,
        )

    def _lists(self, rules: list[Rule]) -> tuple[list[int], list[int]]:
        """Draw a history and candidates that hold an answer to most of the rules."""
        items = len(self.facts.titles)
        low, high = self.history_range
        history = self.random.choice(items, size=self.random.integers(low, high + 1), replace=False)
        taken = set(history.tolist())
        candidates: list[int] = []
        for rule in rules:
            links = [rule] if rule.otherwise is None else [rule, rule.otherwise]
            link = links[self.random.integers(len(links))]
            position = ANCHORS[link.anchor]
            if len(history) < abs(position):
                continue
            holds = self.facts.relations[link.relation][history[position]]
            fitting = [k for k in np.flatnonzero(holds).tolist() if k not in taken]
            if fitting:
                candidates.append(fitting[self.random.integers(len(fitting))])
                taken.add(candidates[-1])
        low, high = self.candidate_range
        wanted = int(self.random.integers(low, high + 1))
        while len(candidates) < wanted:
            item = int(self.random.integers(items))
            if item not in taken:
                candidates.append(item)
                taken.add(item)
        self.random.shuffle(candidates)
        return history.tolist(), candidates

    def _list_chat(self) -> Chat:
        stated = self.random.random() < 0.6
        rules = [self._rule() for _ in range(3)]
        history, candidates = self._lists(rules)
        vague = [lsr_prompt, rps_prompt][self.random.integers(2)]
        prompt = vague(self.domain, self._titles(history), self._titles(candidates))
        lists, question = prompt.rsplit("\n", 1)
        turns = []
        answer = self._pick(rules[0].answers(self.facts, history, candidates))
        if answer is not None and (stated or self.random.random() < 0.5):
            turns.append((question, answer))
        for _ in range(20 * self.turns):
            if len(turns) >= self.turns:
                break
            turn = self._explicit(rules, history, candidates)
            if turn is not None and all(turn[0] != asked for asked, _ in turns):
                turns.append(turn)
        first, *others = turns
        rule = f"Rule: {rules[0]}.\n" if stated and turns[0][0] == question else ""
        return Chat(rule, [(f"{lists}\n{first[0]}", first[1]), *others])

    def _masked_chat(self) -> Chat:
        """Temporal Analysis: the rule tells the masked item from what stands before it."""
        rule = self._rule()
        history, candidates = self._lists([rule, rule])
        answer = self._pick(rule.answers(self.facts, history, candidates))
        if answer is None:
            return self._list_chat()
        following = self._titles([int(self.random.integers(len(self.facts.titles)))])[0]
        example = None
        if self.random.random() < 0.5:
            earlier, offered = self._lists([rule, rule])
            masked = self._pick(rule.answers(self.facts, earlier, offered))
            after = self._titles([int(self.random.integers(len(self.facts.titles)))])[0]
            if masked is not None:
                example = WorkedExample(self._titles(earlier[-4:]), masked, after)
        question = ta_prompt(
            self.domain, self._titles(history), following, self._titles(candidates), example
        )
        stated = self.random.random() < 0.7
        return Chat(f"Rule: {rule}.\n" if stated else "", [(question, answer)])

    def _explicit(
        self, rules: list[Rule], history: list[int], candidates: list[int]
    ) -> tuple[str, str] | None:
        """Ask for one skill by name."""
        kind = self.random.random()
        item = self.domain.item
        if kind < 0.55:
            rule = rules[self.random.integers(len(rules))]
            if self.random.random() < 0.4:
                rule = rule.otherwise or rule
            answer = self._pick(rule.answers(self.facts, history, candidates))
            question = f"Which candidate is {rule}?"
        elif kind < 0.7:
            label = list(self.facts.labels)[self.random.integers(len(self.facts.labels))]
            holds = self.facts.labels[label]
            answer = self._pick([k for k in candidates if holds[k]])
            question = f"Which candidate is a {label} {item}?"
        elif kind < 0.85:
            anchor = list(ANCHORS)[self.random.integers(len(ANCHORS))]
            short = len(history) < abs(ANCHORS[anchor])
            answer = None if short else self._titles([history[ANCHORS[anchor]]])[0]
            question = f"Which {item} is the {anchor} one the user {self.domain.chosen}?"
        else:
            place = ("first", "last")[self.random.integers(2)]
            answer = self._titles([candidates[0 if place == "first" else -1]])[0]
            question = f"Which candidate stands {place}?"
        return None if answer is None else (f"{question} {ANSWER_ONLY}", answer)

    def _pick(self, answers: list[int]) -> str | None:
        if not answers:
            return None
        return self.facts.titles[answers[self.random.integers(len(answers))]]

    def _titles(self, items: list[int]) -> list[str]:
        return [self.facts.titles[item] for item in items]
