"""``waivers.toml``."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from trainshed.errors import UsageError
from trainshed.findings.waivers import Waiver, load

GOOD = 'id = "CVE-1"\nowner = "team"\nreason = "unused"\nexpires = 2026-12-31\n'


def loaded(folder: Path, text: str) -> list[Waiver]:
    (folder / "waivers.toml").write_text(text)
    return load(folder / "waivers.toml")


def refused(folder: Path, text: str) -> list[str]:
    with pytest.raises(UsageError) as raised:
        loaded(folder, text)
    return [line.removeprefix(f"{folder}/waivers.toml: ") for line in raised.value.message.splitlines()]


def test_a_waiver_is_read_whole(tmp_path: Path) -> None:
    (waiver,) = loaded(tmp_path, f'[[waiver]]\n{GOOD}components = ["train"]\npackage = "libxml2"\n')
    expected = Waiver(
        id="CVE-1",
        owner="team",
        reason="unused",
        expires=dt.date(2026, 12, 31),
        components=("train",),
        package="libxml2",
    )
    assert waiver == expected
    assert str(waiver) == "CVE-1 (libxml2) in train, team"


def test_a_date_may_be_text(tmp_path: Path) -> None:
    (waiver,) = loaded(tmp_path, "[[waiver]]\n" + GOOD.replace("2026-12-31", '"2026-12-31"'))
    assert waiver.expires == dt.date(2026, 12, 31)
    assert str(waiver) == "CVE-1, team"


def test_a_missing_or_empty_file_holds_none(tmp_path: Path) -> None:
    assert load(tmp_path / "none.toml") == []
    assert loaded(tmp_path, "") == []


@pytest.mark.parametrize("key", ["id", "owner", "reason", "expires"])
def test_each_of_the_four_is_mandatory(tmp_path: Path, key: str) -> None:
    text = "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(key))
    name = "" if key == "id" else " (CVE-1)"
    assert refused(tmp_path, f"[[waiver]]\n{text}") == [f"waiver 1{name}: {key} is missing"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace('"team"', '" "'), "waiver 1 (CVE-1): owner: expected text, not ' '"),
        (GOOD.replace('"unused"', "1"), "waiver 1 (CVE-1): reason: expected text, not 1"),
        (GOOD.replace("2026-12-31", '"next year"'), "waiver 1 (CVE-1): expires: expected a date such as 2026-12-31, not 'next year'"),
        (GOOD + "expire = 1\n", "waiver 1 (CVE-1): unknown key expire; perhaps you meant 'expires'"),
        (GOOD + 'components = "train"\n', "waiver 1 (CVE-1): components: expected a list of names, not 'train'"),
        (GOOD + "package = ''\n", "waiver 1 (CVE-1): package: expected text, not ''"),
    ],
)
def test_a_broken_waiver_is_refused_with_its_number_and_id(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, f"[[waiver]]\n{text}") == [message]


def test_a_moment_is_no_date(tmp_path: Path) -> None:
    (message,) = refused(tmp_path, "[[waiver]]\n" + GOOD.replace("2026-12-31", "2026-12-31T00:00:00Z"))
    assert message.startswith("waiver 1 (CVE-1): expires: expected a date")


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    text = f'waivers = 1\n[[waiver]]\nid = "A"\n[[waiver]]\n{GOOD}\n[[waiver]]\n{GOOD}'
    assert refused(tmp_path, text) == [
        "unknown key waivers; perhaps you meant 'waiver'",
        "waiver 1 (A): owner is missing",
        "waiver 1 (A): reason is missing",
        "waiver 1 (A): expires is missing",
        "waiver 3: CVE-1 is waived twice for the same components and package",
    ]


def test_the_same_finding_may_be_waived_for_several_packages(tmp_path: Path) -> None:
    assert len(loaded(tmp_path, f'[[waiver]]\n{GOOD}package = "a"\n[[waiver]]\n{GOOD}package = "b"\n')) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("waiver = 1", "waiver: expected tables"),
        ("waiver = [1]", "waiver 1: expected a table"),
        ("[[", "not TOML"),
        ("a=" + "[" * 5000, "not TOML"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text)[0].startswith(message)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "waivers.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not UTF-8"):
        load(tmp_path / "waivers.toml")
