"""What a Pipeline's console says of stages and branches, in the shapes that controllers write."""

from __future__ import annotations

import pytest

from trainshed.stages.jenkins.narration import TAIL_LINES, Narrator

FAN_OUT = """Started by user Ada
[Pipeline] Start of Pipeline
[Pipeline] node
Running on agent-1 in /home/jenkins/workspace/repo_main
[Pipeline] {
[Pipeline] stage
[Pipeline] { (Declarative: Checkout SCM)
[Pipeline] checkout
[Pipeline] }
[Pipeline] // stage
[Pipeline] withEnv
[Pipeline] {
[Pipeline] stage
[Pipeline] { (images)
[Pipeline] script
[Pipeline] {
[Pipeline] parallel
[Pipeline] { (Branch: base)
[Pipeline] { (Branch: learn (new))
[Pipeline] withCredentials
[Pipeline] {
[Pipeline] sh (images)
[Pipeline] withCredentials
[Pipeline] {
[Pipeline] sh (images)
+ scripts/images -- base
build base: done in 3.2 s (no image of these inputs)
scan base: cached (sha256:11 was scanned before)
test learn: failed in 0.4 s
── test learn failed ────────────────────
   test learn: failed, says a log
────────────────────────────────────────
[Pipeline] }
[Pipeline] // withCredentials
[Pipeline] }
Failed in branch learn (new)
[Pipeline] }
[Pipeline] // withCredentials
[Pipeline] }
[Pipeline] // parallel
[Pipeline] }
[Pipeline] // script
[Pipeline] }
[Pipeline] // stage
[Pipeline] stage
[Pipeline] { (upload)
Stage "upload" skipped due to earlier failure(s)
[Pipeline] getContext
[Pipeline] }
[Pipeline] // stage
[Pipeline] stage
[Pipeline] { (Declarative: Post Actions)
[Pipeline] echo
[Pipeline] }
[Pipeline] // stage
[Pipeline] }
[Pipeline] // withEnv
[Pipeline] }
[Pipeline] // node
[Pipeline] End of Pipeline
ERROR: script returned exit code 1
Finished: FAILURE
"""
TOLD = [
    "stage Declarative: Checkout SCM",
    "stage Declarative: Checkout SCM: ended",
    "stage images",
    "branch base",
    "branch learn (new)",
    "build base: done in 3.2 s (no image of these inputs)",
    "scan base: cached (sha256:11 was scanned before)",
    "test learn: failed in 0.4 s",
    "branch learn (new): failed",
    "branch base: ended",
    "stage images: failed in branch learn (new)",
    "stage upload: skipped, something failed before it",
    "stage Declarative: Post Actions",
    "stage Declarative: Post Actions: ended",
]


def told(text: str, size: int = 10_000) -> list[str]:
    narrator = Narrator()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return [event for piece in pieces for event in narrator.feed(piece)] + narrator.finish()


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_fan_out_is_told_the_same_in_pieces_of_any_size(size: int) -> None:
    assert told(FAN_OUT, size) == TOLD


@pytest.mark.parametrize("stamp", ["[2026-01-02T03:04:05.678Z] ", "03:04:05  ", "\x1b[8mha:////4ABC+def=\x1b[0m"])
def test_what_plugins_write_before_a_line_is_left_out(stamp: str) -> None:
    assert told("".join(f"{stamp}{line}\r\n" for line in FAN_OUT.splitlines())) == TOLD


def test_controllers_that_name_the_branch_before_each_line_are_read_too() -> None:
    text = """[Pipeline] stage
[Pipeline] { (images)
[Pipeline] parallel
[Pipeline] [a] { (Branch: a)
[Pipeline] [b] { (Branch: b)
[a] test a: failed in 1.0 s
[Pipeline] [a] }
[a] Failed in branch a
[Pipeline] [b] }
[Pipeline] // parallel
[Pipeline] }
[Pipeline] // stage
"""
    assert told(text) == [
        "stage images",
        "branch a",
        "branch b",
        "test a: failed in 1.0 s",
        "branch a: failed",
        "branch b: ended",
        "stage images: failed in branch a",
    ]


def test_stages_inside_of_branches_do_not_end_the_stage_around_them() -> None:
    text = """[Pipeline] { (checks)
[Pipeline] parallel
[Pipeline] { (Branch: lint)
[Pipeline] { (Branch: unit)
[Pipeline] stage
[Pipeline] { (lint)
[Pipeline] stage
[Pipeline] { (unit)
[Pipeline] stage
[Pipeline] { (slow)
[Pipeline] }
[Pipeline] // stage
[Pipeline] }
[Pipeline] // stage
[Pipeline] }
[Pipeline] // stage
[Pipeline] }
[Pipeline] }
[Pipeline] // parallel
[Pipeline] }
[Pipeline] // stage
"""
    expected = [
        "stage checks",
        "branch lint",
        "branch unit",
        "stage slow",
        "branch lint: ended",
        "branch unit: ended",
        "stage checks: ended",
    ]
    assert told(text) == expected


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("Resuming build at Sun Nov 22 13:00:00 UTC 2026 after Jenkins restart", "the controller was restarted; the build goes on"),
        ("Aborted by Ada Lovelace", "aborted by Ada Lovelace"),
        ("Superseded by #13", "superseded by #13"),
        ("Still waiting to schedule task", "waits for an agent"),
        ("Cancelling nested steps due to timeout", "a time limit of the pipeline passed"),
        ("launch training: train RUNNING", "launch training: train RUNNING"),
        ('Stage "deploy" skipped due to when conditional', "stage deploy: skipped, its condition does not hold"),
    ],
)
def test_what_else_happens_to_a_build_is_told(line: str, event: str) -> None:
    assert told(f"{line}\n") == [event]


def test_a_log_that_lost_its_end_and_grew_again_is_told_once() -> None:
    lines = FAN_OUT.splitlines(keepends=True)
    narrator = Narrator()
    first = narrator.feed("".join(lines[:30]))
    narrator.rewind()
    rest = narrator.feed("".join(lines[:24])) + narrator.feed("".join(lines[24:])) + narrator.finish()
    assert first + rest == TOLD


def test_a_stage_that_says_nothing_for_a_while_is_told_all_the_same() -> None:
    narrator = Narrator()
    assert narrator.feed("[Pipeline] { (plan)\n[Pipeline] sh (pl") == []
    assert narrator.feed("") == ["stage plan"]
    assert narrator.feed("an)\n[Pipeline] }\n") == ["stage plan: ended"]


def test_the_same_event_twice_in_a_log_is_told_twice() -> None:
    assert told("waits\nStill waiting to schedule task\nStill waiting to schedule task\n") == ["waits for an agent"] * 2


def test_the_tail_is_what_a_person_would_have_seen_last() -> None:
    narrator = Narrator()
    narrator.feed("".join(f"03:04:05  line {number}\n\n" for number in range(100)))
    assert list(narrator.tail) == [f"line {number}" for number in range(100 - TAIL_LINES, 100)]


def test_text_that_is_no_pipeline_s_tells_nothing() -> None:
    assert told("[Pipeline] }\n[Pipeline] // parallel\n[Pipeline]\n} else {\nhello world: it failed\n") == []
