"""A finished model behind HTTP: JSON in, ranked items out, several users in one forward."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from delrec_hf import __version__
from delrec_hf.errors import InputError
from delrec_hf.ranking.recommendation import Recommendation
from delrec_hf.recommender import Recommender
from delrec_hf.serving.bodies import (
    ExplainBody,
    Health,
    Part,
    Ranking,
    Rankings,
    RankOptions,
    RecommendBody,
    RecommendManyBody,
)
from delrec_hf.serving.listening import answer
from delrec_hf.serving.refusals import HANDLERS, REFUSALS, Door, answered
from delrec_hf.serving.waiting import WaitingLine


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        body: Bytes of a request.
        seconds: How long they may take.
        histories: How many one request may hold.
        history: Titles in one.
        candidates: Titles to rank.
        title: Characters of a title.
        top_k: Items to return, and to retrieve.
        waiting: Histories that wait for the model; more are refused with 503.
        together: Histories that the model is given at once.
        delay_ms: Milliseconds that the first one waits for others.
    """

    body: int = 1_000_000
    seconds: float = 30.0
    histories: int = 64
    history: int = 1_000
    candidates: int = 1_000
    title: int = 1_000
    top_k: int = 1_000
    waiting: int = 512
    together: int = 16
    delay_ms: float = 5.0


@dataclass(frozen=True)
class _Ranking:
    """The job of ranking with the same options."""

    recommender: Recommender = field(compare=False, repr=False)
    candidates: tuple[str, ...] | None
    top_k: int
    retrieve: int | None
    with_teacher: bool | None

    def __call__(self, histories: list[list[str]]) -> list[Ranking]:
        found = self.recommender.recommend_many(
            histories,
            self.candidates,
            self.top_k,
            retrieve=self.retrieve,
            with_teacher=self.with_teacher,
            disable_tqdm=True,
        )
        return [_ranking(self.recommender, one) for one in found]


@dataclass(frozen=True)
class _Explaining:
    """The job of explaining, one after the other."""

    recommender: Recommender = field(compare=False, repr=False)

    def __call__(self, bodies: list[ExplainBody]) -> list[dict[str, Any]]:
        return [
            self.recommender.explain(
                body.history, body.candidate, body.candidates, with_teacher=body.with_teacher
            ).to_dict()
            for body in bodies
        ]


def _ranking(recommender: Recommender, found: list[Recommendation]) -> Ranking:
    parts: list[Part] = ["language_model"]
    if recommender.teacher is not None and any(one.teacher is not None for one in found):
        parts.append(recommender.teacher.name)
    return Ranking(ranked_by=parts, recommendations=found)


def app_of(recommender: Recommender, limits: Limits, model: str) -> FastAPI:
    """Return the ASGI application of a model; any ASGI server runs it, in one process.

    Another endpoint is a function here: it looks up what it names (`look_up`), and what needs the
    model goes through `line`, whose one thread alone calls it.

    Args:
        recommender: The model.
        limits: What is refused.
        model: How `/health` calls it.
    """
    line = WaitingLine(limits.waiting, limits.together, limits.delay_ms / 1000)

    @asynccontextmanager
    async def serving(_: FastAPI) -> AsyncIterator[None]:
        with line:
            yield

    app = FastAPI(
        title="delrec_hf",
        version=__version__,
        description=f"Recommendations of `{model}`. Refused are {_told(limits)}.",
        redoc_url=None,
        lifespan=serving,
        exception_handlers=HANDLERS,
    )
    app.add_middleware(Door, most=limits.body, seconds=limits.seconds)

    async def look_up(titles: Sequence[str]) -> None:
        """Refuse titles that nobody knows, before they wait with others' requests."""
        _check("a title's characters", max(map(len, titles)), limits.title)
        await run_in_threadpool(lambda: [recommender.find(one) for one in titles])

    async def rank(
        request: Request, histories: list[list[str]], body: RankOptions
    ) -> list[Ranking]:
        candidates = body.candidates or []
        _check("histories", len(histories), limits.histories)
        _check("a history's titles", max(map(len, histories)), limits.history)
        _check("candidates", len(candidates), limits.candidates)
        _check("top_k", body.top_k, limits.top_k)
        _check("retrieve", body.retrieve or 0, limits.top_k)
        await look_up([*chain(*histories), *candidates])
        wanted = None if body.candidates is None else tuple(candidates)
        job = _Ranking(recommender, wanted, body.top_k, body.retrieve, body.with_teacher)
        return await answered(request, line.ask(job, histories))

    @app.post("/recommend", responses=REFUSALS)
    async def recommend(request: Request, body: RecommendBody) -> Ranking:
        """Rank items as the next one after a history."""
        return (await rank(request, [body.history], body))[0]

    @app.post("/recommend_many", responses=REFUSALS)
    async def recommend_many(request: Request, body: RecommendManyBody) -> Rankings:
        """Rank items after each of several histories."""
        return Rankings(rankings=await rank(request, body.histories, body))

    @app.post("/explain", responses=REFUSALS)
    async def explain(request: Request, body: ExplainBody) -> dict[str, Any]:
        """Say what moved an item's score: see docs/explain.md."""
        candidates = body.candidates or []
        _check("a history's titles", len(body.history), limits.history)
        _check("candidates", len(candidates), limits.candidates)
        await look_up([*body.history, body.candidate, *candidates])
        asked = line.ask(_Explaining(recommender), [body])
        return (await answered(request, asked))[0]

    @app.get("/health", responses={503: {"model": Health, "description": "It does not answer."}})
    async def health(response: Response) -> Health:
        """Say what is served and how many wait."""
        response.status_code = 200 if line.is_served else 503
        return Health(
            ready=line.is_served,
            model=model,
            items=len(recommender.item_ids),
            version=__version__,
            waiting=len(line),
        )

    return app


def _told(limits: Limits) -> str:
    return (
        f"bodies of more than {limits.body:,} bytes or that take longer than {limits.seconds:g} s, "
        f"more than {limits.histories:,} histories, {limits.history:,} titles in one, "
        f"{limits.candidates:,} candidates, {limits.title:,} characters in a title, and a `top_k` "
        f"or `retrieve` above {limits.top_k:,}; with 503 and `Retry-After` what comes while "
        f"{limits.waiting:,} histories wait"
    )


def _check(what: str, given: int, most: int) -> None:
    if given > most:
        raise InputError(
            f"{what}: {given}; this server takes at most {most}, so ask for less at once"
        )


def serve(model: str, host: str, port: int, **loading: Any) -> None:
    """Load a model and serve it until SIGTERM or SIGINT; what waits then is still answered.

    Args:
        model: Folder or Hub id.
        host: Address to listen on.
        port: Its port; 0 for any free one, which the log names.
        **loading: Arguments of `Recommender.from_pretrained`.

    Raises:
        InputError: If the address cannot be listened on or the model cannot be loaded.
    """

    def load(place: str) -> tuple[FastAPI, str]:
        recommender = Recommender.from_pretrained(model, **loading)
        some = [f"id:{one}" for one in recommender.item_ids[:2]]
        recommender.recommend(some[:1], some, disable_tqdm=True)  # the first one takes longest
        what = f"serving {model}, {len(recommender.item_ids)} items, at {place}/docs"
        return app_of(recommender, Limits(), model), what

    answer(host, port, load)
