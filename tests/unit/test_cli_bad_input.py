"""Bad input is refused before any work: one clear message, the right exit code, and not a byte of the project changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bad_input import CONFIGURATION, SERVICE, STEP, UNREADABLE, WAIVER, Trial

TRAIN = "components/train/Dockerfile"
EVERY = ("plan", "build", "scan", "test", "images", "stamp", "verify", "upload", "launch", "deploy", "run")
IMAGES = ("plan", "build", "run")
LOCKED = ("stamp", "verify", "upload", "launch --local-images", "deploy")


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trial:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    return Trial(root, capsys)


@pytest.mark.parametrize("command", EVERY)
def test_a_configuration_that_is_not_toml_names_file_and_line(trial: Trial, command: str) -> None:
    trial.write("trainshed.toml", "[project]\nname = \n")
    assert trial.refused(command).startswith(f"{trial.root}/trainshed.toml: not TOML: Invalid value (at line 2")


def test_all_unknown_keys_and_wrong_values_are_told_at_once_with_suggestions(trial: Trial) -> None:
    trial.write("trainshed.toml", f"{CONFIGURATION}[scan]\nfail_on = 'high'\n[build]\nparallel = 'many'\n[enviroments.dev]\n")
    said = trial.refused("run")
    assert "trainshed.toml: unknown key scan.fail_on; perhaps you meant 'scan.fail-on'" in said
    assert "trainshed.toml: build.parallel: " in said


@pytest.mark.parametrize("command", [*EVERY, "config", "doctor", "local status"])
def test_an_unknown_environment_is_refused_with_a_suggestion(trial: Trial, command: str) -> None:
    said = trial.refused("--env", "locl", *command.split())
    assert said == f"{trial.root}/trainshed.toml: no environment 'locl'; perhaps you meant 'local'"


@pytest.mark.parametrize(
    ("command", "what", "word", "meant"),
    [
        *((command, "component", "trian", "train") for command in ("plan", "build", "scan", "test", "images")),
        *((command, "pipeline", "flwo", "flow") for command in ("stamp", "verify", "upload", "launch")),
        ("deploy", "service", "anwser", "answer"),
        ("run", "pipeline or service", "flwo", "flow"),
        ("local logs", "embedded service", "registri", "registry"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(trial: Trial, command: str, what: str, word: str, meant: str) -> None:
    assert trial.refused(*command.split(), word) == f"no {what} '{word}'; perhaps you meant '{meant}'"


@pytest.mark.parametrize("name", ["../train", "Train", "tra_in", ".", "train/"])
@pytest.mark.parametrize("command", EVERY)
def test_a_name_that_is_a_path_or_has_capitals_is_no_name(trial: Trial, command: str, name: str) -> None:
    assert f"'{name}'" in trial.refused(command, name)


@pytest.mark.parametrize("name", ["../x", "Train", "a b", "a_b", "x-", "", "x/y", "é"])
def test_init_makes_no_component_of_a_wrong_name(trial: Trial, name: str) -> None:
    assert trial.refused("init", "--component", name) == f"'{name}' is no name of a component"
    assert trial.refused("init") == f"{trial.root}/trainshed.toml: there is a project already"


def cycle(trial: Trial) -> None:
    trial.write(TRAIN, "ARG ANSWER=x:1\nFROM ${ANSWER}\n")
    trial.write("components/answer/Dockerfile", "ARG TRAIN=x:1\nFROM ${TRAIN}\n")


def copied(trial: Trial) -> None:
    trial.write("components/two/Dockerfile", "FROM scratch\n")
    trial.write("components/two/component.yaml", STEP.replace("/train:", "/two:"))


def unbuildable(trial: Trial) -> None:
    (trial.root / TRAIN).unlink()


def escaping(trial: Trial) -> None:
    (trial.root / "components/train/out").symlink_to("../../trainshed.toml")


def linked(trial: Trial) -> None:
    (trial.root / "components/again").symlink_to("train")


def written(path: str, content: str | bytes) -> Callable[[Trial], None]:
    return lambda trial: trial.write(path, content)


@pytest.mark.parametrize("command", IMAGES)
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (cycle, "components/answer/Dockerfile: a cycle of bases: answer → train → answer"),
        (written(TRAIN, "COPY a /\n"), f"{TRAIN}: no FROM: every Dockerfile starts from an image"),
        (written(TRAIN, ""), f"{TRAIN}: no FROM: every Dockerfile starts from an image"),
        (written(TRAIN, "ARG V\nFROM python:${V}\n"), f"{TRAIN}:2: 'python:${{V}}' cannot be resolved: no value for the argument V"),
        (written(TRAIN, "ARG TAG=1\nFROM python:${TGA}\n"), "no value for the argument TGA; perhaps you meant 'TAG'"),
        (written(TRAIN, "ARG BASE\nFROM ${BASE}\n"), f"{TRAIN}:2: the own base 'base' needs a default"),
        (written(TRAIN, UNREADABLE), f"{TRAIN}: the Dockerfile is not UTF-8 (byte 3)"),
        (written(TRAIN, "FROM scratch\nCOPY gone.py /\n"), f"{TRAIN}:2: 'gone.py' is not there"),
        (unbuildable, "components/train: no Dockerfile: every folder of components has one"),
        (copied, "components/two/component.yaml: two components of one name: train is the name in"),
        (written("components/train/component.yaml", STEP.replace("/train:", "/base:")), "component.yaml:4: the image is"),
        (written("components/train/component.yaml", UNREADABLE), "components/train/component.yaml: the component is not UTF-8 (byte 3)"),
        (written("components/answer/service.yaml", UNREADABLE), "components/answer/service.yaml: the component is not UTF-8 (byte 3)"),
        (written("components/train/.dockerignore", UNREADABLE), ".dockerignore: the list of ignored files is not UTF-8 (byte 3)"),
        (written("components/train/.dockerignore", "[a\n"), ".dockerignore:1: "),
        (written("components/Train/Dockerfile", "FROM scratch\n"), "'Train' is no component's name: lower-case letters"),
        (written("components/a..b/Dockerfile", "FROM scratch\n"), "'a..b' is no component's name"),
        (linked, "components/again: is a link"),
        (escaping, "components/train/out: the link leads out of the build context, to ../../trainshed.toml"),
        (
            written("components/train/trainshed.toml", "[test]\ntimout = '1m'\n"),
            "unknown key test.timout; perhaps you meant 'test.timeout'",
        ),
        (written("components/train/trainshed.toml", "[test\n"), "components/train/trainshed.toml: not TOML"),
        (written("components/train/trainshed.toml", "[test]\nmemory = 5\n"), "trainshed.toml: test.memory: expected a size"),
        (written("components/train/trainshed.toml", UNREADABLE), "trainshed.toml: the file of settings is not UTF-8 (byte 3)"),
        (written("pipeline_templates/Flow.py", ""), "pipeline_templates/Flow.py: 'Flow' is no name of a pipeline"),
        (written("pipeline_templates/flow.py", ""), "pipeline_templates/flow.yaml: flow.py has the same name"),
        (written("pipeline_templates/flow.yaml", UNREADABLE), "flow.yaml: the pipeline template is not UTF-8 (byte 3)"),
        (written("pipeline_templates/more.py", "x = load('components/trian/component.yaml')"), "more.py: no component 'trian'; perhaps"),
        (written("waivers.toml", "[waiver"), "waivers.toml: not TOML"),
        (written("waivers.toml", UNREADABLE), "waivers.toml: the list of waivers is not UTF-8 (byte 3)"),
        (written("waivers.toml", "[[waiver]]\nid = 'CVE-1'\n"), "waivers.toml: waiver 1 (CVE-1): reason is missing"),
        (written("waivers.toml", WAIVER.replace("owner", "ownr")), "unknown key ownr; perhaps you meant 'owner'"),
        (written("waivers.toml", WAIVER.replace("2999-12-31", "'soon'")), "expires: expected a date such as 2026-12-31, not 'soon'"),
    ],
)
def test_a_repository_that_is_wrong_is_refused_by_every_command_on_images(
    trial: Trial, command: str, broken: Callable[[Trial], None], said: str
) -> None:
    broken(trial)
    assert said in trial.refused(command)


@pytest.mark.parametrize("command", [*IMAGES, "stamp", "verify", "run flow", "stamp flow"])
def test_a_template_that_names_an_unknown_component_is_refused_before_anything_is_compiled(trial: Trial, command: str) -> None:
    trial.settle()
    trial.template("component.invalid/trian:unstamped")
    said = trial.refused(*command.split())
    assert said == f"{trial.root}/pipeline_templates/flow.yaml: no component 'trian'; perhaps you meant 'train'"


def edited(trial: Trial) -> None:
    lock = trial.root / "build/images.lock.json"
    lock.write_text(lock.read_text().replace("1111", "2222"))


def unlocked(trial: Trial) -> None:
    (trial.root / "build/images.lock.json").unlink()


@pytest.mark.parametrize("command", LOCKED)
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (unlocked, "build/images.lock.json: there is no lock: nothing has been built, scanned and tested green"),
        (edited, "build/images.lock.json: edited after it was written: its seal does not fit"),
        (written("components/train/main.py", "changed"), "build/images.lock.json: stale: the components changed since it was written"),
        (written("build/images.lock.json", UNREADABLE), "build/images.lock.json: the lock is not UTF-8 (byte 3)"),
        (written("build/images.lock.json", "{"), "build/images.lock.json: the lock is not JSON"),
        (written("build/images.lock.json", "{}"), "build/images.lock.json: not a lock: it names no schema"),
    ],
)
def test_nothing_is_done_with_a_lock_that_cannot_be_believed(
    trial: Trial, command: str, broken: Callable[[Trial], None], said: str
) -> None:
    trial.settle()
    broken(trial)
    assert said in trial.refused(*command.split())


@pytest.mark.parametrize("command", ["deploy", "deploy answer", "run --deploy", "run --deploy answer"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SERVICE.replace("port:", "prot:"), "components/answer/service.yaml:2: prot: unknown key; perhaps you meant 'port'"),
        (SERVICE.replace("8080", "99999"), "service.yaml:2: port: expected a whole number from 1 to 65535, not 99999"),
        (SERVICE + "golden: ../x.json\n", "service.yaml:5: golden: '../x.json' lies outside of the component"),
        (SERVICE + "golden: gone.json\n", "service.yaml:5: golden: there is no gone.json in"),
        (SERVICE + "golden: main.py\n", "components/answer/main.py: not JSON"),
        ("a: [\n", "service.yaml:2: not YAML"),
        ("- 1\n", "service.yaml: expected a mapping with name, port"),
    ],
)
def test_a_service_that_is_described_wrongly_is_refused_before_anything_is_built_or_deployed(
    trial: Trial, command: str, text: str, said: str
) -> None:
    trial.write("components/answer/service.yaml", text)
    trial.settle()
    assert said in trial.refused(*command.split())


@pytest.mark.parametrize("command", ["launch", "run --launch"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--params", "latin.yaml"), "latin.yaml: the file of parameters is not UTF-8 (byte 3)"),
        (("--params", "list.yaml"), "list.yaml: expected a mapping of parameters"),
        (("--params", "gone.yaml"), "gone.yaml: the file of parameters cannot be read: No such file"),
        (("--gate", "auc is good"), "gate 'auc is good': expected a metric"),
        (("--gate", "auc >= much"), "gate 'auc >= much': 'much' is not a number"),
        (("--gate", "auc >= 0.8", "--no-wait"), "a gate is judged at the end of a run"),
        (("-p", "rate"), "-p: expected KEY=VALUE, not 'rate'"),
    ],
)
def test_wrong_options_of_a_run_are_refused_before_any_work(trial: Trial, command: str, options: tuple[str, ...], said: str) -> None:
    trial.write("latin.yaml", UNREADABLE)
    trial.write("list.yaml", "- 1\n")
    trial.settle()
    assert said in trial.refused(*command.split(), *options)
