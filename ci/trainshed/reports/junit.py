"""JUnit XML: read what a test run wrote, write what Jenkins shows.

The file that is read comes out of an image: nothing in it is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree as ET

from trainshed.errors import WorkFailed
from trainshed.results import Case, Report, Result, Status

MAX_BYTES = 16 * 1024 * 1024
MAX_TEXT = 8_000
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read(content: bytes, *, place: str = "junit.xml") -> list[Case]:
    """Read the test cases of a JUnit file; long failures are cut in the middle.

    Raises:
        WorkFailed: it is no XML, has a DTD, or is larger than `MAX_BYTES`; the message begins with ``place``.
    """
    if len(content) > MAX_BYTES:
        raise WorkFailed(f"{place}: larger than {MAX_BYTES // 1024 // 1024} MiB", next_step="Let the tests print less.")
    reader = _Reader(place)
    parser = ET.XMLParser(target=reader)  # noqa: S314 - a DTD, the way to all attacks of XML, is refused
    try:
        parser.feed(content)
        parser.close()
    except (ET.ParseError, LookupError, ValueError) as error:
        raise WorkFailed(f"{place}: not XML: {error}", next_step="Let the test command write JUnit XML.") from error
    return reader.cases


class _Reader:
    """Takes the parser's events. Only what a `Case` shows is kept, so depth and unknown elements cost nothing."""

    def __init__(self, place: str) -> None:
        self.cases: list[Case] = []
        self._place = place
        self._suite = ""
        self._case: Mapping[str, str] | None = None
        self._said: dict[str, list[str]] = {}
        self._text: list[str] | None = None

    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        """Refuse the document before any entity is declared."""
        raise WorkFailed(f"{self._place}: has a DTD, which is not read", next_step="Write plain JUnit XML.")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name = tag.rpartition("}")[2]
        if name == "testsuite":
            self._suite = attributes.get("name", "")
        elif name == "testcase":
            self._case, self._said = attributes, {}
        elif name in {"failure", "error", "skipped"} and self._case is not None:
            message = attributes.get("message") or attributes.get("type", "")
            self._text = self._said.setdefault("skipped" if name == "skipped" else "failure", [])
            self._text.append(f"{message}\n")

    def data(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def end(self, tag: str) -> None:
        name = tag.rpartition("}")[2]
        if name in {"failure", "error", "skipped"}:
            self._text = None
        elif name == "testcase" and self._case is not None:
            said = {kind: _cut("".join(parts).strip()) or "no message" for kind, parts in self._said.items()}
            suite = self._case.get("classname") or self._suite
            seconds = _seconds(self._case.get("time", ""))
            self.cases.append(Case(name=self._case.get("name", ""), suite=suite, seconds=seconds, **said))
            self._case = None

    def close(self) -> None:
        """Have nothing left to do."""


def _seconds(text: str) -> float:
    match = re.fullmatch(r"\d+(\.\d*)?(e-?\d{1,2})?", text.strip().replace(",", ""))
    return float(match[0]) if match else 0.0


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT // 2]}\n[…]\n{text[-MAX_TEXT // 2 :]}"


def write(reports: Iterable[Report]) -> bytes:
    """Write results as JUnit XML: one suite per stage, with the test cases that the stage ran, else one case per result."""
    root = ET.Element("testsuites", name="trainshed")
    for report in reports:
        stages: dict[str, list[tuple[str, Case]]] = {}
        for result in report.results:
            stages.setdefault(result.stage, []).extend(_cases(result))
        for stage, cases in stages.items():
            _write_suite(root, stage, cases)
    ET.indent(root)
    text: str = ET.tostring(root, encoding="unicode")
    return f"<?xml version='1.0' encoding='utf-8'?>\n{text}\n".encode()


def _cases(result: Result) -> list[tuple[str, Case]]:
    """Return what stands for a result, each with its class name. A failure is there even if no single test failed."""
    cases = [(f"{result.stage}.{result.name}", case) for case in result.cases]
    told = result.status in {Status.DONE, Status.CACHED} or any(case.failure for case in result.cases)
    if cases and told:
        return cases
    failure = result.message or "failed" if result.status is Status.FAILED else ""
    skipped = result.message or result.cause or str(result.status) if result.status in {Status.ABORTED, Status.SKIPPED} else ""
    own = Case(name=result.name, seconds=result.seconds, failure=failure, skipped=skipped)
    return [*cases, (result.stage, own)]


def _write_suite(root: ET.Element, stage: str, cases: list[tuple[str, Case]]) -> None:
    suite = ET.SubElement(
        root,
        "testsuite",
        name=stage,
        tests=str(len(cases)),
        failures=str(sum(bool(case.failure) for _, case in cases)),
        skipped=str(sum(bool(case.skipped) for _, case in cases)),
        time=f"{sum(case.seconds for _, case in cases):.3f}",
    )
    for group, case in cases:
        name = _legal(".".join(filter(None, (group, case.suite))))
        element = ET.SubElement(suite, "testcase", classname=name, name=_legal(case.name), time=f"{case.seconds:.3f}")
        for kind in ("failure", "skipped"):
            text = _legal(getattr(case, kind))
            if text:
                ET.SubElement(element, kind, message=text.splitlines()[0][:200]).text = text
        if case.output:
            ET.SubElement(element, "system-out").text = _legal(case.output)


def _legal(text: str) -> str:
    """Replace the characters that XML cannot hold in any form."""
    return _NOT_XML.sub("\ufffd", text)
