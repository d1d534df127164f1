"""Each way in which the work can fail: exit code 1, the reason and the log's tail, JUnit that says the same, and nothing further down."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest

from tests.support.sample_project import FAILING_CHECK, Done, Sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, docker_host: str, small_base: str) -> Iterator[Sample]:
    made = Sample(tmp_path_factory.mktemp("failures") / "project", docker_host, base=small_base)
    made.green("run", "--deploy")
    yield made
    made.down()


@pytest.fixture
def broken(sample: Sample) -> Iterator[Sample]:
    """Return the project for a test that breaks it; put it back afterwards."""
    kept = {
        path: path.read_text()
        for folder in ("components", "pipeline_templates")
        for path in (sample.root / folder).rglob("*.*")
        if path.is_file()
    }
    kept |= {path: path.read_text() for path in (sample.root / "components").rglob("Dockerfile")}
    yield sample
    for path, text in kept.items():
        path.write_text(text)


def junit_failures(sample: Sample) -> dict[str, str]:
    """Return suite and name → text of every failure in the JUnit file."""
    tree = ET.parse(sample.root / "build" / "reports" / "junit.xml")  # noqa: S314 - our own report
    found = {}
    for case in tree.iter("testcase"):
        failure = case.find("failure")
        if failure is not None:
            found[f"{case.get('classname')} {case.get('name')}"] = f"{failure.get('message')} {failure.text}"
    return found


def nothing_further(sample: Sample, done: Done, versions: int) -> None:
    assert done.code == 1, done.told
    assert not sample.lock.exists()
    assert sample.versions() == versions
    assert not done.statuses("upload")


def test_a_failing_test_is_told_and_the_others_work_is_kept(broken: Sample) -> None:
    versions = broken.versions()
    broken.write("components/learn/tests/check.py", FAILING_CHECK)
    broken.append("components/prepare/src/main.py", "# changed as well\n")
    done = broken.run("run")
    nothing_further(broken, done, versions)
    assert done.statuses("test")["learn"] == "failed"
    assert (done.statuses("build")["prepare"], done.statuses("test")["prepare"]) == ("done", "done")
    assert "about to look at the answer" in done.told
    assert any("41 is not 42" in text for text in junit_failures(broken).values())
    again = broken.run("images")
    assert (again.statuses("build")["prepare"], again.statuses("test")["prepare"]) == ("cached", "cached")
    assert again.statuses("test")["learn"] == "failed"


def test_a_component_alone_takes_its_base_as_it_is(broken: Sample) -> None:
    broken.green("images")  # the lock, which a failure before took away
    before = broken.lock.read_bytes()
    broken.append("components/prepare/src/main.py", "# made alone\n")
    done = broken.run("images", "--alone", "prepare")
    assert (done.code, done.statuses("build")) == (0, {"base": "cached", "prepare": "done"})
    assert done.statuses("test") == {"prepare": "done"}
    assert broken.lock.read_bytes() == before
    broken.append("components/base/base.txt", "a base that nobody made\n")
    without = broken.run("images", "--alone", "prepare")
    assert (without.code, without.statuses("build")) == (1, {"base": "aborted", "prepare": "aborted"})
    assert without.document["status"] == "aborted"
    assert "base/build" in without.result("build", "prepare")["message"]
    assert broken.run("images", "--alone").code == 2
    assert broken.lock.read_bytes() == before


def test_a_failing_build_is_told_with_the_tail_of_its_log(broken: Sample) -> None:
    versions = broken.versions()
    file = "components/learn/Dockerfile"
    broken.write(
        file, (broken.root / file).read_text().replace("COPY src /app/\n", "COPY src /app/\nRUN echo on the way down && exit 3\n", 1)
    )
    done = broken.run("run")
    nothing_further(broken, done, versions)
    assert done.statuses("build")["learn"] == "failed"
    assert (done.statuses("scan")["learn"], done.statuses("test")["learn"]) == ("aborted", "aborted")
    assert "needs learn/build, which failed" in done.result("test", "learn")["message"]
    assert "on the way down" in done.told
    assert any(name.startswith("learn") or "learn" in name for name in junit_failures(broken))


def test_a_failing_base_aborts_its_descendants_with_the_reason(broken: Sample) -> None:
    file = "components/base/Dockerfile"
    broken.write(file, (broken.root / file).read_text().replace("COPY base.txt /base.txt\n", "COPY base.txt /base.txt\nRUN exit 4\n", 1))
    done = broken.run("images")
    assert done.code == 1
    assert done.statuses("build") == {"base": "failed", "answer": "aborted", "learn": "aborted", "prepare": "aborted"}


def test_a_finding_above_the_threshold_fails_the_scan(broken: Sample) -> None:
    versions = broken.versions()
    key = "AKIA" + "QWERTYUIOPASDFGH"
    broken.append("components/learn/src/main.py", f'\naws_access_key_id = "{key}"\n')
    done = broken.run("run")
    nothing_further(broken, done, versions)
    assert done.statuses("scan")["learn"] == "failed"
    findings = done.result("scan", "learn")["findings"]
    assert any(finding["kind"] == "secret" for finding in findings)
    assert key not in done.told
    assert key not in (broken.root / "build" / "reports" / "junit.xml").read_text()
    assert any("learn" in name for name in junit_failures(broken))


def test_a_failing_training_step_is_told_with_its_log(broken: Sample) -> None:
    broken.green("run")
    done = broken.run("launch", "sample_flow", "--wait", "-p", "rate=2.0")
    assert done.code == 1
    assert "nothing can be learned" in done.told
    assert "learn" in done.result("launch", "sample_flow")["message"]
    assert any("sample_flow" in name or "learn" in text for name, text in junit_failures(broken).items())


def test_a_gate_that_does_not_hold_fails_the_launch(broken: Sample) -> None:
    broken.green("run")
    held = broken.green("launch", "sample_flow", "--gate", "auc >= 0.4")
    assert held.statuses("launch") == {"sample_flow": "done"}
    done = broken.run("launch", "sample_flow", "--gate", "auc >= 0.80")
    assert done.code == 1
    assert "auc" in done.result("launch", "sample_flow")["message"]


def test_a_service_that_never_becomes_healthy_gets_no_traffic(broken: Sample) -> None:
    import json
    import urllib.request

    broken.green("run", "--deploy")
    status = broken.green("deploy", "answer")
    url = status.result("deploy", "answer")["url"]
    broken.write(
        "components/answer/src/main.py", 'print("no model to serve", flush=True)\nif __name__ == "__main__":\n    raise SystemExit(7)\n'
    )
    done = broken.run("run", "--deploy")
    assert done.code == 1
    assert done.statuses("deploy") == {"answer": "failed"}
    assert "no model to serve" in done.told
    with urllib.request.urlopen(f"{url}/anything", timeout=30) as answer:  # noqa: S310 - loopback
        assert json.load(answer) == {"path": "/anything"}


def test_fail_fast_stops_the_rest(broken: Sample) -> None:
    file = "components/base/Dockerfile"
    slow = "COPY base.txt /base.txt\nRUN sleep 20\n"  # goes on while the other one fails
    broken.write(file, (broken.root / file).read_text().replace("COPY base.txt /base.txt\n", slow, 1))
    broken.write("components/hasty/Dockerfile", f"FROM {broken.base}\nRUN exit 3\nUSER 65534:65534\n")
    done = broken.run("images", "--fail-fast")
    shutil.rmtree(broken.root / "components" / "hasty")
    assert done.code == 1
    assert (done.statuses("build")["hasty"], done.statuses("build")["base"]) == ("failed", "done")
    assert done.statuses("build")["learn"] == "aborted"
    assert "the first failure stops the rest" in done.result("build", "learn")["message"]


@pytest.mark.parametrize(
    ("section", "command", "said"),
    [
        ('registry = { url = "127.0.0.1:9/none", insecure = true }\n', ("build", "bare"), "127.0.0.1:9"),
        ('registry = "embedded"\n[environments.away.kubeflow]\nhost = "http://127.0.0.1:9"\n', ("upload",), "127.0.0.1:9"),
    ],
)
def test_an_unreachable_service_is_exit_code_5(broken: Sample, section: str, command: tuple[str, ...], said: str) -> None:
    text = (broken.root / "trainshed.toml").read_text()
    broken.green("run")
    broken.write("components/bare/Dockerfile", "FROM scratch\nCOPY bare.txt /\nUSER 65534:65534\n")
    broken.write("components/bare/bare.txt", "no base from outside\n")
    broken.write("trainshed.toml", f"{text}\n[environments.away]\n{section}")
    done = broken.run("--env", "away", *command)
    broken.write("trainshed.toml", text)
    shutil.rmtree(broken.root / "components" / "bare")
    assert done.code == 5, done.told
    assert said in done.told


def test_an_unreachable_engine_is_exit_code_4(broken: Sample) -> None:
    broken.append("components/prepare/src/main.py", "# must be built\n")
    broken.environment["DOCKER_HOST"] = "tcp://127.0.0.1:9"
    done = broken.run("build")
    del broken.environment["DOCKER_HOST"]
    assert done.code == 4, done.told
    assert "127.0.0.1:9" in done.told
