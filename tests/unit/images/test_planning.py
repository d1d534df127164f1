from __future__ import annotations

from trainshed.images import planning
from trainshed.images.planning import Facts, Plan, Standing

DIGEST = "sha256:" + "a" * 64
GREEN = {"scan": Standing(green=True), "test": Standing(green=True)}


def causes(facts: Facts) -> dict[str, str]:
    """Return the checks that are needed, each with its cause."""
    return {action.check: action.cause for action in planning.decide(facts).actions if action.needed}


def test_an_image_with_green_verdicts_needs_nothing() -> None:
    assert causes(Facts(name="train", input_digest=DIGEST, digest=DIGEST, standings=GREEN)) == {}


def test_a_changed_file_is_the_cause_of_the_build_and_the_new_image_that_of_its_checks() -> None:
    facts = Facts(name="train", input_digest=DIGEST, digest=None, changes=("changed: src/train.py",), known_before=True)
    assert causes(facts) == {"build": "changed: src/train.py", "scan": "new image", "test": "new image"}


def test_a_base_that_must_be_built_moves_what_stands_on_it() -> None:
    facts = Facts(name="train", input_digest=None, digest=None, waits_for=("base-python",))
    assert causes(facts)["build"] == "base moves: base-python"


def test_an_image_that_the_registry_lost_is_told_from_one_that_never_was() -> None:
    assert causes(Facts(name="a", input_digest=DIGEST, digest=None, known_before=True))["build"].startswith("the registry has no image")
    assert causes(Facts(name="a", input_digest=DIGEST, digest=None))["build"] == "never built here"


def test_cached_is_not_trusted_just_the_missing_check_runs() -> None:
    standings = {"scan": Standing(reason="the verdict is older than scan.max-db-age"), "test": Standing(green=True)}
    facts = Facts(name="a", input_digest=DIGEST, digest=DIGEST, standings=standings)
    assert causes(facts) == {"scan": "the verdict is older than scan.max-db-age"}
    assert causes(Facts(name="a", input_digest=DIGEST, digest=DIGEST)) == {
        "scan": "no scan verdict for this digest",
        "test": "no test verdict for this digest",
    }


def test_a_plan_finds_its_parts_by_name_and_says_what_they_reach() -> None:
    entry = planning.decide(Facts(name="a", input_digest=DIGEST, digest=None), reaches=["service a", "pipeline p"])
    plan = Plan(components=(entry,), waves=(("a",),), plan_digest=DIGEST)
    assert plan.of("a").needed == ("build", "scan", "test")
    assert plan.of("a").reaches == ("pipeline p", "service a")
    assert planning.document(plan) == {"waves": [["a"]], "plan_digest": DIGEST}


def test_the_plan_digest_depends_on_names_and_digests_alone() -> None:
    one = planning.plan_digest({"a": DIGEST, "b": "sha256:" + "b" * 64})
    assert one == planning.plan_digest({"b": "sha256:" + "b" * 64, "a": DIGEST})
    assert one != planning.plan_digest({"b": DIGEST, "a": "sha256:" + "b" * 64})
