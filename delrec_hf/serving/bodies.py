"""What a server is asked and answers, as JSON objects."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from delrec_hf.ranking.recommendation import Recommendation

Part = Literal["language_model", "teacher", "co-occurrence"]


class RankOptions(BaseModel):
    """What to rank, and how."""

    model_config = ConfigDict(strict=True, extra="forbid")

    candidates: list[str] | None = Field(
        None,
        min_length=1,
        description="Titles or ids to rank; by default the catalogue without the history.",
        examples=[["Heat (1995)", "id:21"]],
    )
    top_k: int = Field(10, ge=1, description="How many items to return.")
    retrieve: int | None = Field(
        None,
        ge=1,
        description="How many items of the catalogue the teacher retrieves for both to rank; only "
        "without candidates, and where the teacher ranks.",
    )
    with_teacher: bool | None = Field(
        None,
        description="Whether the teacher's scores join in; by default where the model holds a "
        "teacher and weights.",
    )


_TITLES = "Titles or ids, oldest first; `id:21` and `title:21` where 21 is both."


class RecommendBody(RankOptions):
    """One user's history."""

    history: list[str] = Field(
        min_length=1, description=_TITLES, examples=[["Alien (1979)", "The Matrix (1999)"]]
    )


class RecommendManyBody(RankOptions):
    """Histories of several users, for which the same is asked."""

    histories: list[Annotated[list[str], Field(min_length=1)]] = Field(
        min_length=1, description=_TITLES, examples=[[["Alien (1979)"], ["Fargo (1996)", "id:3"]]]
    )


class ExplainBody(BaseModel):
    """Whose ranking of which item to explain."""

    model_config = ConfigDict(strict=True, extra="forbid")

    history: list[str] = Field(
        min_length=1, description=_TITLES, examples=[["Alien (1979)", "The Matrix (1999)"]]
    )
    candidate: str = Field(description="Title or id of what is explained.", examples=["id:3"])
    candidates: list[str] | None = Field(
        None,
        min_length=1,
        description="What it is compared with; by default as many as a prompt of training showed.",
    )
    with_teacher: bool | None = Field(
        None, description="As in `/recommend`: whose ranking is explained."
    )


class Ranking(BaseModel):
    """What one user is recommended."""

    ranked_by: list[Part] = Field(description="Whose scores make up `score`.")
    recommendations: list[Recommendation] = Field(description="Best first, at most `top_k`.")


class Rankings(BaseModel):
    """What several users are recommended."""

    rankings: list[Ranking] = Field(description="In the order of the histories.")


class Health(BaseModel):
    """How the server is."""

    ready: bool = Field(description="Whether it answers; the status is 503 if not.")
    model: str = Field(description="Folder or Hub id of the model.")
    items: int = Field(description="How many the catalogue has.")
    version: str = Field(description="Of delrec_hf.")
    waiting: int = Field(description="Histories that wait for the model.")
