from __future__ import annotations

from pathlib import Path

import pytest

from trainshed import config, values
from trainshed.config import Config
from trainshed.errors import UsageError
from trainshed.keys import Source
from trainshed.values import Auth, Registry, Secret


def load(folder: Path, text: str, environment: str = "local", **overrides: str) -> Config:
    file = folder / "trainshed.toml"
    file.write_text(text)
    return config.load(file, environment=environment, overrides=overrides)


def refused(folder: Path, text: str, environment: str = "local", **overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(folder, text, environment, **overrides)
    return caught.value.message


def test_an_empty_file_gives_the_defaults_and_the_environment_local(tmp_path: Path) -> None:
    found = load(tmp_path, "")
    assert found.environment.name == "local"
    assert found.environment.registry is None
    assert found.environment.kubeflow.host is None
    assert found.environment.prediction_service.cluster is None
    assert found.project.components == tmp_path / "components"
    assert (found.scan.fail_on, found.scan.without_db, found.scan.max_db_age) == ("high", "warn", 86400.0)


def test_a_project_without_a_name_takes_the_name_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "Risk Models"
    folder.mkdir()
    assert load(folder, "").project.name == "risk-models"


def test_an_environment_lays_its_policies_over_the_general_ones(tmp_path: Path) -> None:
    text = '[scan]\nfail-on = "low"\n[environments.dev.scan]\nfail-on = "critical"\n[environments.prod]\n'
    assert load(tmp_path, text, "dev").scan.fail_on == "critical"
    assert load(tmp_path, text, "prod").scan.fail_on == "low"
    assert load(tmp_path, text, "prod").scan.without_db == "fail"


def test_what_the_file_says_of_a_missing_database_wins_over_the_default_of_local(tmp_path: Path) -> None:
    assert load(tmp_path, '[scan]\nwithout-db = "fail"\n').scan.without_db == "fail"


def test_all_parts_of_an_environment_are_read(tmp_path: Path) -> None:
    text = """
[environments.dev]
registry = { url = "registry.example.org/ml", insecure = true }
[environments.dev.kubeflow]
host = "https://kubeflow.example.org/pipeline/"
namespace = "risk"
auth = { kind = "dex", username = "ci", password-env = "KF_PASSWORD" }
timeout = "5s"
[environments.dev.prediction-service]
cluster = "prediction"
endpoint-url = "http://127.0.0.1:1"
"""
    found = load(tmp_path, text, "dev").environment
    assert found.registry == Registry(url="registry.example.org/ml", insecure=True)
    assert found.kubeflow.host == "https://kubeflow.example.org/pipeline"
    assert found.kubeflow.auth == Auth(kind="dex", username="ci", password_env="KF_PASSWORD")  # noqa: S106 - a variable's name
    assert found.kubeflow.timeout == 5.0
    assert found.prediction_service.cluster == "prediction"


def test_embedded_stands_for_a_whole_table(tmp_path: Path) -> None:
    found = load(tmp_path, '[environments.dev]\nkubeflow = "embedded"\nprediction-service = "embedded"\nregistry = "embedded"\n', "dev")
    assert found.environment.kubeflow.host is None
    assert found.sources["environments.dev.kubeflow"] is Source.FILE


def test_a_variable_wins_over_the_file_and_says_so(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        '[scan]\nfail-on = "low"\n',
        TRAINSHED_SCAN_FAIL_ON="never",
        TRAINSHED_BUILD_PARALLEL="3",
        TRAINSHED_SCAN_SCANNERS="secret, vulnerability",
        TRAINSHED_BUILD_ARGS="A=1,B=2",
        TRAINSHED_ENV="local",
    )
    assert found.scan.fail_on == "never"
    assert found.build.parallel == 3
    assert found.scan.scanners == ("secret", "vulnerability")
    assert found.build.args == {"A": "1", "B": "2"}
    assert found.sources["scan.fail-on"] is Source.VARIABLE
    assert found.sources["project.name"] is Source.DEFAULT


def test_a_variable_reaches_an_environment(tmp_path: Path) -> None:
    found = load(tmp_path, "[environments.dev]\n", "dev", TRAINSHED_ENVIRONMENTS_DEV_KUBEFLOW_NAMESPACE="risk")
    assert found.environment.kubeflow.namespace == "risk"


def test_build_secrets_are_files_or_variables(tmp_path: Path) -> None:
    found = load(tmp_path, '[build.secrets]\nca = "/etc/ca.pem"\nkey = { env = "KEY" }\n')
    assert found.build.secrets == {"ca": Secret(file="/etc/ca.pem"), "key": Secret(env="KEY")}


def test_all_problems_are_told_at_once_each_with_file_and_key(tmp_path: Path) -> None:
    message = refused(tmp_path, '[project]\nnam = "x"\n[scan]\nfail-on = "hgih"\nmax-db-age = "soon"\n', TRAINSHED_SCAN_FAIL_UN="low")
    assert "unknown key project.nam; perhaps you meant 'project.name'" in message
    assert "scan.fail-on: expected one of" in message
    assert "perhaps you meant 'high'" in message
    assert "scan.max-db-age: expected a duration" in message
    assert "TRAINSHED_SCAN_FAIL_UN: no such setting; perhaps you meant 'TRAINSHED_SCAN_FAIL_ON'" in message
    assert message.count(str(tmp_path / "trainshed.toml")) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[project\n", "not TOML"),
        pytest.param("a=" + "[" * 5000, "not TOML", id="nested without end"),
        ('[jenkins]\nurl = "http://[::1"', "Invalid IPv6 URL"),
        ('environments = "x"\n', "environments: expected tables"),
        ("[environments]\ndev = 1\n", "environments.dev: expected a table"),
        ("[environments.Dev]\n", "environments.Dev: a name has lower-case letters"),
        ('[project]\ncomponents = "../up"\n', "project.components: expected a folder inside the project"),
        ('[project]\nname = "Big Name"\n', "project.name: expected lower-case letters"),
        ("[project]\nname = 3\n", "project.name: expected lower-case letters"),
        ("[build]\nparallel = -1\n", "build.parallel: expected a whole number"),
        ("[build]\nparallel = true\n", "build.parallel: expected a whole number"),
        ('[build]\nplatforms = ["linux/amd64", "linux/arm64"]\n', "build.platforms: expected one platform"),
        ('[build]\nbuilder = "podman"\n', "build.builder: expected"),
        ("[build]\nargs = 1\n", "build.args: expected a table of texts"),
        ("[build]\nsecrets = 1\n", "build.secrets: expected a table"),
        ("[build.secrets]\na = { file = 1 }\n", "secret 'a'"),
        ("[bases]\napproved = [1]\n", "bases.approved: expected a list of texts"),
        ("[ledger]\nurl = 1\n", "ledger.url: expected text"),
        ('[scan]\nscanners = ["virus"]\n', "scan.scanners: expected one of"),
        ("[environments.local]\nregistry = 1\n", "registry: expected"),
        ('[environments.local]\nregistry = "https://x"\n', "without scheme"),
        ('[environments.local]\nregistry = { url = "x", insecure = "no" }\n', "insecure: expected true or false"),
        ('[environments.local]\nkubeflow = "remote"\n', 'expected "embedded" or a table'),
        ('[environments.local.kubeflow]\nhost = "kubeflow"\n', "expected an http or https address"),
        ('[environments.local.kubeflow]\nhost = "https://kf/pipeline/#/"\n', "without credentials, ? and #"),
        ("[environments.local.kubeflow]\nauth = 1\n", "expected a table such as"),
        ('[environments.local.kubeflow]\nauth = { kind = "token" }\n', "kind token needs file"),
        ('[environments.local.kubeflow]\nauth = { kind = "token", file = "t", name = "n" }\n', "kind token takes no name"),
        ('[environments.local.kubeflow]\nauth = { kind = "basic" }\n', "expected one of"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_an_unknown_environment_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, "[environments.dev]\n", "dve")
    assert "no environment 'dve'; perhaps you meant 'dev'" in caught.value.message
    assert caught.value.next_step == "Known: local, dev."


def test_a_file_that_is_not_utf8_is_refused_with_the_byte(tmp_path: Path) -> None:
    (tmp_path / "trainshed.toml").write_bytes(b'[project]\nname = "\xff"\n')
    with pytest.raises(UsageError, match=r"not UTF-8 \(byte 18\)"):
        config.load(tmp_path / "trainshed.toml", environment="local")


def test_the_file_is_found_from_a_folder_inside_the_project(tmp_path: Path) -> None:
    (tmp_path / "trainshed.toml").write_text("")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert config.find(tmp_path / "a" / "b") == tmp_path / "trainshed.toml"


def test_a_folder_without_a_project_above_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        config.find(tmp_path)
    assert "trainshed init" in caught.value.next_step


def test_a_path_inside_the_project_is_shown_relative(tmp_path: Path) -> None:
    project = load(tmp_path, "").project
    assert project.shown(tmp_path / "build" / "x.log") == "build/x.log"
    assert project.shown(Path("/etc/hosts")) == "/etc/hosts"
    assert project.state == tmp_path / ".trainshed"


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("20s", 20.0), ("1.5h", 5400.0), ("2d", 172800.0), (3, 3.0)])
def test_durations_are_read_as_seconds(text: object, seconds: float) -> None:
    assert values.duration(text) == seconds


@pytest.mark.parametrize("variable", ["PATH", "LD_PRELOAD", "CHANGE_ID", "TRAINSHED_MAIN_BRANCH", "GIT_SSH_COMMAND", "PYTHONPATH"])
def test_a_variable_that_steers_the_build_is_no_credential(tmp_path: Path, variable: str) -> None:
    said = refused(tmp_path, f'[environments.local]\ncredentials = {{ {variable} = "string:x" }}\n')
    assert f"environments.local.credentials: {variable}: a variable that steers the build is no credential" in said


def test_credentials_of_any_other_name_are_read(tmp_path: Path) -> None:
    text = '[environments.local]\ncredentials = { TRAINSHED_LEDGER_URL = "string:l", JENKINS_TOKEN = "string:t", HOMEPAGE = "file:h" }\n'
    assert set(load(tmp_path, text).environment.credentials) == {"TRAINSHED_LEDGER_URL", "JENKINS_TOKEN", "HOMEPAGE"}
