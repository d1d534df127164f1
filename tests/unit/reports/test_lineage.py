"""The tree and the picture of a lineage."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

import pytest

from trainshed.ledger.lineage import Edge, Node
from trainshed.reports.lineage import FLOW, Lineage, Thing
from trainshed.reports.lineage_svg import svg
from trainshed.reports.lineage_tree import tree

SVG = "{http://www.w3.org/2000/svg}"
COMMIT, INPUT, IMAGE = Node("commit", "c" * 40, "ccccccc"), Node("input", "sha256:1", "sha256:1"), Node("image", "sha256:2", "predictor")
MODEL, RUN, REVISION = Node("model", "abc", "abc"), Node("run", "7", "run 7"), Node("revision", "arn:17", "predictor:17")
SERVICE = Node("service", "predictor", "predictor")
UP = (
    Edge(COMMIT, INPUT, "made"),
    Edge(INPUT, IMAGE, "built"),
    Edge(IMAGE, REVISION, "runs"),
    Edge(MODEL, REVISION, "loads"),
    Edge(RUN, MODEL, "gave"),
    Edge(IMAGE, RUN, "uses"),
)


def lineage(starts: Sequence[Node], up: Sequence[Edge] = (), down: Sequence[Edge] = (), **more: Thing) -> Lineage:
    nodes = {*starts, *itertools.chain.from_iterable((edge.source, edge.target) for edge in (*up, *down))}
    things = {node: more.get(node.kind, Thing(node=node)) for node in nodes}
    return Lineage(starts=tuple(starts), things=things, up=tuple(up), down=tuple(down))


def test_a_tree_leads_from_the_start_to_what_made_it_and_to_what_came_of_it() -> None:
    known = Thing(node=REVISION, note="good", lines=("deployed by ada",))
    of_run = Thing(node=RUN, lines=("parameters: rows 7",), hidden=3)
    assert tree(lineage([REVISION], UP, [Edge(REVISION, SERVICE, "serves")], revision=known, run=of_run)) == [
        "revision predictor:17  good",
        "  deployed by ada",
        "what made it:",
        "├─ image predictor  [runs]",
        "│  └─ input sha256:1  [built]",
        "│     └─ commit ccccccc  [made]",
        "└─ model abc  [loads]",
        "   └─ run run 7  [gave]",
        "      │  parameters: rows 7",
        "      │  … and 3 more that are not shown",
        "      └─ image predictor  [uses]  (shown elsewhere here)",
        "what came of it:",
        "└─ service predictor  [serves]",
    ]


def test_what_goes_in_circles_comes_to_an_end_and_each_thing_is_told_once() -> None:
    made = tree(lineage([IMAGE], [Edge(INPUT, IMAGE, "built"), Edge(IMAGE, INPUT, "base")]))
    assert made == [
        "image predictor",
        "what made it:",
        "└─ input sha256:1  [built]",
        "   └─ image predictor  [base]  (shown elsewhere here)",
    ]


def test_two_starts_are_two_trees_that_share_what_was_told() -> None:
    made = tree(lineage([IMAGE, MODEL], UP))
    assert [line for line in made if not line.startswith((" ", "│", "├", "└"))] == [
        "image predictor",
        "what made it:",
        "",
        "model abc",
        "what made it:",
    ]
    assert sum(line.endswith("commit ccccccc  [made]") for line in made) == 1


def test_a_chain_of_a_thousand_is_no_trouble() -> None:
    nodes = [Node("input", str(number)) for number in range(1000)]
    made = tree(lineage(nodes[:1], [Edge(after, before, "") for before, after in itertools.pairwise(nodes)]))
    assert len(made) == 1001


def test_the_document_is_the_same_in_whatever_order_things_were_found() -> None:
    there, back = lineage([REVISION], UP), lineage([REVISION], UP[::-1])
    assert there.document() == back.document()
    assert there.document()["starts"] == [{"kind": "revision", "id": "arn:17"}]
    assert {"source": {"kind": "run", "id": "7"}, "target": {"kind": "model", "id": "abc"}, "relation": "gave", "facts": {}} in (
        there.document()["edges"]
    )


def boxes(picture: str) -> list[tuple[float, float, float, float]]:
    root = ET.fromstring(picture)  # noqa: S314 - our own
    found = [rect for rect in root.iter(f"{SVG}rect") if "box" in rect.get("class", "")]
    return [tuple(float(rect.get(name, "")) for name in ("x", "y", "width", "height")) for rect in found]  # type: ignore[misc]


def many(count: int) -> Lineage:
    """Return a start with so many things of all kinds, each led to by another."""
    nodes = [Node(FLOW[number % len(FLOW)], str(number), f"thing {number}") for number in range(count)]
    edges = [Edge(nodes[number // 2], nodes[number], "led to") for number in range(1, count)]
    return lineage(nodes[:1], down=edges)


@pytest.mark.parametrize(
    "made", [many(2), many(200), lineage([IMAGE], [Edge(Node("finding", f"CVE-{n}"), IMAGE, "found") for n in range(199)])]
)
def test_boxes_do_not_overlap_and_lie_within_the_picture(made: Lineage) -> None:
    picture = svg(made)
    placed = boxes(picture)
    assert len(placed) == len(made.things)
    for (x1, y1, w1, h1), (x2, y2, w2, h2) in itertools.combinations(placed, 2):
        assert x1 + w1 <= x2 or x2 + w2 <= x1 or y1 + h1 <= y2 or y2 + h2 <= y1
    root = ET.fromstring(picture)  # noqa: S314 - our own
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in placed)
    assert len(list(root.iter(f"{SVG}path"))) == len(made.edges)


def test_columns_go_from_cause_to_effect() -> None:
    made = lineage([REVISION], UP, [Edge(REVISION, SERVICE, "serves")])
    picture = svg(made)
    heads = re.findall(r'<text class="head" x="(\d+)"[^>]*>([a-z]+)<', picture)
    assert [kind for _, kind in sorted(heads, key=lambda head: int(head[0]))] == [
        "commit",
        "input",
        "image",
        "run",
        "model",
        "revision",
        "service",
    ]
    assert picture.count('class="box start"') == 1


def test_the_picture_holds_whatever_others_wrote_as_text_only() -> None:
    evil = Node("run", "</title><script>alert(1)</script>", "<b>&\"'\x00\x1b[31m\u202e")
    picture = svg(lineage([evil]))
    root = ET.fromstring(picture)  # noqa: S314 - our own
    assert not list(root.iter(f"{SVG}script"))
    assert "<script" not in picture
    assert "\u202e" not in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
