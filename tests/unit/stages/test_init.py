"""``trainshed init``: what is written is a project that the other stages take, and nothing that exists is touched."""

from __future__ import annotations

import contextlib
import io
import socket
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainshed import config
from trainshed.console import Console
from trainshed.errors import UsageError
from trainshed.images import components
from trainshed.images.graph import Graph
from trainshed.results import Report
from trainshed.services import golden, spec
from trainshed.stages.init import init

ROOT = Path(__file__).resolve().parents[3]


class Place:
    """A folder to scaffold in, and what people are told."""

    def __init__(self, root: Path) -> None:
        self.root, self.stream = root, io.StringIO()

    def init(self, component: str | None = None, kind: str | None = None, *, below: str = "") -> Report:
        return init(Console(self.stream), self.root / below, component=component, kind=kind)

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.root.rglob("*") if path.is_file() or path.is_symlink())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "Risk Models"
    root.mkdir()
    return Place(root)


def test_a_new_repository_has_a_base_a_step_and_a_pipeline_that_the_stages_take(place: Place) -> None:
    report = place.init()
    assert report.exit_code == 0
    loaded = config.load(place.root / "trainshed.toml", environment="local")
    assert loaded.project.name == "risk-models"
    found = components.discover(loaded.project.components)
    assert {name: component.kind for name, component in found.items()} == {"base-python": "base", "hello": "step"}
    assert all(component.has_tests and component.structure_test for component in found.values())
    assert Graph.of(found, {}).bases("hello") == ("base-python",)
    assert (place.root / "pipeline_templates" / "hello.py").is_file()
    assert "/.trainshed/" in (place.root / ".gitignore").read_text().splitlines()


def test_no_placeholder_is_left_in_any_file(place: Place) -> None:
    place.init()
    place.init("served", "service")
    place.init("other-base", "base")
    for name, content in place.files().items():
        assert b"@name@" not in content, name
        assert b"@project@" not in content, name
        assert b"@base" not in content, name
        assert not name.endswith(".template")


def test_the_report_names_every_file_that_was_written(place: Place) -> None:
    report = place.init()
    named = [path for result in report.results for path in result.details["files"]]
    assert sorted(named) == sorted(place.files())
    assert all(f"wrote {path}" in place.stream.getvalue() for path in named)


def test_python_files_compile_and_documents_parse(place: Place) -> None:
    place.init()
    place.init("served", "service")
    for name, content in place.files().items():
        if name.endswith(".py"):
            compile(content, name, "exec")
        elif name.endswith(".yaml"):
            assert yaml.safe_load(content)
        elif name.endswith(".toml"):
            tomllib.loads(content.decode())


def test_a_step_is_added_by_default_from_any_folder_of_the_project(place: Place) -> None:
    place.init()
    place.init("count-words", below="components")
    found = components.discover(place.root / "components")
    assert found["count-words"].kind == "step"
    step = yaml.safe_load((place.root / "components/count-words/component.yaml").read_text())
    assert step["implementation"]["container"]["image"] == "component.invalid/count-words:unstamped"
    assert Graph.of(found, {}).bases("count-words") == ("base-python",)


def test_a_service_comes_with_a_description_and_golden_predictions_that_hold(place: Place) -> None:
    place.init()
    place.init("greeter", "service")
    service = spec.load(place.root / "components/greeter/service.yaml", environment="local")
    assert (service.name, service.port) == ("greeter", 8080)
    assert service.golden is not None
    assert [request.path for request in golden.load(service.golden)] == ["/predict"]


@pytest.mark.sockets
def test_a_service_answers_in_one_piece_and_lets_a_burst_of_connections_wait(place: Place) -> None:
    place.init()
    place.init("greeter", "service")
    (program,) = place.root.glob("components/greeter/main.py")
    service: dict[str, Any] = {"__name__": "main"}
    exec(compile(program.read_text(), program, "exec"), service)  # noqa: S102 - the program that was written
    pieces: list[bytes] = []

    class Sent(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, piece: Any) -> int:
            pieces.append(bytes(piece))
            return len(piece)

    answering: Any = service["Handler"]

    class Handler(answering):  # type: ignore[misc]
        wfile: Any

        def setup(self) -> None:
            super().setup()
            self.wfile.close()
            self.wfile = io.BufferedWriter(Sent()) if self.wbufsize else Sent()

        def log_message(self, *_: object) -> None:
            pass

    with service["Server"](("127.0.0.1", 0), Handler) as server, contextlib.ExitStack() as waiting:
        clients = [waiting.enter_context(socket.create_connection(server.server_address, timeout=5)) for _ in range(64)]
        clients[0].sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        connection, address = server.get_request()
        with connection:
            server.finish_request(connection, address)
    assert len(pieces) == 1
    assert pieces[0].startswith(b"HTTP/1.1 200")
    assert pieces[0].endswith(b'{"status": "ok"}')


def test_a_project_without_the_base_gets_it_with_its_first_step(project: Path) -> None:
    place = Place(project)
    report = place.init("first")
    assert [result.name for result in report.results] == ["base-python", "first"]
    assert sorted(components.discover(project / "components")) == ["base-python", "first"]


def test_a_base_needs_no_other_component(project: Path) -> None:
    Place(project).init("base-cuda", "base")
    assert sorted(components.discover(project / "components")) == ["base-cuda"]


def test_a_repository_that_has_components_keeps_them_and_gets_settings_only(place: Place) -> None:
    (place.root / "components" / "mine").mkdir(parents=True)
    (place.root / "components" / "mine" / "Dockerfile").write_text("FROM scratch\n")
    (place.root / ".gitignore").write_text("mine\n")
    place.init()
    assert sorted(place.files()) == [".gitignore", "components/mine/Dockerfile", "trainshed.toml", "waivers.toml"]
    assert (place.root / ".gitignore").read_text() == "mine\n"


def test_a_second_init_is_refused_and_changes_nothing(place: Place) -> None:
    place.init()
    before = place.files()
    with pytest.raises(UsageError, match="a project already"):
        place.init()
    assert place.files() == before


@pytest.mark.parametrize("kind", ["base", "step", "service"])
def test_a_component_that_exists_is_refused_and_not_touched(place: Place, kind: str) -> None:
    place.init()
    before = place.files()
    with pytest.raises(UsageError, match="exists already"):
        place.init("hello", kind)
    assert place.files() == before


@pytest.mark.parametrize("name", ["", "Upper", "-dash", "dash-", "a/b", "../out", "a b", "ünder", "under_score", "a\n"])
def test_a_name_that_is_none_is_refused_and_nothing_is_written(place: Place, name: str) -> None:
    place.init()
    before = place.files()
    with pytest.raises(UsageError, match="is no name of a component"):
        place.init(name)
    assert place.files() == before


def test_a_kind_without_a_component_is_refused(place: Place) -> None:
    with pytest.raises(UsageError, match="--kind"):
        place.init(kind="step")
    assert place.files() == {}


def test_a_component_outside_of_any_project_is_refused(place: Place) -> None:
    with pytest.raises(UsageError, match=r"no trainshed\.toml"):
        place.init("lonely")


def test_a_folder_that_takes_no_files_is_an_error_with_its_name(project: Path) -> None:
    (project / "components").rmdir()
    (project / "components").write_text("a file in the place of the folder")
    with pytest.raises(UsageError, match="components: cannot be written"):
        Place(project).init("base-one", "base")


def test_the_scaffold_installs_packages_as_the_example_does(place: Place) -> None:
    place.init()
    script = "components/base-python/install-locked"
    assert (place.root / script).read_text() == (ROOT / script).read_text()
