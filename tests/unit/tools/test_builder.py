"""The client that builds: which one is taken, what it is told, what its failures mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainshed.errors import RemoteError, ToolMissing
from trainshed.tools.builder import BuildClient, Order
from trainshed.tools.credentials import Login, lookup
from trainshed.tools.process import ProcessFailed

HOST, SECRET = "unix:///nowhere/docker.sock", "hush"
BUILD = 'while [ $# -gt 1 ]; do [ "$1" = --iidfile ] && echo sha256:abc > "$2"; shift; done; cat'


def client(folder: Path, version: str, *, buildx: bool = False, build: str = BUILD) -> Path:
    folder.mkdir(parents=True)
    program = folder / "docker"
    program.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && {{ echo "Docker version {version}, build x"; exit 0; }}\n'
        f'[ "$1 $2" = "buildx version" ] && exit {0 if buildx else 1}\n'
        'echo "arguments: $*"; echo "engine: $DOCKER_HOST, buildkit: $DOCKER_BUILDKIT"\n' + build + "\n"
    )
    program.chmod(0o755)
    return folder


def order(folder: Path, **changed: object) -> Order:
    context = folder / "context.tar"
    context.write_bytes(b"the context\n")
    given: dict[str, object] = {"context": context, "dockerfile": "Dockerfile", "tag": "x:1", "log": folder / "log"}
    return Order(**{**given, **changed})  # type: ignore[arg-type]


def test_the_first_client_that_can_buildkit_is_taken_wherever_it_stands(tmp_path: Path) -> None:
    new, old = client(tmp_path / "new", "28.1.0"), client(tmp_path / "old", "20.10.24+dfsg1")
    found = BuildClient.probe(engine_host=HOST, path=f"{tmp_path / 'none'}:{new}:{old}")
    assert (found.program, found.version, found.buildkit, found.buildx) == (str(old / "docker"), "20.10.24+dfsg1", True, False)
    assert found.described() == f"{old / 'docker'} 20.10.24+dfsg1 (BuildKit)"


def test_a_plugin_makes_a_new_client_fit(tmp_path: Path) -> None:
    found = BuildClient.probe(engine_host=HOST, path=str(client(tmp_path / "new", "28.1.0", buildx=True)))
    assert (found.buildkit, found.described().endswith("(buildx)")) == (True, True)


def test_the_classic_builder_is_the_last_resort_and_says_so(tmp_path: Path) -> None:
    found = BuildClient.probe("docker", engine_host=HOST, path=str(client(tmp_path / "new", "28.1.0")))
    assert not found.buildkit
    assert "the classic builder, without secrets" in found.described()


@pytest.mark.parametrize(("builder", "message"), [("auto", "no docker client"), ("buildx:far", "needs the buildx plugin")])
def test_no_client_that_fits_is_told(tmp_path: Path, builder: str, message: str) -> None:
    path = client(tmp_path / "old", "20.10.0") if builder != "auto" else tmp_path
    with pytest.raises(ToolMissing, match=message):
        BuildClient.probe(builder, engine_host=HOST, path=str(path))


def test_a_build_gets_its_context_on_stdin_and_its_engine_by_environment(tmp_path: Path) -> None:
    found = BuildClient.probe(engine_host=HOST, path=str(client(tmp_path / "old", "20.10.0")))
    assert found.build(order(tmp_path)) == "sha256:abc"
    log = (tmp_path / "log").read_text()
    assert f"engine: {HOST}, buildkit: 1" in log
    assert log.endswith("the context\n")


def test_a_secret_that_a_build_shows_is_masked_in_its_log_and_its_error(tmp_path: Path) -> None:
    shown = client(tmp_path / "old", "20.10.0", build="echo got hush-hush; exit 1")
    wanted = order(tmp_path, masked=["hush-hush"])
    with pytest.raises(ProcessFailed) as caught:
        BuildClient.probe(engine_host=HOST, path=str(shown)).build(wanted)
    assert (tmp_path / "log").read_text().endswith("got ***\n")
    assert not any("hush" in text for text in (caught.value.message, caught.value.outcome.output, repr(wanted)))


def test_the_command_names_everything_but_no_value_of_a_secret_or_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://name:hush@proxy:1")
    wanted = order(
        tmp_path,
        target="test",
        args={"B": "2", "A": "1"},
        secrets={"pip": Path("/run/pip")},
        platform="linux/amd64",
    )
    plain = BuildClient(program="docker", version="20.10", buildkit=True, buildx=False, engine_host=HOST)
    told = plain.arguments(wanted, Path("/iid"))
    assert told[:6] == ["docker", "build", "--progress", "plain", "--iidfile", "/iid"]
    text = " ".join(told)
    for part in (
        "--file Dockerfile --tag x:1 --target test --platform linux/amd64",
        "--build-arg A=1 --build-arg B=2 --build-arg HTTPS_PROXY --secret id=pip,src=/run/pip -",
    ):
        assert part in text
    assert "hush" not in text


def test_a_buildx_instance_loads_the_image_without_provenance(tmp_path: Path) -> None:
    far = BuildClient(program="docker", version="28", buildkit=True, buildx=True, engine_host=HOST, instance="far")
    told = far.arguments(order(tmp_path), Path("/iid"))
    assert told[:8] == ["docker", "buildx", "build", "--load", "--provenance=false", "--sbom=false", "--builder", "far"]


def test_the_classic_builder_is_spared_what_it_does_not_know(tmp_path: Path) -> None:
    classic = BuildClient(program="docker", version="28", buildkit=False, buildx=False, engine_host=HOST)
    told = classic.arguments(order(tmp_path, secrets={"pip": Path("/x")}, platform="linux/amd64"), Path("/iid"))
    assert not {"--secret", "--platform", "--progress"} & set(told)
    assert classic.environment()["DOCKER_BUILDKIT"] == "0"


def test_a_failed_build_and_an_engine_that_went_away_are_told_apart(tmp_path: Path) -> None:
    failing = BuildClient.probe(engine_host=HOST, path=str(client(tmp_path / "a", "20.10.0", build="echo wrong; exit 1")))
    with pytest.raises(ProcessFailed, match="ended with code 1"):
        failing.build(order(tmp_path))
    gone = client(tmp_path / "b", "20.10.0", build="echo 'Cannot connect to the Docker daemon at x'; exit 1")
    with pytest.raises(RemoteError, match="went away during the build"):
        BuildClient.probe(engine_host=HOST, path=str(gone)).build(order(tmp_path, log=tmp_path / "other"))


def test_a_lent_log_in_reaches_the_client_by_its_configuration_and_nothing_else(tmp_path: Path) -> None:
    shown = client(tmp_path / "old", "20.10.0", build=f'{BUILD}; cp "$DOCKER_CONFIG/config.json" {tmp_path}; echo "$DOCKER_CONFIG"; env')
    wanted = order(tmp_path, logins={"r.example.org": Login(username="AWS", password=SECRET)})
    assert BuildClient.probe(engine_host=HOST, path=str(shown)).build(wanted) == "sha256:abc"
    log = (tmp_path / "log").read_text()
    folder = next(Path(line) for line in log.splitlines() if line.startswith(str(tmp_path / ".trainshed-partial-")))
    assert not folder.exists()
    assert lookup("r.example.org", folder=tmp_path) == Login(username="AWS", password=SECRET)
    assert not any(text in told for told in (log, repr(wanted)) for text in (SECRET, "QVdTOmh1c2g="))
