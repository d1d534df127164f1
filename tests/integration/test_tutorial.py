"""The tutorial, done as it is written: its commands are typed, its files are saved, and what it says then holds."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "first-component.md"
LIMIT = 600
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody who follows a page, in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def type(self, command: str) -> str:
        """Type a command, see that it succeeds, return all that it said."""
        words = shlex.split(command)
        if words[0] == "cd":
            self.folder /= words[1]
            return ""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def follow(self, part: str) -> list[str]:
        """Type and save what a part of the page shows, in its order; return what each command said."""
        said, end = [], 0
        for block in _BLOCK.finditer(part):
            if block[1] == "console":
                said += [self.type(line.removeprefix("$ ")) for line in block[2].splitlines()]
            else:
                (path,) = re.findall(r"`([\w./-]+/[\w.-]+\.\w+)`:\s*$", part[end : block.start()])
                (self.folder / path).write_text(block[2])
            end = block.end()
        return said

    def digests(self) -> dict[str, str]:
        """Return the digest of each image of the lock."""
        lock = json.loads((self.folder / "build" / "images.lock.json").read_text())
        return {name: image["digest"] for name, image in lock["images"].items()}


@pytest.fixture
def reader(tmp_path: Path, base_image: str) -> Iterator[Reader]:
    assert base_image
    reader = Reader(tmp_path)
    yield reader
    if (reader.folder / "trainshed.toml").exists():
        reader.type("trainshed local down")


def test_the_tutorial_s_commands_do_what_it_says(reader: Reader) -> None:
    first, own, change, _ = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]

    *_, plan, _ = reader.follow(first)
    assert "never built here" in plan
    before = reader.digests()
    assert sorted(before) == ["base-python", "hello"]
    assert before["hello"] in (reader.folder / "build/pipelines/hello.yaml").read_text()

    reader.follow(own)
    plan, run, _ = reader.follow(change)
    assert "count-words" in plan
    after = reader.digests()
    assert sorted(after) == ["base-python", "count-words", "hello"]
    assert {name: after[name] for name in before} == before
    assert after["count-words"] in (reader.folder / "build/pipelines/hello.yaml").read_text()
    assert "SUCCEEDED" in run
