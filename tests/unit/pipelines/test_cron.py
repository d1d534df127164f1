from __future__ import annotations

import pytest

from trainshed.pipelines import cron


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 0 3 * * *", "0 0 3 * * *"),
        ("  0  */10 0-23/2 ? jan,JUN mon-Fri ", "0 */10 0-23/2 ? jan,JUN mon-Fri"),
        ("0 5/15 * * * 0", "0 5/15 * * * 0"),
        ("0 0 0 29 2 *", "0 0 0 29 2 *"),
        ("0 0 0 31 2 1", "0 0 0 31 2 1"),  # the 31st never comes in February, its Mondays do
        ("@daily", "@daily"),
        ("@every 1h30m", "@every 1h30m"),
        ("@every 90s", "@every 90s"),
    ],
)
def test_what_the_server_takes_is_taken(text: str, told: str) -> None:
    assert cron.check(text) == told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "0 3 * * *",
            "expected six fields (second, minute, hour, day of month, month, day of week), not 5 in '0 3 * * *'; put the seconds",
        ),
        ("", "not 0"),
        ("0 0 0 3 * * *", "not 7"),
        ("60 0 3 * * *", "second: expected 0 to 59, not '60'"),
        ("0 0 24 * * *", "hour: expected 0 to 23, not '24'"),
        ("0 0 0 0 * *", "day of month: expected 1 to 31, not '0'"),
        ("0 0 0 * 13 *", "month: expected 1 to 12 or jan to dec, not '13'"),
        ("0 0 0 * * 7", "day of week: expected 0 to 6 or sun to sat, not '7'"),
        ("0 0 0 * * monday", "not 'monday'"),
        ("0 30-10 0 * * *", "minute: '30-10' ends before it begins"),
        ("0 */0 0 * * *", "minute: '*/0' has no step"),
        ("0 1,,2 0 * * *", "minute: '' is no number"),
        ("0 1-2-3 0 * * *", "minute: '1-2-3' is no number"),
        ("0 L 0 * * *", "minute: expected 0 to 59, not 'L'"),
        ("0 0 0 31 feb,4 *", "never comes"),
        ("0 0 0 30 2 ?", "never comes"),
        ("0 0 0 30 2 */2", "never comes"),
        ("0 0 0 31 4 1,?", "never comes"),
        ("0 */٣ * * * *", "no number"),
        ("@every 0s", "every second"),
        ("@every 1.2.3h", "@every 1h30m"),
        ("@dayly", "perhaps you meant '@daily'"),
        ("@every", "@every 1h30m"),
        ("@every soon", "@every 1h30m"),
        ("@reboot", "not '@reboot'"),
    ],
)
def test_anything_else_is_told_with_its_field(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        cron.check(text)
    assert message in str(caught.value)
