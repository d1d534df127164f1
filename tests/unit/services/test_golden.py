from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trainshed.errors import UsageError
from trainshed.services import golden


def loaded(tmp_path: Path, document: Any) -> tuple[golden.Golden, ...]:
    file = tmp_path / "golden.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return golden.load(file)


def one(tmp_path: Path, answer: Any, tolerance: float = 0.0) -> golden.Golden:
    return loaded(tmp_path, {"tolerance": tolerance, "requests": [{"path": "/predict", "body": {}, "answer": answer}]})[0]


def test_a_request_has_sensible_defaults(tmp_path: Path) -> None:
    posted, asked = loaded(tmp_path, {"requests": [{"path": "/a", "body": 1, "answer": 2}, {"path": "/b", "answer": {}, "status": 404}]})
    assert (posted.name, posted.method, posted.status) == ("request 1", "POST", 200)
    assert (asked.method, asked.status, asked.body) == ("GET", 404, None)


def test_what_the_file_does_not_name_is_free(tmp_path: Path) -> None:
    assert golden.compare(one(tmp_path, {"a": 1}), 200, {"a": 1, "version": "any"}) == []


def test_numbers_may_differ_by_the_tolerance_and_no_more(tmp_path: Path) -> None:
    wanted = one(tmp_path, {"p": [0.5, 1]}, tolerance=0.01)
    assert golden.compare(wanted, 200, {"p": [0.505, 1.0]}) == []
    assert golden.compare(wanted, 200, {"p": [0.52, 1]}) == ["request 1: answer.p[0] is 0.52 instead of 0.5"]
    assert golden.compare(wanted, 200, {"p": [float("nan"), 1]}) != []


def test_large_numbers_may_differ_by_a_part_of_what_is_wanted(tmp_path: Path) -> None:
    (wanted,) = loaded(tmp_path, {"relative-tolerance": 0.1, "tolerance": 1, "requests": [{"path": "/a", "answer": [1000, 0]}]})
    assert golden.compare(wanted, 200, [1100, 1]) == []
    assert golden.compare(wanted, 200, [1101, -1]) == ["request 1: answer[0] is 1101 instead of 1000"]
    assert golden.compare(wanted, 200, [float("inf"), 0]) != []
    assert golden.compare(wanted, 200, [10**400, 0.5]) != []


def test_requests_that_were_kept_are_read_again_without_the_file(tmp_path: Path) -> None:
    content = '{"requests": [{"path": "/a", "answer": "ü"}]}'
    assert golden.parsed(content, place="the ledger") == loaded(tmp_path, content)
    with pytest.raises(UsageError, match="the ledger: not JSON"):
        golden.parsed("{", place="the ledger")


@pytest.mark.parametrize(
    ("wanted", "given", "said"),
    [
        ({"a": 1}, {}, "answer.a is missing"),
        ([1, 2], [1], "answer has 1 items instead of 2"),
        ({"a": True}, {"a": 1}, "answer.a is 1 instead of True"),
        ({"a": "x"}, {"a": None}, "answer.a is None instead of 'x'"),
        ({"a": {}}, {"a": []}, "answer.a is [] instead of {}"),
    ],
)
def test_every_difference_is_named_with_its_place(tmp_path: Path, wanted: Any, given: Any, said: str) -> None:
    assert golden.compare(one(tmp_path, wanted), 200, given) == [f"request 1: {said}"]


def test_another_status_is_a_difference(tmp_path: Path) -> None:
    assert golden.compare(one(tmp_path, {}), 503, None) == ["request 1: status 503 instead of 200"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ('{"path": "/a", "answer": NaN}', "NaN is no number that an answer could be compared with"),
        ('{"path": "/a", "answer": 1, "answer": 2}', "'answer' is given twice"),
        ('{"path": "/a b", "answer": 1}', "requests[0]: path: expected text such as /predict"),
        ('{"path": "/a\\r\\nX: y", "answer": 1}', "requests[0]: path: expected text such as /predict"),
        ('{"path": "/a", "status": 20, "answer": 1}', "requests[0]: status: expected a number"),
    ],
)
def test_what_no_revision_could_answer_is_refused_before_one_is_rolled_back_for_it(request_: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        golden.parsed(f'{{"requests": [{request_}]}}', place="golden.json")


def test_a_wrong_file_is_refused_with_all_problems(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(
            tmp_path,
            {"tolerance": -1, "more": 1, "requests": [{"pth": "/a"}, 3, {"path": "/a", "method": "EAT", "status": "ok", "answer": 1}]},
        )
    said = caught.value.message
    for problem in (
        "unknown key more",
        "tolerance: expected a number",
        "requests[0]: unknown key pth; perhaps you meant 'path'",
        "requests[0]: path: expected text",
        "requests[0]: answer: is missing",
        "requests[1]: expected an object",
        "requests[2]: method: expected one of GET, POST, PUT",
        "requests[2]: status: expected a number",
    ):
        assert problem in said
    for text in ("{", "[]", '{"requests": []}'):
        with pytest.raises(UsageError):
            loaded(tmp_path, text)
