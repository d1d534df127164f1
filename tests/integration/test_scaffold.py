"""What ``trainshed init`` writes is ready to run: a scaffolded service is built, tested, deployed, and answers."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(sys.executable).parent / "trainshed"
LIMIT = 600


def trainshed(folder: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [PROGRAM, *words, "--json"], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture
def repository(tmp_path: Path, base_image: str) -> Iterator[Path]:
    """Return a scaffolded repository with a service; what it started is stopped after the test."""
    assert base_image
    trainshed(tmp_path, "init")
    trainshed(tmp_path, "init", "--component", "greeter", "--kind", "service")
    yield tmp_path
    trainshed(tmp_path, "local", "down")


def test_a_scaffolded_service_is_built_tested_deployed_and_answers(repository: Path) -> None:
    images = trainshed(repository, "images")
    assert images["status"] == "green"
    assert {result["name"] for result in images["results"]} == {"base-python", "greeter", "hello"}
    (deployed,) = trainshed(repository, "deploy", "greeter", "--wait")["results"]
    assert deployed["status"] == "done"
    request = urllib.request.Request(f"{deployed['url']}/predict", data=b'{"who": "Ada"}')  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
        digest = json.loads((repository / "build/images.lock.json").read_text())["images"]["greeter"]["digest"]
        assert json.load(answer) == {"greeting": "Hello, Ada!", "served_by": {"image": digest}}
