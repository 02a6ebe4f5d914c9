"""Why a candidate stands where it does: what was measured, as text, dictionary and picture."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from delrec_hf.errors import InputError
from delrec_hf.files import write_json, write_text
from delrec_hf.ranking.bars import Bar, Panel, draw, shortened
from delrec_hf.ranking.standing import Adapters, Advice, Candidate, HistoryItem, Standing

NOT_ADDITIVE = (
    "Changes do not add up to the whole: items and adapters work together, and each was left out "
    "alone."
)
NAMES = {
    "language_model": "language model",
    "teacher": "teacher",
    "co-occurrence": "co-occurrence",
}
_TITLE = 34


@dataclass(frozen=True)
class Explanation:
    """Why a candidate stands where it does after a history.

    Attributes:
        item_id: The candidate's id.
        title: Its title.
        scoring: How the language model's score is made: `sum`, `mean` or `calibrated`.
        weights: Weight and scale of each part of a fusion, see `Fusion.to_dict`; None: the language
            model ranks alone.
        standing: Where it stands.
        history: The history, oldest first, each item with what it moves.
        adapters: What soft prompt and LoRA move.
        teacher: What the teacher says, or co-occurrence in its stead, if there is either.
        candidates: All that are compared, best first; the same in everything that is measured.
    """

    item_id: str
    title: str
    scoring: str
    weights: dict[str, Any] | None
    standing: Standing
    history: list[HistoryItem]
    adapters: Adapters
    teacher: Advice | None
    candidates: list[Candidate]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return asdict(self)

    def text(self) -> str:
        """Return the explanation as plain text."""
        blocks = ["\n".join([f'Why "{self.title}" ({self.item_id})?', *self.facts()])]
        blocks.append("\n".join(self._history_lines()))
        blocks.append("\n".join(self._adapter_lines()))
        ranked = [
            f"{place:>3}  {one.score:9.3f}  {one.title}"
            for place, one in enumerate(self.candidates, start=1)
        ]
        blocks += ["\n".join(["Compared, best first", *ranked]), NOT_ADDITIVE]
        return "\n\n".join(blocks)

    def figure(self) -> str:
        """Return a picture as SVG: bars to the right speak for the candidate, to the left against.

        >>> from delrec_hf.ranking.standing import Change
        >>> standing = Standing(1.0, 1.0, None, 0.5, {"language_model": 0.5}, 1)
        >>> change = Change.between(standing, standing)
        >>> adapters = Adapters(*[standing] * 4, *[change] * 3)
        >>> one = Explanation("a", "A & B", "sum", None, standing, [], adapters, None, [])
        >>> "A &amp; B" in one.figure()
        True
        """
        heading = f'Why "{shortened(self.title, 60)}"?'
        return draw(heading, self.facts(), self.series(), self.panels())

    def save(self, path: str | Path) -> None:
        """Write a picture (`.svg`), a dictionary (`.json`) or a text (`.txt`).

        Raises:
            InputError: If the file's name ends in none of these.
        """
        save(self, path)

    def series(self) -> list[str]:
        """Return the names of what the leads are made of, in the order of the panels' values."""
        return [NAMES[name] for name in self.standing.parts]

    def facts(self) -> list[str]:
        """Return where the candidate stands, in sentences."""
        now, others = self.standing, len(self.candidates) - 1
        made = " + ".join(
            f"{value:+.3f} {NAMES[name]}" if len(now.parts) > 1 else NAMES[name]
            for name, value in now.parts.items()
        )
        facts = [
            f"Score {now.score:.3f}{self._formula()}: rank {now.rank} of {others + 1}.",
            f"Lead {now.lead:+.3f} over the mean of {others} other "
            f"candidate{'s' * (others != 1)}: {made.replace('+ -', '- ').replace('+ +', '+ ')}.",
        ]
        if self.teacher is not None:
            says = self.teacher
            who = "The teacher" if says.by == "teacher" else says.by.capitalize()
            facts.append(f"{who} ranks it {says.rank} of {says.unseen} unseen items.")
        return facts

    def panels(self) -> list[Panel]:
        """Return what is drawn: what the history moves, and what the adapters do."""
        history = [
            Bar(
                _label(one),
                list(one.change.parts.values()),
                one.change.lead,
                str(one.without.rank),
            )
            for one in self.history
        ]
        adapters = [
            Bar(name, [one.lead], one.lead, str(one.rank))
            for name, one in self._by_adapters().items()
        ]
        note = (
            "The lead, less the lead after the same history without this item; oldest first. "
            "Changes do not add up."
        )
        return [
            Panel(
                "What each item of the history adds to the lead",
                [note, *self._remarks()],
                history,
                ("lead", "rank without"),
            ),
            Panel(
                "The language model's own lead, with and without its adapters",
                [],
                adapters,
                ("lead", "rank"),
            ),
        ]

    def _formula(self) -> str:
        if self.weights is None:
            return f" ({self.scoring} of its title's log-probabilities)"
        now, terms = self.standing, []
        for name, part in self.weights.items():
            log = "log " if part["scale"]["kind"] == "log" else ""
            own, value = name, now.teacher
            if name == "delrec":
                own, value = "language model", now.language_model
            terms.append(f"{part['weight']:.3g} x {log}{own} {value:.3f}")
        return " = " + " + ".join(terms)

    def _history_lines(self) -> list[str]:
        names = [NAMES[name] for name in self.standing.parts]
        columns = ["lead", *names, "score"] if len(names) > 1 else ["lead", "score"]
        head = f"{'':{_TITLE}}" + "".join(f"{one:>16}" for one in columns) + f"{'rank without':>14}"
        lines = ["What each item of the history adds, oldest first", head]
        for one in self.history:
            parts = list(one.change.parts.values()) if len(names) > 1 else []
            numbers = [one.change.lead, *parts, one.change.score]
            shown = "".join(f"{number:+16.3f}" for number in numbers)
            label = shortened(_label(one), _TITLE - 2)
            lines.append(f"{label:{_TITLE}}{shown}{one.without.rank:>14}")
        return lines + self._remarks()

    def _remarks(self) -> list[str]:
        remarks = []
        if not all(one.is_read for one in self.history):
            remarks.append(
                "* Too old for the prompt, which shows the last items alone; where one of these is "
                "left out, an older one moves up."
            )
        if len(self.history) == 1:
            remarks.append("Without it the history is empty, which training never showed.")
        return remarks

    def _adapter_lines(self) -> list[str]:
        lines = ["The language model alone, with and without its adapters"]
        lines.append(f"{'':{_TITLE}}{'lead':>16}{'score':>16}{'rank':>14}")
        for name, one in self._by_adapters().items():
            lines.append(f"{name:{_TITLE}}{one.lead:+16.3f}{one.score:16.3f}{one.rank:>14}")
        return lines

    def _by_adapters(self) -> Mapping[str, Standing]:
        one = self.adapters
        return {
            "neither": one.neither,
            "soft prompt alone": one.without_lora,
            "LoRA alone": one.without_prompt,
            "soft prompt and LoRA": one.both,
        }


def save(explanation: Any, path: str | Path) -> None:
    """Write what has `figure`, `to_dict` and `text` as its file's name says.

    Raises:
        InputError: If it ends in none of `.svg`, `.json` and `.txt`.
    """
    kind = Path(path).suffix.lower()
    if kind == ".svg":
        write_text(path, explanation.figure())
    elif kind == ".json":
        write_json(path, explanation.to_dict())
    elif kind == ".txt":
        write_text(path, explanation.text() + "\n")
    else:
        raise InputError(
            f"an explanation cannot be written to {path}; expected a name that ends in .svg (a "
            "picture), .json or .txt"
        )


def _label(item: HistoryItem) -> str:
    """Return an item's title, with a sign where the language model does not read it."""
    return item.title if item.is_read else f"* {item.title}"
