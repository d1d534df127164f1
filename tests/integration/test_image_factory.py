"""Builds, pushes and tests of images, on a real engine and a real registry."""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.image_world import BASE, NORMALISED, World, world
from tests.support.registry import nobody, running_registry
from trainshed.errors import RemoteError, UsageError, WorkFailed
from trainshed.images.inputs import Inputs
from trainshed.tools.docker import temporary_tag

PLAIN = f"FROM {BASE}\nCOPY program.py /program.py\n"
CHECK = """import os, socket
try:
    socket.create_connection(("1.1.1.1", 53), timeout=1)
    network = True
except OSError:
    network = False
content = open("/program.py").read()
with open(os.environ["TRAINSHED_JUNIT"], "w") as out:
    out.write(f'<testsuite name="unit" tests="2"><testcase classname="unit" name="user-{os.getuid()}-network-{network}"/>')
    failure = "" if "42" in content else '<failure message="no 42"/>'
    out.write(f'<testcase classname="unit" name="answer">{failure}</testcase></testsuite>')
raise SystemExit(0 if "42" in content else 1)
"""
TESTED = f"""FROM {BASE} AS program
COPY program.py /program.py
FROM program AS test
COPY check.py /check.py
USER 1234:1234
CMD ["python3", "/check.py"]
FROM program
USER 1234:1234
CMD ["python3", "/program.py"]
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[World]:
    assert base_image == BASE
    folder = tmp_path_factory.mktemp("factory")
    with running_registry(folder / "registry") as address, world(folder / "project", address) as made:
        yield made


def unfinished(here: World, name: str) -> list[str]:
    """Return the tags that mark a component's image, or its tests', as unfinished work."""
    tags = (temporary_tag(name), temporary_tag(f"{name}-test"))
    return [tag for tag in tags if here.context.engine.image(tag) is not None]


def test_an_image_is_built_pushed_and_found_again_by_its_inputs(here: World) -> None:
    component = here.component("plain", {"Dockerfile": PLAIN, "program.py": "print(1)\n"})
    reference = here.pushed(component)
    tag = f"{here.repository(component)}:in-{here.inputs(component).digest.removeprefix('sha256:')}"
    assert here.context.registry.digest(tag) == reference.partition("@")[2]
    assert unfinished(here, component.name) == []


def test_the_content_of_the_tree_is_built_even_where_size_and_time_stayed_equal(here: World) -> None:
    old, new = secrets.token_hex(8), secrets.token_hex(8)  # nothing that an earlier run left in the builder's cache
    component = here.component("same", {"Dockerfile": PLAIN + "RUN cat /program.py\n", "program.py": f"# {old}\n"})
    here.context.engine.remove_image(here.build(component).tag)
    program = component.folder / "program.py"
    before = program.stat()
    program.write_text(f"# {new}\n")
    os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))
    here.log.write_text("")
    here.context.engine.remove_image(here.build(component).tag)
    assert new in here.log.read_text()
    assert old not in here.log.read_text()


def test_a_file_that_changes_while_the_image_is_built_fails_it_with_the_files_name(here: World) -> None:
    component = here.component("moving", {"Dockerfile": PLAIN, "program.py": "print(1)\n"})

    def again() -> Inputs:
        (component.folder / "program.py").write_text("print('changed')\n")
        return here.inputs(component)

    with pytest.raises(WorkFailed, match=r"changed while its image was built \(changed: program\.py\)"):
        here.build(component, again=again)
    assert unfinished(here, component.name) == []


def test_a_local_base_that_moves_meanwhile_fails_the_build(here: World) -> None:
    component = here.component("standing", {"Dockerfile": PLAIN, "program.py": "print(1)\n"})
    with pytest.raises(WorkFailed, match="changed during the build"):
        here.build(component, copies={NORMALISED: "sha256:" + "0" * 64})


def test_a_failing_build_says_so_and_leaves_nothing(here: World) -> None:
    component = here.component("broken", {"Dockerfile": PLAIN + "RUN exit 3\n", "program.py": "x\n"})
    with pytest.raises(WorkFailed, match=r"broken/Dockerfile: the build of the image failed \(code 1\)"):
        here.build(component)
    assert "exit code: 3" in here.log.read_text()
    assert unfinished(here, component.name) == []


def test_a_build_past_its_limit_is_ended(here: World) -> None:
    settings = '[build]\ntimeout = "2s"\n'
    component = here.component("slow", {"Dockerfile": f"FROM {BASE}\nRUN sleep 300\n", "trainshed.toml": settings})
    with pytest.raises(WorkFailed, match="the build of the image took longer than 2 s"):
        here.build(component)


def test_the_first_pushed_image_of_an_input_stays(here: World) -> None:
    component = here.component("first", {"Dockerfile": f"FROM {BASE}\nRUN head -c 32 /dev/urandom > /seed\n"})
    tag = "in-" + "1" * 64
    first = here.build(component)
    stands = here.push(component, first, tag=tag)
    other = here.component("first", {"Dockerfile": f"FROM {BASE}\nRUN head -c 33 /dev/urandom > /seed\n"})
    second = here.build(other)
    assert second.id != first.id
    assert here.push(other, second, tag=tag) == stands


def test_four_pushes_of_one_image_at_once_all_end_with_one_digest(here: World) -> None:
    component = here.component("racing", {"Dockerfile": f"FROM {BASE}\nRUN head -c 3000000 /dev/urandom > /seed\n"})
    image = here.build(component)
    tag = "in-" + "2" * 64
    start = threading.Barrier(4)

    def push(_number: int) -> str:
        start.wait(60)
        return here.push(component, image, tag=tag)

    with ThreadPoolExecutor(4) as pool:
        digests = set(pool.map(push, range(4)))
    assert digests == {here.context.registry.digest(f"{here.repository(component)}:{tag}")}


def test_a_push_to_a_registry_that_is_gone_is_an_error(here: World, tmp_path: Path) -> None:
    with nobody() as gone, world(tmp_path / "project", gone) as lost:
        component = lost.component("plain", {"Dockerfile": PLAIN, "program.py": "print(1)\n"})
        image = lost.build(component)
        with pytest.raises(RemoteError, match="no connection"):
            lost.push(component, image)
    assert here.context.engine.image(image.tag) is None


def test_tests_run_in_the_image_as_its_user_without_network(here: World) -> None:
    component = here.component("tested", {"Dockerfile": TESTED, "program.py": "print(42)\n", "check.py": CHECK})
    tested = here.test(component, here.pushed(component))
    assert tested.green, tested.message
    assert [case.name for case in tested.cases] == ["user-1234-network-False", "answer"]
    assert unfinished(here, component.name) == []


def test_a_failing_test_is_named(here: World) -> None:
    component = here.component("failing", {"Dockerfile": TESTED, "program.py": "print(41)\n", "check.py": CHECK})
    tested = here.test(component, here.pushed(component))
    assert (tested.green, tested.message) == (False, "1 of 2 tests failed: answer")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("exit 0", "the test command ended with code 0 and wrote no JUnit XML to /reports/junit.xml"),
        ("echo '<testsuite/>' > $TRAINSHED_JUNIT", "not one test ran (the test command ended with code 0)"),
        ("echo '<testcase name=\"a\"/>' > $TRAINSHED_JUNIT; exit 7", "the test command ended with code 7, although no test failed"),
        ("echo '<' > $TRAINSHED_JUNIT", "left a report that cannot be read: /reports/junit.xml: not XML"),
        ("sleep 300", "the tests took longer than 3 s"),
    ],
)
def test_tests_that_prove_nothing_fail(here: World, command: str, message: str) -> None:
    dockerfile = f"FROM {BASE} AS image\nFROM image AS test\nCMD {command}\nFROM image\n"
    limit = 3 if "sleep" in command else 300  # one that is to be reached, and one that never is
    component = here.component("vain", {"Dockerfile": dockerfile, "trainshed.toml": f'[test]\ntimeout = "{limit}s"\n'})
    tested = here.test(component, here.pushed(component))
    assert not tested.green
    assert message in tested.message


def test_tests_stand_on_the_image_where_the_builder_would_make_other_layers(here: World) -> None:
    random = f"FROM {BASE} AS program\nRUN head -c %s /dev/urandom | od -An -tx1 > /seed\n"
    rest = "FROM program AS test\nCMD cat /seed; echo \"<testcase name='$(head -c 12 /seed)'/>\" > $TRAINSHED_JUNIT\nFROM program\n"
    component = here.component("elsewhere", {"Dockerfile": random % 8 + rest})
    reference = here.pushed(component)
    moved = here.component("elsewhere", {"Dockerfile": random % 9 + rest})  # stands for an agent whose cache has other layers
    tested = here.test(moved, reference)
    seed = subprocess.run(
        ["docker", "run", "--rm", "--network=none", reference, "head", "-c", "12", "/seed"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [case.name for case in tested.cases] == [seed.stdout]


def test_a_test_stage_beside_the_image_is_refused(here: World) -> None:
    component = here.component("beside", {"Dockerfile": f"FROM {BASE} AS test\nCMD true\nFROM {BASE}\n"})
    with pytest.raises(UsageError, match="the stage 'test' does not stand on the image"):
        here.test(component, here.pushed(component))


def test_the_structure_of_an_image_is_checked_and_nothing_is_left(here: World) -> None:
    checks = """schemaVersion: 2.0.0
fileExistenceTests:
- {name: program, path: /program.py, shouldExist: true}
commandTests:
- {name: python, command: python3, args: [--version], expectedOutput: ['Python 3']}
- {name: wrong, command: sh, args: ['-c', 'exit 4']}
"""
    component = here.component("shaped", {"Dockerfile": PLAIN, "program.py": "x\n", "structure-test.yaml": checks})
    tested = here.test(component, here.pushed(component))
    assert tested.message == "1 of 3 structure checks failed: Command Test: wrong"
    assert unfinished(here, component.name) == []
    broken = here.component("shaped", {"structure-test.yaml": "schemaVersion: 2.0.0\ncommandTest: []\n"})
    with pytest.raises(UsageError, match=r"(?s)structure-test\.yaml: .*field commandTest not found"):
        here.test(broken, here.pushed(broken))


def test_build_secrets_reach_the_build_and_no_layer(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://name:hush-hush@index.invalid/simple")
    mounts = "--mount=type=secret,id=pip --mount=type=secret,id=ca"
    dockerfile = f"FROM {BASE}\nRUN {mounts} grep hush-hush /run/secrets/pip && wc -c /run/secrets/ca\n"
    component = here.component("secretive", {"Dockerfile": dockerfile})
    here.log.write_text("")
    image = here.build(component)
    assert "hush-hush" not in here.log.read_text()
    assert "***" in here.log.read_text()  # what the build showed of it
    inspected = subprocess.run(["docker", "history", "--no-trunc", image.id], capture_output=True, text=True, check=True)
    assert "hush-hush@" not in inspected.stdout
