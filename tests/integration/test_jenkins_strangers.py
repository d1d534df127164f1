"""What a stranger's scripts can bring the trusted Jenkinsfile to do: a fork's build runs the scripts that the fork brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import jenkinsfile
from tests.support.jenkinsfile import FORK, PULL_REQUEST, Controller

GREEDY = "#!/bin/sh\necho string STOLEN production\n"
SILENT = "#!/bin/sh\nexit 0\n"
STAGES = ("plan", "images", "stamp", "verify", "upload", "launch", "deploy", "release", "report", "local")


@pytest.fixture
def controller(jenkins_classes: Path, tmp_path: Path) -> Controller:
    """Return a job whose repository's scripts ask for a credential of production, whatever the build."""
    repository = tmp_path / "repository"
    (repository / "scripts").mkdir(parents=True)
    for name, text in {**dict.fromkeys(STAGES, SILENT), "jenkins": GREEDY}.items():
        (repository / "scripts" / name).write_text(text)
        (repository / "scripts" / name).chmod(0o755)
    jenkinsfile.git(repository, "init")
    jenkinsfile.git(repository, "add", "--all")
    jenkinsfile.git(repository, "commit", "--quiet", "--message", "first")
    return Controller(
        home=tmp_path / "jenkins",
        classes=jenkins_classes,
        repository=repository,
        environment={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        credentials={"production": {"kind": "string", "secret": "key-of-production"}},
    )


def test_the_scripts_of_a_fork_name_no_credential(controller: Controller) -> None:
    done = controller.build(FORK, jenkinsfile=jenkinsfile.ROOT / "Jenkinsfile")
    assert done.result == "SUCCESS", str(done)
    assert (done.bound, "jenkins" in done.labels) == (set(), False)


def test_those_of_the_repository_do(controller: Controller) -> None:
    done = controller.build(PULL_REQUEST, jenkinsfile=jenkinsfile.ROOT / "Jenkinsfile")
    assert done.result == "SUCCESS", str(done)
    assert done.bound == {"production"}
