from __future__ import annotations

from pathlib import Path

import pytest

from trainshed.errors import UsageError
from trainshed.pipelines import settings, templates
from trainshed.pipelines.settings import Overlay, Profile, Schedule, Settings

ENVIRONMENTS = ("local", "dev", "prod")
WHOLE = """
[profiles.quick]
parameters = { rows = 100, names = ["a"], deep = { x = 1.5 } }
gates = ["auc >= 0.8"]
caching = false
experiment = "quick looks"
labels = { purpose = "look" }
[profiles.full]
[overlays.dev."inner.train"]
instance-type = "g5.xlarge"
[overlays."*"."**"]
labels = { team = "risk" }
[schedules.nightly]
environments = ["prod"]
cron = "0 0 3 * * *"
profile = "full"
parameters = { rows = 5 }
start = 2026-01-31T03:00:00Z
end = "2027-01-31T03:00:00+01:00"
enabled = false
catch-up = true
max-concurrency = 2
[schedules.often]
environments = ["dev", "prod"]
every = "24h"
"""


def read(folder: Path, text: str | None, name: str = "training") -> Settings:
    (folder / "training.yaml").write_text("")
    if text is not None:
        (folder / f"{name}.toml").write_text(text)
    return settings.load(folder, templates.discover(folder)["training"], environments=ENVIRONMENTS)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE)
    assert found.place == f"{tmp_path.name}/training.toml"
    assert found.profiles == {
        "quick": Profile(
            name="quick",
            parameters={"rows": 100, "names": ["a"], "deep": {"x": 1.5}},
            gates=("auc >= 0.8",),
            caching=False,
            experiment="quick looks",
            labels={"purpose": "look"},
        ),
        "full": Profile(name="full"),
    }
    assert found.overlays == (
        Overlay(environment="dev", path="inner.train", settings={"instance-type": "g5.xlarge"}),
        Overlay(environment="*", path="**", settings={"labels": {"team": "risk"}}),
    )
    assert found.schedules["nightly"] == Schedule(
        name="nightly",
        environments=("prod",),
        cron="0 0 3 * * *",
        start="2026-01-31T03:00:00Z",
        end="2027-01-31T03:00:00+01:00",
        profile="full",
        parameters={"rows": 5},
        enabled=False,
        catch_up=True,
        max_concurrency=2,
    )
    assert found.schedules["often"] == Schedule(name="often", environments=("dev", "prod"), every=86400)


def test_a_template_without_a_file_has_no_settings(tmp_path: Path) -> None:
    assert read(tmp_path, None) == Settings()


GOOD = 'environments = ["dev"]\nevery = "1h"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[profile.quick]", "unknown key profile; perhaps you meant 'profiles'"),
        ("profiles = 3", "profiles: expected tables such as [profiles.NAME]"),
        ("[profiles]\nquick = 3", "profiles.quick: expected a table"),
        ("[profiles.quick]\ngate = []", "unknown key profiles.quick.gate; perhaps you meant 'gates'"),
        ('[profiles."a b"]', "profiles.a b: a name has"),
        ('[profiles.quick]\ngates = "auc >= 1"', "profiles.quick.gates: expected a list of texts"),
        ('[profiles.quick]\ngates = ["auc => 1"]', "profiles.quick.gates: gate 'auc => 1'"),
        ("[profiles.quick]\ncaching = 1", "profiles.quick.caching: expected true or false, not 1"),
        ('[profiles.quick]\nlabels = { "a b" = "x" }', "profiles.quick.labels: a b: expected at most 63"),
        ("[profiles.quick]\nexperiment = 3", "profiles.quick.experiment: expected text, not 3"),
        ("[profiles.quick]\nparameters = { when = 2026-01-01, far = inf }", "profiles.quick.parameters: 'far': expected what JSON knows"),
        ("[profiles.quick]\nparameters = []", "profiles.quick.parameters: expected a table of parameters"),
        ('[overlays.dve."train"]', "overlays.dve: no environment 'dve'; perhaps you meant 'dev'"),
        ("[overlays.dev]\ncpu = 3", "overlays.dev.cpu: expected a table for a task's path"),
        ('[schedules.n]\nenvironments = ["dev"]', "schedules.n: expected either cron or every, and neither is there"),
        (f'[schedules.n]\n{GOOD}cron = "@daily"', "schedules.n: expected either cron or every, not both"),
        ('[schedules.n]\nevery = "1h"', "schedules.n: expected the environments that it is for"),
        ('[schedules.n]\nevery = "1h"\nenvironments = ["dev", "dev"]', "schedules.n.environments: names one twice"),
        ('[schedules.n]\nevery = "1h"\nenvironments = ["prd"]', "schedules.n.environments: no environment 'prd'; perhaps you meant 'prod'"),
        ('[schedules.n]\nevery = "1500ms"\nenvironments = ["dev"]', "schedules.n.every: expected whole seconds"),
        ('[schedules.n]\nevery = "daily"\nenvironments = ["dev"]', "schedules.n.every: expected a duration"),
        ('[schedules.n]\ncron = "0 3 * * *"\nenvironments = ["dev"]', "schedules.n.cron: expected six fields"),
        (f'[schedules.n]\n{GOOD}start = "2026-01-31T03:00:00"', "schedules.n.start: expected a time as RFC 3339 with its offset"),
        (f'[schedules.n]\n{GOOD}start = "tomorrow"', "schedules.n.start: expected a time"),
        (f"[schedules.n]\n{GOOD}start = 2026-01-31T03:00:00Z\nend = 2026-01-31T03:00:00+01:00", "schedules.n: it ends"),
        (f"[schedules.n]\n{GOOD}max-concurrency = 11", "schedules.n.max-concurrency: expected a whole number, 1 to 10"),
        (f"[schedules.n]\n{GOOD}max_concurrency = 1", "unknown key schedules.n.max_concurrency; perhaps you meant 'max-concurrency'"),
        (f'[schedules.n]\n{GOOD}profile = "ful"\n[profiles.full]', "schedules.n.profile: no profile 'ful'; perhaps you meant 'full'"),
        (f'[schedules.n]\n{GOOD}profile = "q"\n[profiles.q]\ncaching = true', "schedules.n.profile: 'q' sets caching"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert all(line.startswith(f"{tmp_path.name}/training.toml: ") for line in caught.value.message.splitlines())
    assert message in caught.value.message


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, "[profile.x]\n[profiles.quick]\ncaching = 1\n[schedules.n]\ncron = 'x'\n")
    assert len(caught.value.message.splitlines()) == 4


def test_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"training\.toml: not TOML.*line 1"):
        read(tmp_path, "[profiles\n")


def test_a_file_without_its_template_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, "", name="trainign")
    assert caught.value.message == f"{tmp_path.name}/trainign.toml: no template 'trainign' beside it; perhaps you meant 'training'"


def test_all_files_are_checked_together(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text("")
        (tmp_path / f"{name}.toml").write_text("[profiles.x]\n")
    (tmp_path / "_draft.toml").write_text("not TOML")
    found = settings.check_all(tmp_path, environments=ENVIRONMENTS)
    assert {name: list(each.profiles) for name, each in found.items()} == {"first": ["x"], "second": ["x"]}
    for name in ("first", "second"):
        (tmp_path / f"{name}.toml").write_text("wrong = 1\n")
    with pytest.raises(UsageError) as caught:
        settings.check_all(tmp_path, environments=ENVIRONMENTS)
    assert [line.partition(": ")[0] for line in caught.value.message.splitlines()] == [
        f"{tmp_path.name}/first.toml",
        f"{tmp_path.name}/second.toml",
    ]
    (tmp_path / "third.toml").write_text("")
    with pytest.raises(UsageError, match="no template 'third'"):
        settings.check_all(tmp_path, environments=ENVIRONMENTS)
