"""An error as one text: a sentence, and the next one."""

from __future__ import annotations

import pytest

from trainshed.errors import WorkFailed


@pytest.mark.parametrize(
    ("message", "next_step", "told"),
    [
        ("the build failed", "See the log.", "the build failed. See the log."),
        ("The build failed.", "See the log.", "The build failed. See the log."),
        ("one\ntwo", "Mend both.", "one\ntwo\nMend both."),
        ("the build failed", "", "the build failed"),
    ],
)
def test_message_and_next_step_read_as_sentences(message: str, next_step: str, told: str) -> None:
    assert WorkFailed(message, next_step=next_step).told == told
