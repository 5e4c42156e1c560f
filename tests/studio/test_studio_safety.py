"""The studio's API: what strangers get, and that no path, upload or odd request leads further."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio's extra is absent: pip install 'flawsmith[studio]'")

from api_page import OURS, Page
from fastapi.testclient import TestClient

import fakes


def test_other_hosts_pages_and_forms_get_nothing(page: Page) -> None:
    ask = page.client.request
    for headers, status in (
        ({"Host": "evil.example"}, 421),  # a name that was pointed at this machine
        ({"Host": "testserver.evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ):
        assert ask("GET", "/api/state", headers=headers).status_code == status, headers
        assert ask("GET", f"/api/data/{page.data_set}/{page.good}", headers=headers).status_code == status
        assert ask("POST", "/api/make", json={}, headers={**OURS, **headers}).status_code == status
    for method, path in (("POST", "/api/make"), ("DELETE", "/api/jobs/000000000000"), ("PUT", "/api/uploads/a/b.png")):
        assert ask(method, path, headers={"Content-Type": "text/plain"}).status_code == 403  # as a form would send it
    assert ask("GET", "/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200
    safe = ask("GET", "/").headers
    assert "default-src 'self'" in safe["content-security-policy"] and safe["x-content-type-options"] == "nosniff"


def test_with_a_token_nothing_is_answered_without_it(open_page: Callable[..., TestClient], tmp_path: Path) -> None:
    with open_page(tmp_path, token="s3cret") as client:
        for path, headers in itertools.product(
            ("/", "/api/state", "/static/main.js"), ({}, {"Cookie": "flawsmith_token=x"})
        ):
            assert client.get(path, headers=headers).status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/api/state", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        first = client.get("/?token=s3cret")
        assert first.status_code == 200 and "HttpOnly; SameSite=Strict" in first.headers["set-cookie"]
        assert client.get("/api/state").status_code == 200  # by the cookie


@pytest.mark.parametrize(
    "odd", ["..", "../../etc/passwd", "%2e%2e%2fetc%2fpasswd", "..%5c..%5cx", "0" * 12, "", "\0", "a" * 5000]
)
def test_no_path_leads_out(page: Page, odd: str) -> None:
    for path in (f"/api/data/{odd}/x", f"/api/data/{page.data_set}/{odd}", f"/api/sets/{odd}", f"/api/exports/{odd}",
                 f"/api/sets/{odd}/0/image", f"/api/masks/{page.data_set}/{odd}", f"/static/{odd}"):  # fmt: skip
        try:
            answer = page.client.get(path)
        except Exception as error:  # the client itself refuses such an address
            assert type(error).__name__ == "InvalidURL"
            continue
        assert answer.status_code in (200, 400, 404, 405, 422) and b"root:" not in answer.content
        if answer.status_code == 200:
            assert path.rstrip("/").count("/") < 4 and odd in ("", "..")


def test_uploads_are_images_in_their_own_folder(page: Page, tmp_path: Path) -> None:
    image = fakes.save(tmp_path / "a.png", fakes.photo(1)).read_bytes()
    before = {path for path in page.out.parent.rglob("*") if "studio" not in path.parts[-1]}
    for name, path, content in (
        ("..", "x.png", image), ("a", "../x.png", image), ("a", "%2e%2e/%2e%2e/x.png", image),
        ("a", ".hidden.png", image),
        ("a", "x.py", image), ("a", "x.png", b"no image"), ("a", "x.png", b""), ("a", "a/b/c/d/e/f/g/h/i.png", image),
        ("C:", "x.png", image), ("a", "x\n.png", image),
    ):  # fmt: skip
        try:
            answer = page.client.put(f"/api/uploads/{name}/{path}", content=content, headers=OURS)
        except Exception as error:
            assert type(error).__name__ == "InvalidURL"
            continue
        assert answer.status_code in (400, 404, 405), (name, path, answer.status_code)
    assert {path for path in page.out.parent.rglob("*") if "studio" not in path.parts[-1]} >= before
    assert not [p for p in (page.out / "uploads").rglob("*") if p.is_file()]
    huge = page.client.put("/api/uploads/a/x.png", content=b"", headers={**OURS, "Content-Length": str(10**10)})
    assert huge.status_code == 413
    for number in range(2):
        own = fakes.save(tmp_path / f"{number}.png", fakes.photo(number)).read_bytes()
        assert page.client.put(f"/api/uploads/new one/good/{number}.png", content=own, headers=OURS).status_code == 200
    id_ = page.post("/api/uploads/new one")["id"]
    assert len(page.get(f"/api/data/{id_}")["images"]) == 2


def test_options_that_could_name_a_file_are_not_offered(page: Page) -> None:
    offered = page.get("/api/state")["methods"]
    assert "textures" not in offered["perlin"]["options"] and "beta" in offered["perlin"]["options"]
    asked = {"data_set": page.data_set, "image": page.good, "method": "perlin"}
    for changes in (
        {"options": {"textures": "/etc"}}, {"options": {"beta": [5, 9]}}, {"options": {"nonsense": 1}},
        {"method": "os:system"}, {"method": "/etc"}, {"family": "/etc/passwd"}, {"family": "learned"},
        {"count": 1000}, {"seed": -1}, {"defect_type": "../x"}, {"extra": 1}, {"image": "../x"},
    ):  # fmt: skip
        answer = page.client.post("/api/make", json={**asked, **changes}, headers=OURS)
        assert answer.status_code in (400, 422), (changes, answer.text)


def test_no_request_breaks_the_server_or_what_it_says_of_itself(page: Page) -> None:
    """Every route that is described, with requests that keep to its schema and others, drawn by schemathesis.

    Half of them name a data set and an image that are there: behind them lies most of the code.
    """
    schemathesis = pytest.importorskip("schemathesis", reason="draws the requests: pip install schemathesis")
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from schemathesis import GenerationMode, checks
    from schemathesis.specs.openapi import checks as of_openapi

    chosen = [
        checks.not_a_server_error,
        of_openapi.status_code_conformance,
        of_openapi.content_type_conformance,
        of_openapi.response_schema_conformance,
    ]
    there = {"data_set": page.data_set, "key": page.good, "image": page.good, "method": "perlin"}
    raw = [b"", b"[]", b'{"a":' * 2000, b'\xff{"data_set":1e999}', b'{"data_set":1e999}']
    answers: Counter[int] = Counter()
    modes = st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    described = schemathesis.openapi.from_asgi("/api/openapi.json", page.client.app)
    for operation in (found.ok() for found in described.get_all_operations()):
        if operation.path in ("/api/methods", "/api/fit"):  # they import torch
            continue

        @settings(
            max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=modes.flatmap(lambda mode, op=operation: op.as_strategy(generation_mode=mode)), known=st.booleans())
        def try_it(case: Any, known: bool) -> None:
            for given_ in (case.path_parameters, case.body):
                if known and isinstance(given_, dict):
                    given_.update({name: value for name, value in there.items() if name in given_})
            answer = case.call(headers=OURS)
            answers[answer.status_code] += 1
            case.validate_response(answer, checks=chosen)

        try_it()
        for body in raw if operation.method in ("post", "put") else ():
            path = operation.path.format(
                **dict.fromkeys(("name", "path", "id_", "index", "what", "word", "set_"), "-1"), **there
            )
            answer = page.client.request(operation.method, path, content=body, headers=OURS)
            assert answer.status_code < 500, (operation.path, body, answer.text)
    assert answers.total() > 200 and answers[200] > 20, answers
    for job in page.get("/api/jobs"):
        if job["status"] in ("queued", "running"):
            page.client.delete(f"/api/jobs/{job['id']}", headers=OURS)
    assert page.get("/api/state")["version"]
