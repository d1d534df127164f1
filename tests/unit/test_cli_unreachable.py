"""What does not answer, and runs that are asked for wrongly: one clear message, its exit code, an untouched project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bad_input import CONFIGURATION, NOBODY, SERVICE, Trial
from tests.support.kubeflow import embedded
from trainshed import cli

pytestmark = pytest.mark.sockets

NETWORK = "network: {subnets: [subnet-1], security-groups: [sg-1]}\nroles: {execution: e}\n"


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trial:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://{NOBODY}")
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    return Trial(root, capsys)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_registry_that_does_not_answer_is_never_read_as_one_without_images(trial: Trial, command: str) -> None:
    said = trial.refused(command, code=5)
    assert said.startswith(f"http://{NOBODY}/v2/ml/small/")
    assert said.endswith("no connection (Connection refused)")


def test_all_bases_that_cannot_be_asked_for_are_told_at_once(trial: Trial) -> None:
    trial.write("components/train/Dockerfile", f"FROM {NOBODY}/a:1\n")
    trial.write("components/answer/Dockerfile", f"FROM {NOBODY}/b:1\n")
    said = trial.refused("images", code=5)
    assert [line.split(": ")[0] for line in said.splitlines()] == [f"base image {NOBODY}/a:1", f"base image {NOBODY}/b:1"]


@pytest.mark.parametrize("command", ["plan", "images", "run"])
def test_an_engine_that_does_not_answer_is_one_error_of_one_line(trial: Trial, command: str) -> None:
    trial.write("trainshed.toml", '[project]\nname = "small"\n')
    trial.write("components/base/Dockerfile", "FROM python:3.11-slim-bookworm\n")
    assert trial.refused(command, code=4) == f"no container engine answers at tcp://{NOBODY}: Connection refused"


def test_a_kubeflow_that_does_not_answer_starts_no_run(trial: Trial) -> None:
    trial.settle()
    said = trial.refused("launch", "flow", "--local-images", code=5)
    assert said.startswith(f"http://{NOBODY}/apis/v2beta1/")


def test_a_kubeflow_that_does_not_answer_takes_no_upload(trial: Trial) -> None:
    trial.settle()
    said = trial.refused("upload", code=5)
    assert said.startswith(f"http://{NOBODY}/apis/v2beta1/healthz: no connection (Connection refused)")


def test_a_prediction_service_that_does_not_answer_is_changed_nothing_in(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    trial.write("components/answer/service.yaml", SERVICE + NETWORK)
    trial.settle()
    (result,) = trial.failed("deploy", code=5)
    assert NOBODY in result["message"]


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("mysql://u:hidden@h/d", 2, "ledger.url: a ledger on 'mysql' is not supported"),
        ("nonsense", 2, "ledger.url: the ledger's address is not a URL"),
        ("postgresql://u:hidden@h:port/d", 2, "ledger.url: the ledger's address is not a URL"),
        (f"postgresql://u:hidden@{NOBODY}/d", 5, f"postgresql+psycopg://u:***@{NOBODY}/d"),
        ("sqlite:////dev/null/ledger.sqlite", 2, "the ledger's folder cannot be made: File exists: /dev/null"),
    ],
)
def test_a_ledger_that_cannot_be_opened_is_told_without_its_password(trial: Trial, url: str, code: int, said: str) -> None:
    trial.write("trainshed.toml", f'{CONFIGURATION}[ledger]\nurl = "{url}"\n')
    message = trial.refused("launch", code=code)
    assert said in message
    assert "hidden" not in message


@pytest.fixture
def uploaded(trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Trial]:
    """The pipeline is in a Kubeflow whose runs never start."""
    with embedded(tmp_path / "kubeflow") as (address, runs):
        trial.write("trainshed.toml", CONFIGURATION.replace(f"http://{NOBODY}", address, 1))
        trial.settle()
        assert cli.main(["upload"]) == 0
        capsys.readouterr()
        yield trial
        assert list(runs.folder(".").glob("*-*")) == []


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (("rows=10", "rat=1"), "pipeline flow has no parameter 'rat'; perhaps you meant 'rate'"),
        (("rows=ten",), "pipeline flow: parameter 'rows': expected a whole number (int), not 'ten'"),
        (("rows=1.5",), "pipeline flow: parameter 'rows': expected a whole number (int), not '1.5'"),
        (("rows=10", "rate=fast"), "pipeline flow: parameter 'rate': expected a number (float), not 'fast'"),
        ((), "pipeline flow: parameter 'rows' (int) has no default and is not given"),
    ],
)
def test_a_parameter_that_is_unknown_missing_or_of_a_wrong_type_starts_no_run(
    uploaded: Trial, parameters: tuple[str, ...], said: str
) -> None:
    assert uploaded.refused("launch", "flow", "--local-images", *(word for text in parameters for word in ("-p", text))) == said


def test_the_same_holds_for_parameters_of_a_file(uploaded: Trial) -> None:
    uploaded.write("params.yaml", "rows: ten\nrat: 1\n")
    said = uploaded.refused("launch", "--local-images", "--params", "params.yaml")
    assert "no parameter 'rat'; perhaps you meant 'rate'" in said
