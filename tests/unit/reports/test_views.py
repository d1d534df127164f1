"""SARIF, Markdown and HTML: the same results, each in its own words, and nothing of theirs taken for markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from trainshed.reports import html, markdown, rows, sarif
from trainshed.reports.writing import masked, write_reports
from trainshed.results import Case, Report, Result, Status

HIGH = {"id": "CVE-1", "severity": "high", "kind": "vulnerability", "package": "ssl", "installed": "1", "fixed": "2", "url": "https://x/1"}
WAIVED = {"id": "CVE-2", "severity": "critical", "kind": "vulnerability", "title": "Odd", "waiver": "not reachable (ana, until 2030-01-01)"}
SECRET = {"id": "private-key", "severity": "unknown", "kind": "secret", "target": "app/key.pem"}


def result(name: str = "train", stage: str = "scan", status: Status = Status.DONE, **more: Any) -> Result:
    return Result(name=name, stage=stage, status=status, **more)


def sarif_run(*results: Result) -> dict[str, Any]:
    document = json.loads(sarif.write([Report(stage="images", results=results)], components="parts"))
    assert document["version"] == "2.1.0"
    run: dict[str, Any] = document["runs"][0]
    return run


def test_sarif_has_a_rule_per_kind_of_finding_and_a_result_per_finding() -> None:
    run = sarif_run(result(details={"findings": [HIGH, SECRET]}), result("evaluate", details={"findings": [HIGH]}))
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["CVE-1", "private-key"]
    assert rules[0]["helpUri"] == "https://x/1"
    assert [rule["properties"]["security-severity"] for rule in rules] == ["8.0", "0.0"]
    assert [(found["ruleId"], found["level"]) for found in run["results"]] == [
        ("CVE-1", "error"),
        ("private-key", "note"),
        ("CVE-1", "error"),
    ]
    assert all(rules[found["ruleIndex"]]["id"] == found["ruleId"] for found in run["results"])
    assert run["results"][0]["message"]["text"] == "CVE-1 (high) in ssl 1, fixed in 2 of train"


def test_sarif_places_a_finding_at_the_components_dockerfile() -> None:
    (found,) = sarif_run(result(details={"findings": [SECRET]}))["results"]
    (where,) = found["locations"]
    assert where["physicalLocation"]["artifactLocation"]["uri"] == "parts/train/Dockerfile"
    assert where["logicalLocations"][0]["fullyQualifiedName"] == "train/app/key.pem"


def test_a_finding_without_a_fix_says_so_and_is_counted_apart_where_it_stands() -> None:
    unfixed = {**HIGH, "id": "CVE-3", "fixed": "", "tolerated": "no fix yet"}
    told = result(details={"findings": [HIGH, unfixed]})
    by_rule = {entry["ruleId"]: entry["message"]["text"] for entry in sarif_run(told)["results"]}
    assert by_rule["CVE-3"] == "CVE-3 (high) in ssl 1, no fix yet of train"
    assert rows.row(told)[-1] == "1 high, 1 with no fix yet"
    assert "no fix yet" not in sarif_run(result(details={"findings": [SECRET]}))["results"][0]["message"]["text"]


SEEN = {**HIGH, "id": "CVE-4", "fixed": "", "fix_told": False, "sources": ["ecr"]}
BOTH = {**HIGH, "id": "CVE-5", "sources": ["ecr", "trivy"]}


def test_every_view_says_who_saw_a_finding_where_more_than_trivy_was_asked() -> None:
    told = result(details={"findings": [HIGH, SEEN, BOTH]})
    first, second, third = sarif_run(told)["results"]
    assert (first.get("properties"), second["properties"], third["properties"]) == (
        None,
        {"sources": ["ecr"]},
        {"sources": ["ecr", "trivy"]},
    )
    assert second["message"]["text"] == "CVE-4 (high) in ssl 1 of train (seen by ecr)"  # whether there is a fix nobody told
    reports = [Report(stage="scan", results=(told,))]
    assert "Seen: 1 by trivy alone, 1 by ecr alone, 1 by ecr and trivy." in markdown.summary(reports)
    assert {"seen by", "trivy", "ecr", "ecr and trivy"} <= set(Page(html.render(reports)).texts)


def test_no_view_speaks_of_sources_where_trivy_alone_was_asked() -> None:
    reports = [Report(stage="scan", results=(result(details={"findings": [{**HIGH, "sources": ["trivy"]}, SECRET]}),))]
    assert "Seen" not in markdown.summary(reports)
    assert "seen by" not in html.render(reports)
    assert b"sources" not in sarif.write(reports)
    assert b"seen by" not in sarif.write(reports)


def test_sarif_marks_a_waived_finding_as_suppressed_with_the_reason() -> None:
    waived, high = sarif_run(result(details={"findings": [WAIVED, HIGH]}))["results"]
    assert waived["suppressions"][0]["justification"] == "not reachable (ana, until 2030-01-01)"
    assert "suppressions" not in high


def test_a_fingerprint_outlives_a_new_version_of_the_package_and_tells_components_apart() -> None:
    def fingerprint(name: str, finding: dict[str, str]) -> str:
        (found,) = sarif_run(result(name, details={"findings": [finding]}))["results"]
        return str(found["partialFingerprints"]["finding/v1"])

    assert fingerprint("train", HIGH) == fingerprint("train", {**HIGH, "installed": "1.1"})
    assert len({fingerprint("train", HIGH), fingerprint("evaluate", HIGH), fingerprint("train", WAIVED)}) == 3


def test_sarif_without_findings_is_a_run_without_results() -> None:
    run = sarif_run(result())
    assert run["results"] == run["tool"]["driver"]["rules"] == []


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (result(cause="new", seconds=2.34, details={"digest": "sha256:1"}), ("scan", "train", "done", "new", "2.3 s", "sha256:1")),
        (result(status=Status.ABORTED, cause="new", message="needs x"), ("scan", "train", "aborted", "needs x", "", "")),
        (result(cases=(Case(name="a"), Case(name="b", failure="no"))), ("scan", "train", "done", "", "", "2 tests, 1 failed")),
        (result(cases=(Case(name="a"),)), ("scan", "train", "done", "", "", "1 tests")),
        (result(details={"findings": [HIGH, WAIVED, SECRET]}), ("scan", "train", "done", "", "", "1 high, 1 unknown, 1 waived")),
        (result(details={"metrics": {"auc": 0.99}}), ("scan", "train", "done", "", "", "auc 0.99")),
    ],
)
def test_a_row_says_what_was_done_why_and_what_came_of_it(shown: Result, expected: tuple[str, ...]) -> None:
    assert rows.row(shown) == expected


def test_the_summary_shows_each_stage_then_the_failures_then_the_findings() -> None:
    failed = result(
        status=Status.FAILED, stage="test", message="1 of 2 failed", log="build/logs/train.test.log", cases=(Case(name="a", failure="x"),)
    )
    text = markdown.summary([Report(stage="images", results=(failed, result(details={"findings": [HIGH]}))), Report(stage="verify")])
    assert text.splitlines() == [
        "## images: red",
        "",
        "| stage | name | status | why | time | what |",
        "| --- | --- | --- | --- | --- | --- |",
        "| test | train | failed |  |  | 1 tests, 1 failed |",
        "| scan | train | done |  |  | 1 high |",
        "",
        "## verify: green",
        "",
        "### test train failed",
        "",
        "```text",
        "1 of 2 failed",
        "```",
        "",
        "- a",
        "",
        r"Log: build/logs/train.test.log",
        "",
        "Findings: 1 high.",
    ]


def test_nothing_in_a_result_is_taken_for_markdown() -> None:
    odd = result(status=Status.FAILED, cause="a|b\n<script> [x](y) *z* `c`", message="````\n# no heading\n```", log="a_b_.log")
    text = markdown.summary([Report(stage="images", results=(odd,))])
    assert r"a\|b \<script\> \[x\](y) \*z\* \`c\`" in text
    assert "\n`````text\n````\n# no heading\n```\n`````\n" in text
    assert r"Log: a\_b\_.log" in text


class Page(HTMLParser):
    """Collects a page's tags, attributes and texts, and checks that what is opened is closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_shows_results_failures_and_findings_the_worst_first() -> None:
    failed = result(
        status=Status.FAILED, stage="test", message="why", log="a.log", cases=(Case(name="a", failure="trace"), Case(name="fine"))
    )
    reports = [Report(stage="images", results=(failed, result(details={"findings": [SECRET, WAIVED, HIGH]}))), Report(stage="verify")]
    page = Page(html.render(reports, title="Build 7"))
    assert page.open == []
    text = "|".join(part for part in page.texts if part.strip())
    assert "Build 7" in text
    assert "|test train failed|" in text
    assert "|trace|" in text
    assert "|a.log|" in text
    assert "Findings: 1 high, 1 unknown, 1 waived" in text
    assert text.index("CVE-1") < text.index("private-key") < text.index("CVE-2")


def test_the_page_loads_nothing_and_takes_nothing_for_markup() -> None:
    odd = "<script src=//evil></script><img src=x onerror=alert(1)>\"'&amp;"
    finding = dict.fromkeys(("id", "severity", "package", "installed", "fixed", "title", "url", "waiver"), odd)
    results = [
        result(
            odd,
            odd,
            Status.FAILED,
            message=odd,
            cause=odd,
            log=odd,
            cases=(Case(name=odd, failure=odd),),
            details={"digest": odd, "findings": [finding]},
        )
    ]
    content = html.render([Report(stage=odd, results=tuple(results))], title=odd)
    page = Page(content)
    assert page.tags.isdisjoint({"script", "img", "link", "iframe", "a"})
    assert page.attributes == {"lang", "charset", "http-equiv", "content", "name", "class"}
    assert odd in page.texts
    assert "default-src 'none'" in content


def test_what_a_command_adds_to_its_report_is_masked_too() -> None:
    told = {"components": [{"name": "train", "cause": "changed: geheim"}], "plan_digest": "sha256:1"}
    safe = masked(Report(stage="plan", extra=told), lambda text: text.replace("geheim", "***"))
    assert safe.extra == {"components": [{"name": "train", "cause": "changed: ***"}], "plan_digest": "sha256:1"}


def test_all_views_are_written_whole_and_masked(tmp_path: Path) -> None:
    details = {"findings": [{**HIGH, "title": "geheim<1>"}], "nested": [{"deep": ("geheim<1>", 1)}]}
    cases = (Case(name="geheim<1>", suite="geheim<1>", failure="geheim<1>", skipped="geheim<1>"),)
    odd = result(status=Status.FAILED, cause="geheim<1>", message="geheim<1> \ud800", cases=cases, details=details)
    written = write_reports(tmp_path, [Report(stage="images", results=(odd,))], mask=lambda text: text.replace("geheim<1>", "***"))
    assert {file.name for file in written} == {"junit.xml", "findings.sarif", "summary.md", "report.html"}
    assert sorted(written) == sorted((tmp_path / "reports").iterdir())
    for file in written:
        content = file.read_text()
        assert "***" in content
        assert "geheim" not in content
