"""Log-ins: read from where Docker keeps them, never shown."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from trainshed.errors import ToolMissing, UsageError
from trainshed.tools.credentials import Login, lent, lookup


def write(folder: Path, document: object) -> Path:
    (folder / "config.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def auth(name: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


def basic(name: str, secret: str) -> Login:
    return Login(username=name, password=secret)


def token(secret: str) -> Login:
    return Login(identity_token=secret)


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "docker-credential-vault"
    program.write_text(f"#!/bin/sh\nread -r asked\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_machine_without_configuration_has_no_login(tmp_path: Path) -> None:
    assert lookup("registry.example.org", folder=tmp_path) is None


def test_the_folder_is_docker_configs_or_the_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"auths": {"r.example.org": auth("me", "pw")}})
    assert lookup("r.example.org") is None
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert lookup("r.example.org") == basic("me", "pw")


@pytest.mark.parametrize("key", ["r.example.org:5000", "https://r.example.org:5000", "https://r.example.org:5000/v2/"])
def test_a_stored_login_is_found_under_any_spelling(tmp_path: Path, key: str) -> None:
    write(tmp_path, {"auths": {key: auth("me", "p:w"), "other": auth("you", "x")}})
    assert lookup("r.example.org:5000", folder=tmp_path) == basic("me", "p:w")


def test_docker_hub_has_its_old_address(tmp_path: Path) -> None:
    write(tmp_path, {"auths": {"https://index.docker.io/v1/": {"identitytoken": "tok", **auth("", "")}}})
    assert lookup("docker.io", folder=tmp_path) == token("tok")


def test_a_login_does_not_show_its_secret() -> None:
    assert "hush" not in repr([basic("me", "hush"), token("hush")])


@pytest.mark.parametrize("document", ["{", "[]", '{"auths": {"r": {"auth": "%%%"}}}'])
def test_a_broken_configuration_is_named_without_its_content(tmp_path: Path, document: str) -> None:
    with pytest.raises(UsageError, match=r"config\.json") as caught:
        lookup("r", folder=write(tmp_path, document))
    assert "%%%" not in caught.value.message


@pytest.mark.parametrize("where", ["credsStore", "credHelpers"])
def test_a_helper_is_asked_for_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    helper(tmp_path, monkeypatch, 'echo "{\\"Username\\": \\"u-$asked\\", \\"Secret\\": \\"s\\"}"')
    write(tmp_path, {where: "vault" if where == "credsStore" else {"r.example.org": "vault"}})
    assert lookup("r.example.org", folder=tmp_path) == basic("u-r.example.org", "s")


def test_a_helpers_token_is_an_identity_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, 'echo "{\\"Username\\": \\"<token>\\", \\"Secret\\": \\"s\\"}"')
    assert lookup("r", folder=write(tmp_path, {"credsStore": "vault"})) == token("s")


def test_a_helper_that_knows_nothing_leaves_us_without_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, "echo 'credentials not found in native keychain'; exit 1")
    assert lookup("r", folder=write(tmp_path, {"credsStore": "vault"})) is None


@pytest.mark.parametrize("script", ["echo hush; exit 3", "echo hush"])
def test_a_helper_that_fails_is_told_without_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    helper(tmp_path, monkeypatch, script)
    with pytest.raises(ToolMissing, match="docker-credential-vault") as caught:
        lookup("r", folder=write(tmp_path, {"credsStore": "vault"}))
    assert "hush" not in caught.value.message


def test_a_helper_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="docker-credential-nowhere was not found"):
        lookup("r", folder=write(tmp_path, {"credHelpers": {"r": "nowhere"}}))


def test_an_empty_helper_says_that_the_file_holds_the_login_and_no_store_is_asked(tmp_path: Path) -> None:
    write(tmp_path, {"credsStore": "missing", "credHelpers": {"r.example.org": ""}, "auths": {"r.example.org": auth("me", "pw")}})
    assert lookup("r.example.org", folder=tmp_path) == basic("me", "pw")
    write(tmp_path, {"credsStore": "missing", "credHelpers": {"r.example.org": ""}})
    assert lookup("r.example.org", folder=tmp_path) is None


def test_a_lent_login_stands_beside_all_that_the_user_has_and_is_gone_afterwards(tmp_path: Path) -> None:
    users, work = tmp_path / "user", tmp_path / "work"
    (users / "buildx").mkdir(parents=True)
    (users / "cli-plugins").mkdir()
    mine = {
        "auths": {"other.example.org": auth("you", "x"), "r.example.org": auth("me", "old")},
        "credsStore": "vault",
        "credHelpers": {"third.example.org": "third"},
        "proxies": {"default": {"httpProxy": "http://proxy:1"}},
        "currentContext": "far",
    }
    write(users, mine)
    before = (users / "config.json").read_bytes()
    with lent({"r.example.org": basic("AWS", "hush")}, within=work, folder=users) as variables:
        folder = Path(variables["DOCKER_CONFIG"])
        assert variables == {"DOCKER_CONFIG": str(folder), "BUILDX_CONFIG": str(users / "buildx")}
        assert (folder.parent, folder.stat().st_mode & 0o777, (folder / "config.json").stat().st_mode & 0o777) == (work, 0o700, 0o600)
        document = json.loads((folder / "config.json").read_text())
        assert document == {
            **mine,
            "auths": {"other.example.org": auth("you", "x"), "r.example.org": auth("AWS", "hush")},
            "credHelpers": {"third.example.org": "third", "r.example.org": ""},
        }
        assert lookup("r.example.org", folder=folder) == basic("AWS", "hush")
        (folder / "buildx" / "kept").write_text("a builder")
        assert {entry.name for entry in folder.iterdir()} == {"config.json", "buildx", "cli-plugins"}
    assert list(work.iterdir()) == []
    assert (users / "config.json").read_bytes() == before
    assert (users / "buildx" / "kept").read_text() == "a builder"


def test_the_users_place_for_builders_holds_also_where_a_login_is_lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDX_CONFIG", "/elsewhere")
    with lent({"r.example.org": token("hush")}, within=tmp_path / "work", folder=tmp_path / "none") as variables:
        assert variables["BUILDX_CONFIG"] == "/elsewhere"
        assert lookup("r.example.org", folder=Path(variables["DOCKER_CONFIG"])) == token("hush")


def test_where_nothing_is_lent_nothing_is_made(tmp_path: Path) -> None:
    with lent({}, within=tmp_path / "work") as variables:
        assert variables == {}
    assert not (tmp_path / "work").exists()
