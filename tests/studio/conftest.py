"""A data set, and a studio that serves it: one for each file of tests, which do not see one another's jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fakes

if TYPE_CHECKING:  # without the studio's extra these are skipped by the files of tests, before a fixture runs
    from api_page import Page
    from fastapi.testclient import TestClient


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from api_page import SIZE

    return fakes.mvtec_tree(tmp_path_factory.mktemp("data"), good=4, defects={"crack": 6, "hole": 6}, size=SIZE)


@pytest.fixture(scope="module")
def open_page(data: Path) -> Callable[..., TestClient]:
    from api_page import HOSTS
    from fastapi.testclient import TestClient

    from flawsmith.studio.app import create

    def start(out: Path, **more: Any) -> TestClient:
        return TestClient(create(out, [f"mvtec_ad:{data}"], [], HOSTS, **more), raise_server_exceptions=False)

    return start


@pytest.fixture(scope="module")
def page(open_page: Callable[..., TestClient], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from api_page import Page

    out = tmp_path_factory.mktemp("studio")
    with open_page(out) as client:
        yield Page(client, out)
