"""The lines of ``plan --branches``: what a driver that fans out reads."""

from __future__ import annotations

from trainshed.images.planning import Action, Plan, Planned
from trainshed.stages.plan import busy_waves


def entry(name: str, *, busy: bool) -> Planned:
    actions = (Action(check="build", needed=False, cause=""), Action(check="scan", needed=busy, cause=""))
    return Planned(name=name, input_digest=None, digest=None, actions=actions)


def test_only_components_with_work_are_named_in_the_order_of_their_waves() -> None:
    entries = (entry("base", busy=True), entry("other", busy=False), entry("serve", busy=False), entry("train", busy=True))
    plan = Plan(components=entries, waves=(("base", "other"), ("serve", "train")), plan_digest="")
    assert busy_waves(plan) == [["base"], ["train"]]


def test_a_wave_without_work_is_no_wave() -> None:
    plan = Plan(components=(entry("base", busy=False), entry("train", busy=True)), waves=(("base",), ("train",)), plan_digest="")
    assert busy_waves(plan) == [["train"]]
    assert busy_waves(Plan(components=(), waves=((),), plan_digest="")) == []
