"""What fails, what is waived, and which waivers need a look."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from trainshed.findings.model import Finding
from trainshed.findings.policy import Judgement, judge, warnings
from trainshed.findings.waivers import Waiver

TODAY = dt.date(2026, 6, 15)
LOW, HIGH = (
    Finding(id=f"CVE-{severity}", severity=severity, kind="vulnerability", package="libxml2", fixed="2") for severity in ("low", "high")
)


def waiver(*, days: int = 100, components: tuple[str, ...] = (), package: str = "", name: str = HIGH.id) -> Waiver:
    expires = TODAY + dt.timedelta(days=days)
    return Waiver(id=name, owner="team", reason="unused", expires=expires, components=components, package=package)


def judged(*waivers: Waiver, fail_on: str = "high", component: str = "train") -> Judgement:
    return judge([HIGH, LOW], fail_on=fail_on, waivers=waivers, today=TODAY, component=component, unfixed="tolerate")


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [("low", (HIGH, LOW)), ("medium", (HIGH,)), ("high", (HIGH,)), ("critical", ()), ("never", ())],
)
def test_what_is_at_or_above_the_threshold_fails(fail_on: str, failing: tuple[Finding, ...]) -> None:
    judgement = judged(fail_on=fail_on)
    assert judgement.failing == failing
    assert set(judgement.failing) | set(judgement.tolerated) == {HIGH, LOW}
    assert judgement.green is not bool(failing)


def test_a_finding_that_nobody_rated_fails_at_the_lowest_threshold_only() -> None:
    unrated = Finding(id="CVE-new", severity="unknown", kind="vulnerability")
    assert not judge([unrated], fail_on="low", waivers=[], today=TODAY, component="a", unfixed="fail").green
    assert judge([unrated], fail_on="medium", waivers=[], today=TODAY, component="a", unfixed="fail").green


def test_a_finding_without_a_fix_stands_where_the_policy_tolerates_it_and_is_told_apart() -> None:
    unfixed = replace(HIGH, id="CVE-unfixed", fixed="")
    tolerated = judge([unfixed], fail_on="high", unfixed="tolerate", waivers=[], today=TODAY, component="a")
    assert tolerated.green
    assert (tolerated.unfixed, tolerated.tolerated, tolerated.failing) == ((unfixed,), (), ())
    strict = judge([unfixed], fail_on="high", unfixed="fail", waivers=[], today=TODAY, component="a")
    assert (strict.unfixed, strict.failing) == ((), (unfixed,))


@pytest.mark.parametrize("kind", ["secret", "misconfiguration"])
def test_a_secret_or_a_wrong_setting_can_always_be_mended_so_it_fails(kind: str) -> None:
    found = Finding(id="x", severity="high", kind=kind, target="/app/key")
    assert judge([found], fail_on="high", unfixed="tolerate", waivers=[], today=TODAY, component="a").failing == (found,)


def test_a_waiver_for_a_finding_without_a_fix_is_used_before_it_is_tolerated() -> None:
    unfixed, given = replace(HIGH, fixed=""), waiver()
    judgement = judge([unfixed], fail_on="high", unfixed="tolerate", waivers=[given], today=TODAY, component="train")
    assert (judgement.waived, judgement.unfixed, judgement.used) == ((unfixed,), (), frozenset({given}))


@pytest.mark.parametrize("given", [waiver(), waiver(days=0), waiver(components=("other", "train")), waiver(package="libxml2")])
def test_a_waiver_that_matches_lets_the_finding_stand_until_the_end_of_its_last_day(given: Waiver) -> None:
    judgement = judged(given)
    assert judgement.green
    assert judgement.waived == (HIGH,)
    assert judgement.used == {given}


@pytest.mark.parametrize("given", [waiver(name="CVE-other"), waiver(components=("other",)), waiver(package="zlib")])
def test_a_waiver_for_something_else_does_not_apply(given: Waiver) -> None:
    judgement = judged(given)
    assert judgement.failing == (HIGH,)
    assert judgement.used == set()


def test_an_expired_waiver_does_not_apply_and_is_named() -> None:
    judgement = judged(waiver(days=-1))
    assert judgement.failing == judgement.expired == (HIGH,)
    assert judgement.used == {waiver(days=-1)}


def test_a_valid_waiver_beside_an_expired_one_applies() -> None:
    assert judged(waiver(days=-1), waiver(package="libxml2")).green


def test_a_finding_below_the_threshold_that_a_waiver_ran_out_for_is_tolerated() -> None:
    judgement = judged(waiver(days=-1), fail_on="critical")
    assert judgement.expired == ()
    assert judgement.green


def test_waivers_that_expired_expire_soon_or_are_unused_are_reported() -> None:
    used = [waiver(days=-1), waiver(days=14, package="a"), waiver(days=15, package="b")]
    unused = waiver(days=200, package="c")
    assert warnings([*used, unused], used=used, today=TODAY, complete=True) == [
        "waiver CVE-high, team: expired on 2026-06-14",
        "waiver CVE-high (a), team: expires on 2026-06-29, in 14 days",
        "waiver CVE-high (c), team: unused: no such finding any more",
    ]


def test_nothing_is_called_unused_while_some_components_were_not_judged() -> None:
    assert warnings([waiver()], used=[], today=TODAY, complete=False) == []


def test_a_waiver_for_a_component_that_is_gone_is_reported_once() -> None:
    given = waiver(components=("train", "old"))
    expected = ["waiver CVE-high in train, old, team: no such component: old"]
    assert warnings([given], used=[], today=TODAY, complete=True, components=["train"]) == expected
    assert warnings([given], used=[given], today=TODAY, complete=False, components=["train", "old"]) == []
