"""What the builder may see."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.images import TESTED, component
from trainshed.errors import UsageError
from trainshed.images.components import Component
from trainshed.images.context import ContextFile, context_files

FILES: Mapping[str, str] = {
    "src/train.py": "1",
    "src/deep/more.py": "2",
    "src/deep/more.txt": "3",
    "srcs/other.py": "4",
    "tests/test_train.py": "5",
    "README.md": "6",
    "component.yaml": "name: train\n",
    "a b.txt": "7",
}
ALL = ["Dockerfile", *FILES]


def seen(found: Component, target: str | None = None) -> list[str]:
    return [file.path for file in context_files(found, target=target)]


def of(folder: Path, *lines: str, files: Mapping[str, str | bytes] = FILES) -> Component:
    return component(folder, "FROM python:3.11\n" + "".join(f"{line}\n" for line in lines), files)


def refused(found: Component) -> str:
    with pytest.raises(UsageError) as raised:
        context_files(found, target=None)
    assert raised.value.exit_code == 2
    return raised.value.message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("COPY src /app", ["src/deep/more.py", "src/deep/more.txt", "src/train.py"]),
        ("COPY ./src/ /app", ["src/deep/more.py", "src/deep/more.txt", "src/train.py"]),
        ("COPY /src/../src/train.py /app", ["src/train.py"]),
        ("COPY ../../src/train.py /app", ["src/train.py"]),
        ("COPY --chown=1:1 src/train.py README.md /app", ["README.md", "src/train.py"]),
        ('COPY ["a b.txt", "/app"]', ["a b.txt"]),
        ('ADD "a b.txt" /app', ["a b.txt"]),
        ("COPY a\\ b.txt /app", ["a b.txt"]),
        ("COPY src/deep/*.py /app", ["src/deep/more.py"]),
        ("COPY s[r]c/* /app", ["src/deep/more.py", "src/deep/more.txt", "src/train.py"]),
        ("COPY none* /app", []),
        ("COPY . /app", sorted(ALL)),
        ("COPY ${WHAT} /app", sorted(ALL)),
        ("RUN --mount=type=bind,target=/all true", sorted(ALL)),
        ("RUN --mount=source=src/deep,target=/deep true", ["src/deep/more.py", "src/deep/more.txt"]),
        ("RUN --mount=type=bind,src=README.md,target=/r true", ["README.md"]),
        ("RUN --mount=type=bind,from=a,source=none,target=/n --mount=type=cache,target=/c true", []),
        ("COPY --from=other:1 /none /app", []),
        ("ADD https://example.org/x.tar git@example.org:x/y.git /app/", []),
        ("COPY <<EOF /app/x\nCOPY . /app\nEOF", []),
        ("RUN cp -r src /app", []),
    ],
)
def test_the_image_sees_what_its_instructions_can_reach(tmp_path: Path, line: str, expected: list[str]) -> None:
    assert seen(of(tmp_path, line)) == expected


def test_the_tests_see_more_than_the_image(tmp_path: Path) -> None:
    found = component(tmp_path, TESTED, FILES)
    image = ["src/deep/more.py", "src/deep/more.txt", "src/train.py"]
    assert seen(found) == image
    assert seen(found, "test") == [*image, "tests/test_train.py"]


def test_ignored_files_are_not_seen_even_if_they_are_copied(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY src /app", files={**FILES, ".dockerignore": "**/deep\n"})
    assert seen(found) == ["src/train.py"]


def test_a_file_below_an_ignored_folder_can_be_brought_back(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY . /app", files={**FILES, ".dockerignore": "**\n!src/deep/*.py\n"})
    assert seen(found) == ["src/deep/more.py"]


def test_the_ignore_file_of_the_dockerfile_goes_before_the_general_one(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY src /app", files={**FILES, ".dockerignore": "src\n", "Dockerfile.dockerignore": "**/deep\n"})
    assert seen(found) == ["src/train.py"]


def test_a_broken_ignore_file_is_refused_with_its_line(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY src /app", files={**FILES, ".dockerignore": "a\n[\n"})
    assert refused(found).startswith(f"{found.folder}/.dockerignore:2: ")


def test_an_ignore_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    assert ".dockerignore: the list of ignored files is not UTF-8" in refused(of(tmp_path, files={".dockerignore": b"\xff"}))


def test_entries_say_what_they_are(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY . /app", files={"run.sh": "", "plain": ""})
    (found.folder / "run.sh").chmod(0o700)
    (found.folder / "link").symlink_to("plain")
    (found.folder / "empty").mkdir()
    files = {file.path: file for file in context_files(found, target=None)}
    assert {path: (file.kind, file.executable, file.target) for path, file in files.items()} == {
        "Dockerfile": ("file", False, ""),
        "empty": ("dir", False, ""),
        "link": ("link", False, "plain"),
        "plain": ("file", False, ""),
        "run.sh": ("file", True, ""),
    }
    assert files["run.sh"].source == found.folder / "run.sh"


@pytest.mark.parametrize("target", ["/etc/passwd", "../other/secret", "src/../../secret"])
def test_a_link_out_of_the_context_is_refused_with_both_ends(tmp_path: Path, target: str) -> None:
    found = of(tmp_path, "COPY src /app")
    (found.folder / "link").symlink_to(target)
    assert refused(found) == f"{found.folder}/link: the link leads out of the build context, to {target}"


def test_an_ignored_link_may_lead_anywhere(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY src /app", files={**FILES, ".dockerignore": ".venv\n"})
    (found.folder / ".venv").mkdir()
    (found.folder / ".venv/python").symlink_to("/usr/bin/python3")
    assert "src/train.py" in seen(found)


def test_links_inside_the_context_are_links_and_are_not_followed(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY src /app")
    (found.folder / "src/up").symlink_to("../tests")
    (found.folder / "src/dangling").symlink_to("nowhere")
    links = [file for file in context_files(found, target=None) if file.kind == "link"]
    assert [(file.path, file.target) for file in links] == [("src/dangling", "nowhere"), ("src/up", "../tests")]
    assert "src/up/test_train.py" not in seen(found)


@pytest.mark.parametrize("source", ["link", "link/train.py", "lin*"])
def test_a_source_that_the_builder_reaches_through_a_link_may_be_anything(tmp_path: Path, source: str) -> None:
    found = of(tmp_path, f"COPY {source} /app")
    (found.folder / "link").symlink_to("src")
    assert seen(found) == sorted([*ALL, "link"])


def test_a_fifo_and_a_socket_are_refused_both_at_once(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY src /app")
    os.mkfifo(found.folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(found.folder / "socket"))
        lines = refused(found).splitlines()
    assert sorted(lines) == [f"{found.folder}/{name}: neither file, folder nor link: no builder takes it" for name in ("fifo", "socket")]


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY src /app")
    with open(os.fsencode(found.folder) + b"/caf\xe9", "wb"):  # noqa: PTH123
        pass
    assert "the name of b'caf\\xe9' is not UTF-8" in refused(found)


def test_a_name_in_any_script_is_taken(tmp_path: Path) -> None:
    assert seen(of(tmp_path, "COPY data /app", files={"data/größe.csv": ""})) == ["data/größe.csv"]


def test_a_source_that_is_not_there_is_refused_with_the_line_that_asks_for_it(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY src /app", "COPY gone.py /app")
    assert refused(found) == f"{found.folder}/Dockerfile:3: 'gone.py' is not there"


def test_a_source_that_is_ignored_is_refused_with_the_reason(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY README.md /app", files={**FILES, ".dockerignore": "*.md\n"})
    assert refused(found) == f"{found.folder}/Dockerfile:2: 'README.md' is left out by .dockerignore"


def test_a_folder_whose_files_are_all_ignored_is_copied_empty(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY data/raw /app", files={"data/raw/x.csv": "", ".dockerignore": "**/*.csv\n"})
    assert [(file.path, file.kind) for file in context_files(found, target=None)] == [("data/raw", "dir")]


def test_files_made_by_python_do_not_show_when_they_are_ignored(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY src /app", files={"src/a.py": "", "src/__pycache__/a.pyc": "", ".dockerignore": "**/*.pyc\n"})
    assert seen(found) == ["src/a.py"]


def test_the_listing_is_sorted_whatever_the_disk_says(tmp_path: Path) -> None:
    found = of(tmp_path, "COPY . /app", files={f"{name}/x": "" for name in ("c", "a", "b")})
    files: list[ContextFile] = context_files(found, target=None)
    assert [file.path for file in files] == ["Dockerfile", "a/x", "b/x", "c/x"]
