"""What is hashed and sent is what a plain build of the folder uses: both builds give the same files."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.images import component
from trainshed.images.archive import write_context
from trainshed.images.components import Component
from trainshed.images.context import context_files
from trainshed.tools.builder import BuildClient

FILES: Mapping[str, str | bytes] = {
    "src/a.py": "a",
    "src/deep/b.py": "b",
    "src/deep/b.txt": "b",
    "src/deep/c.log": "kept from the builder",
    "data/x[1].csv": "1",
    "data/größe 2.csv": "2",
    "data/never.md": "never copied",
    "run.sh": "run",
    "tests/test_a.py": "never copied",
    ".dockerignore": "# rules\n**/*.log\n/data/*.md\n!src/keep.log\n",
    "src/keep.log": "back",
}
SOURCES = (
    "COPY src /0/",
    "COPY ./src/deep/*.py run.sh /1/",
    'COPY ["data/größe 2.csv", "/2/"]',
    "COPY /src/../run.sh /3/run",
    "COPY s[r]c/dee? /4/",
    "ADD data/x[[]1].csv /5/",
    "COPY none* src/a.py /6/",
    "COPY ../../run.sh /7/",
    "COPY empty /8/",
    "ADD src/link /9/",
)

Content = dict[str, tuple[bytes, int, str, bytes]]


@pytest.fixture
def client(docker_host: str) -> BuildClient:
    found = BuildClient.probe(engine_host=docker_host)
    assert found.buildkit
    return found


def built(client: BuildClient, folder: Path, context: bytes | None, out: Path) -> Content:
    """Build a context (None: the folder itself) and return what is in the image: type, mode, link target and bytes by path."""
    command = [client.program, *(["buildx"] if client.buildx else []), "build", "--output", f"type=tar,dest={out}"]
    where = str(folder) if context is None else "-"
    done = subprocess.run(
        [*command, "--target", "image", where],
        input=context or b"",
        env={**os.environ, **client.environment()},
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    with tarfile.open(out) as archive:
        members = [(member, archive.extractfile(member) if member.isreg() else None) for member in archive]
        return {m.name.rstrip("/"): (m.type, m.mode & 0o111, m.linkname, stream.read() if stream else b"") for m, stream in members}


def sent(found: Component) -> bytes:
    out = io.BytesIO()
    write_context(context_files(found, target=None), found.dockerfile.text, out)
    return out.getvalue()


def both(client: BuildClient, found: Component) -> tuple[Content, Content]:
    folder = found.folder.parent
    return built(client, found.folder, None, folder / "plain.tar"), built(client, found.folder, sent(found), folder / "sent.tar")


def prepared(folder: Path, lines: tuple[str, ...], *, link: bool) -> Component:
    dockerfile = "FROM scratch AS image\n" + "".join(f"{line}\n" for line in lines) + "FROM image AS test\nCOPY tests /tests\n"
    found = component(folder, dockerfile, FILES)
    (found.folder / "run.sh").chmod(0o755)
    (found.folder / "empty").mkdir()
    if link:
        (found.folder / "src/link").symlink_to("deep/b.py")
    return found


@pytest.mark.parametrize("link", [False, True])
def test_the_chosen_files_give_the_image_that_the_whole_folder_gives(client: BuildClient, tmp_path: Path, link: bool) -> None:
    found = prepared(tmp_path, SOURCES if link else SOURCES[:-1], link=link)
    plain, chosen = both(client, found)
    assert chosen == plain
    assert plain["0/deep/b.txt"][3] == b"b"
    assert "0/deep/c.log" not in plain
    assert plain["0/keep.log"][3] == b"back"
    if not link:
        assert not {"tests/test_a.py", "data/never.md"} & {file.path for file in context_files(found, target=None)}


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_built_anew(client: BuildClient, tmp_path: Path) -> None:
    found = prepared(tmp_path, ("COPY src/a.py /a",), link=False)
    file = found.folder / "src/a.py"
    os.utime(file, (1, 1))
    assert built(client, found.folder, sent(found), tmp_path / "1.tar")["a"][3] == b"a"
    file.write_text("b")
    os.utime(file, (1, 1))
    assert built(client, found.folder, sent(found), tmp_path / "2.tar")["a"][3] == b"b"
