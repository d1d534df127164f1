"""JUnit: what images write is read with care, what Jenkins reads is written whole."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from trainshed.errors import WorkFailed
from trainshed.reports import junit
from trainshed.results import Case, Report, Result, Status


def test_cases_are_read_with_suite_time_failure_and_skip() -> None:
    content = b"""<?xml version="1.0" encoding="utf-8"?>
    <testsuites><testsuite name="pytest" tests="5">
      <properties><property name="failure" value="no"/></properties>
      <testcase classname="tests.test_a" name="test_one" time="1.5"><system-out>noise</system-out></testcase>
      <testcase name="test_two" time="1,234.5"><failure message="0.5 &lt; 0.8">the trace</failure></testcase>
      <testcase name="test_three" time="nan"><error type="OSError"/></testcase>
      <testcase name="test_four"><skipped message="no network"/></testcase>
      <testcase name="test_five"><failure/></testcase>
    </testsuite></testsuites>"""
    assert junit.read(content) == [
        Case(name="test_one", suite="tests.test_a", seconds=1.5),
        Case(name="test_two", suite="pytest", seconds=1234.5, failure="0.5 < 0.8\nthe trace"),
        Case(name="test_three", suite="pytest", failure="OSError"),
        Case(name="test_four", suite="pytest", skipped="no network"),
        Case(name="test_five", suite="pytest", failure="no message"),
    ]


def test_a_name_space_makes_no_difference() -> None:
    assert junit.read(b'<x:testsuite xmlns:x="urn:j" name="s"><x:testcase name="a"/></x:testsuite>') == [Case(name="a", suite="s")]


def test_a_file_without_cases_has_none() -> None:
    assert junit.read(b"<testsuites><failure>outside</failure></testsuites>") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not XML: "),
        (b"<testsuite><testcase", "not XML: "),
        (b"Traceback (most recent call last):", "not XML: "),
        (b"<?xml version='1.0' encoding='nope'?><a/>", "not XML: "),
        (b'<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]><a>&y;</a>', "has a DTD"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "has a DTD"),
        (b" " * (junit.MAX_BYTES + 1), "larger than 16 MiB"),
    ],
    ids=["empty", "cut off", "text", "unknown encoding", "entities", "outside", "large"],
)
def test_what_is_no_plain_xml_of_fair_size_is_refused_with_its_place(content: bytes, message: str) -> None:
    with pytest.raises(WorkFailed, match=rf"^train/junit\.xml: {message}"):
        junit.read(content, place="train/junit.xml")


def test_a_deep_file_is_read() -> None:
    depth = 10_000
    assert junit.read(b"<a>" * depth + b"<testcase name='deep'/>" + b"</a>" * depth) == [Case(name="deep")]


def test_a_long_failure_keeps_its_beginning_and_its_end() -> None:
    (case,) = junit.read(b"<testcase name='a'><failure>first" + b"x" * 100_000 + b"last</failure></testcase>")
    assert case.failure.startswith("first")
    assert case.failure.endswith("last")
    assert len(case.failure) < junit.MAX_TEXT + 20


def written(*results: Result) -> ET.Element:
    return ET.fromstring(junit.write([Report(stage="images", results=results)]))  # noqa: S314 - our own


def result(status: Status, *, stage: str = "test", message: str = "", cause: str = "", cases: tuple[Case, ...] = ()) -> Result:
    return Result(name="train", stage=stage, status=status, seconds=1.5, message=message, cause=cause, cases=cases)


def test_each_stage_is_a_suite_that_counts_its_cases() -> None:
    root = written(
        result(Status.DONE, stage="build"),
        result(Status.FAILED, cases=(Case(name="good", suite="t", seconds=1), Case(name="bad", failure="first\nsecond"))),
        result(Status.CACHED, cases=(Case(name="skipped", skipped="no network"),)),
    )
    build, test = root
    assert build.attrib == {"name": "build", "tests": "1", "failures": "0", "skipped": "0", "time": "1.500"}
    assert test.attrib == {"name": "test", "tests": "3", "failures": "1", "skipped": "1", "time": "1.000"}
    assert [(case.get("classname"), case.get("name")) for case in root.iter("testcase")] == [
        ("build", "train"),
        ("test.train.t", "good"),
        ("test.train", "bad"),
        ("test.train", "skipped"),
    ]
    failure = test[1][0]
    assert (failure.tag, failure.get("message"), failure.text) == ("failure", "first", "first\nsecond")


@pytest.mark.parametrize("cases", [(), (Case(name="good"),)])
def test_a_failure_is_told_even_when_no_single_test_failed(cases: tuple[Case, ...]) -> None:
    (suite,) = written(result(Status.FAILED, message="wrote no JUnit file", cases=cases))
    assert suite.get("failures") == "1"
    assert suite[-1].get("classname") == "test"
    assert suite[-1][0].text == "wrote no JUnit file"


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (result(Status.ABORTED, message="needs build train, which failed"), "needs build train, which failed"),
        (result(Status.SKIPPED, cause="has no tests"), "has no tests"),
        (result(Status.SKIPPED), "skipped"),
    ],
)
def test_what_was_not_run_is_shown_as_skipped_with_the_reason(ended: Result, reason: str) -> None:
    (suite,) = written(ended)
    assert suite.get("skipped") == "1"
    assert suite[0][0].text == reason


def test_a_failure_without_a_message_is_still_a_failure() -> None:
    assert written(result(Status.FAILED))[0].get("failures") == "1"


def test_characters_that_xml_cannot_hold_are_replaced() -> None:
    case = Case(name="a\x00<&\ud800", failure="\x1b[31mred ]]> \U0001f600")
    root = written(result(Status.FAILED, cases=(case,)))
    assert root[0][0].get("name") == "a\ufffd<&\ufffd"
    assert root[0][0][0].text == "\ufffd[31mred ]]> \U0001f600"


def test_what_is_written_can_be_read() -> None:
    content = junit.write([Report(stage="images", results=(result(Status.FAILED, message="é"),))])
    assert junit.read(content) == [Case(name="train", suite="test", seconds=1.5, failure="é\né")]
