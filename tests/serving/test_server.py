"""`delrec serve` answers over HTTP what the Python API returns."""

import logging
import re
import urllib.error
import urllib.request
from typing import Any

import pytest

import delrec_hf
from delrec_hf import Recommender
from tests.film_rows import TITLES
from tests.serving.served import OFFERED, Client, assert_same, served, wait_for

HISTORY = ["Heat (1995)", "Alien (1979)"]


@pytest.mark.parametrize("given", [{}, {"candidates": OFFERED}, {"top_k": 2}])
def test_the_answer_is_that_of_the_python_api(
    recommender: Recommender, given: dict[str, Any]
) -> None:
    expected = recommender.recommend(HISTORY, **given)
    with served(recommender) as (client, _):
        found = client.post("/recommend", {"history": HISTORY, **given})
        assert found.status == 200
        assert found.json["ranked_by"] == ["language_model"]
        assert_same(found.json["recommendations"], expected)


def test_an_explanation_is_that_of_the_python_api(recommender: Recommender) -> None:
    asked = {"history": HISTORY, "candidate": "i7", "candidates": ["i3", "i8"]}
    with served(recommender) as (client, _):
        answer = client.post("/explain", asked)
        unknown = client.refused("/explain", {**asked, "candidate": "Nobody"})
    expected = recommender.explain(HISTORY, "i7", ["i3", "i8"]).to_dict()
    assert (answer.status, answer.json["title"]) == (200, expected["title"])
    assert answer.json["standing"]["score"] == pytest.approx(expected["standing"]["score"])
    assert len(answer.json["history"]) == len(HISTORY)
    assert "is not among the" in unknown


def test_several_histories_in_one_request(recommender: Recommender) -> None:
    histories = [HISTORY, ["i5"], ["i9", "i0", "i3"]]
    expected = recommender.recommend_many(histories, OFFERED)
    with served(recommender) as (client, _):
        body = {"histories": histories, "candidates": OFFERED}
        found = client.post("/recommend_many", body).json["rankings"]
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert_same(one["recommendations"], other)


def test_health_says_what_is_served(client: Client) -> None:
    found = client.get("/health")
    assert found.status == 200
    version = delrec_hf.__version__
    assert found.json == {
        "ready": True,
        "model": "tiny",
        "items": len(TITLES),
        "version": version,
        "waiting": 0,
    }


def test_the_page_describes_every_key_and_refusal(client: Client) -> None:
    page = client.get("/openapi.json").json
    assert "1,000,000 bytes" in page["info"]["description"]
    assert set(page["paths"]) == {"/recommend", "/recommend_many", "/explain", "/health"}
    for path in ("/recommend", "/recommend_many", "/explain"):
        post = page["paths"][path]["post"]
        refused = {"400", "408", "413", "422", "500", "503"}
        assert set(post["responses"]) == {"200", *refused}
        for status in refused:
            answer = post["responses"][status]["content"]["application/json"]["schema"]
            assert answer == {"$ref": "#/components/schemas/Refusal"}
    schemas = page["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    for name in ("RecommendBody", "RecommendManyBody", "Ranking", "Rankings", "Health", "Refusal"):
        assert schemas[name]["description"]
        for key in schemas[name]["properties"].values():
            assert key["description"], (name, key)
    assert "teacher_rank" in schemas["Recommendation"]["properties"]
    for name, key in (("RecommendBody", "history"), ("RecommendManyBody", "histories")):
        assert schemas[name]["properties"][key]["examples"]


def test_pages_of_other_sites_may_not_ask(client: Client) -> None:
    request = urllib.request.Request(client.url + "/health", headers={"Origin": "https://x.org"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert not [one for one in response.headers if one.lower().startswith("access-control")]


def test_the_log_names_requests_and_not_what_they_hold(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "delrec_hf.serving.refusals"):
        client.post("/recommend", {"history": ["Heat (1995)"], "top_k": 1})
        client.post("/recommend", {"history": ["Heat (1996)"]})
        client.get("/Heat%0A%20INFO%20forged")
        wait_for(lambda: len(caplog.records) == 3)  # logged once they are answered
    told = [one.getMessage() for one in caplog.records]
    assert [re.sub(r"[0-9.]+ s$", "S", one) for one in told] == [
        "POST /recommend: 200, 40 bytes, S",
        "POST /recommend: 422, 28 bytes, S",
        "GET (unknown path): 404, 0 bytes, S",
    ]
