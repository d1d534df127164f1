"""Years of builds of a large repository, as the ledger's lineage: for measurements, and for tests that need a graph of real shape."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, cast

from trainshed.ledger import graph, lineage, tables
from trainshed.ledger.database import Database
from trainshed.ledger.lineage import Edge, Node
from trainshed.ledger.store import Ledger
from trainshed.settings import Tier

COMPONENTS, PIPELINES, SERVICES, BASES = 200, 20, 12, 6
WIDE = "CVE-2030-0001"
"""What is found in one of the bases from the first day, and so in all that ever stood on it."""
_FOUND = 12
_RUNS = 3


def digest(*told: object) -> str:
    return f"sha256:{hashlib.sha256(repr(told).encode()).hexdigest()}"


@dataclass
class World:
    """The repository while its builds go by. ``asked`` names what is asked for once all are done."""

    image: dict[int, str] = field(default_factory=dict)
    inputs: dict[int, str] = field(default_factory=dict)
    asked: dict[str, Node] = field(default_factory=dict)

    def build(self, number: int) -> Iterator[Edge]:
        """Yield what one green build of main tells; every 25th moves a base, and with it all that stands on it."""
        moved = range(COMPONENTS) if number == 0 else self._moved(number)
        for component in moved:
            yield from self._made(number, component)
        commit = hashlib.sha256(f"{number}".encode()).hexdigest()[:40]
        yield from self._locked(number, commit, moved)
        for component in moved:
            if BASES <= component < BASES + PIPELINES:
                yield from self._trained(number, component, commit)
        for component in moved:
            if component >= COMPONENTS - SERVICES:
                yield from self._served(number, component)

    def _moved(self, number: int) -> list[int]:
        if number % 25 == 0:
            base = number // 25 % BASES
            return [base, *(each for each in range(BASES, COMPONENTS) if each % BASES == base)]
        return [BASES + (number * 7) % PIPELINES, COMPONENTS - 1 - number % SERVICES, BASES + PIPELINES + number % 150]

    def _base(self, component: int) -> dict[str, str]:
        if component < BASES:
            return {"docker.io/library/python:3.11": digest("foreign")}
        return {f"base-{component % BASES}": self.image[component % BASES]}

    def _made(self, number: int, component: int) -> Iterator[Edge]:
        self.inputs[component], self.image[component] = digest("input", number, component), digest("image", number, component)
        told = {"bases": self._base(component)}
        yield from lineage.edges_of_image(_name(component), self.inputs[component], self.image[component], told)
        wide = {"id": WIDE, "severity": "critical", "package": "zlib", "aliases": ["GHSA-aaaa-bbbb-cccc"]}
        found: list[dict[str, Any]] = [wide] if component % BASES == 1 else []
        found += [{"id": f"CVE-2029-{(number + each * 37) % 900:04}", "severity": "low", "package": "p"} for each in range(_FOUND)]
        yield from lineage.edges_of_verdict(self.image[component], "scan", _name(component), {"findings": found}) or ()
        self.asked["image"] = Node(lineage.IMAGE, self.image[0])

    def _locked(self, number: int, commit: str, moved: Iterable[int]) -> Iterator[Edge]:
        """Yield what a lock tells that no record of an image told before: the whole of it is ten times as much, and known."""
        self.lock = digest("lock", number)
        lock, made_by = Node(lineage.LOCK, self.lock, self.lock[:19]), Node(lineage.COMMIT, commit, commit[:12])
        yield Edge(made_by, lock, lineage.GREEN)
        yield Edge(Node(lineage.BUILD, f"https://ci/{number}/"), lock, lineage.GREEN)
        yield from (Edge(Node(lineage.IMAGE, self.image[each], _name(each)), lock, lineage.LOCKED) for each in self.image)
        yield from (Edge(made_by, Node(lineage.INPUT, self.inputs[each], _name(each)), lineage.MADE) for each in moved)

    def _trained(self, number: int, component: int, commit: str) -> Iterator[Edge]:
        pipeline, version = f"training-{component}", f"version-{number}-{component}"
        used = {_name(each): f"r@{self.image[each]}" for each in range(component, COMPONENTS, PIPELINES)}
        told: dict[str, Any] = {"version_id": version, "version": f"v{number}", "lock_digest": self.lock, "images": used}
        told |= {"commit": commit, "dirty": False, "build_url": f"https://ci/{number}/"}
        yield from lineage.edges_of_event("upload", "dev", pipeline, version, told)
        for each in range(_RUNS):
            run = f"run-{number}-{component}-{each}"
            artifacts = {
                "load.table": {"uri": f"s3://data/{number // 50}/table.csv", "type": "system.Dataset"},
                "train.model": {"uri": f"s3://runs/{run}/model", "type": "system.Model"},
            }
            document = {"run_id": run, "name": run, "version_id": version, "version": f"v{number}", "artifacts": artifacts}
            yield from lineage.edges_of_event("run", "dev", pipeline, run, document)
            self.model = {"uri": f"s3://runs/{run}/model", "run_id": run, "sha256": digest(run)[7:]}
            yield from lineage.edges_of_event("model", "dev", pipeline, self.model["uri"], self.model)

    def _served(self, number: int, component: int) -> Iterator[Edge]:
        name = _name(component)
        revision = f"arn:aws:ecs:eu-central-1:123456789012:task-definition/{name}:{number}"
        told = {"component": name, "digest": self.image[component], "model": self.model, "state": "good", "release_id": f"release-{number}"}
        yield from lineage.edges_of_event("deployment", "prod", f"{name}-service", revision, told)
        self.asked["revision"] = Node(lineage.REVISION, revision)
        self.asked["service"] = Node(lineage.SERVICE, f"prod/{name}-service")
        self.asked["finding"] = Node(lineage.FINDING, WIDE)


def _name(component: int) -> str:
    return f"base-{component}" if component < BASES else f"part-{component:03}"


@dataclass
class Years:
    """Rows of the tables, each fact once, and the world that they are of."""

    world: World
    nodes: dict[tuple[int, str], dict[str, Any]] = field(default_factory=dict)
    edges: list[dict[str, Any]] = field(default_factory=list)


def years(wanted: int, *, tier: Tier = Tier.MAIN) -> Years:
    """Let builds go by, one a day, until there are so many edges."""
    made, known, number = Years(World()), set[Edge](), 0
    while len(known) < wanted:
        same = {"tier": int(tier), "created": 1.6e9 + 86400.0 * number}
        for edge in made.world.build(number):
            if edge not in known:
                known.add(edge)
                made.edges.append({**graph.row_of(edge), **same})
                for row in (*graph.rows_of(edge.source), *graph.rows_of(edge.target)):
                    made.nodes.setdefault((row["key"], row["label"]), {**row, **same})
        number += 1
    return made


def write(database: Database, made: Years) -> None:
    """Write the rows as fast as the database takes them."""
    with database.write() as connection:
        for table, rows in ((tables.nodes, list(made.nodes.values())), (tables.edges, made.edges)):
            if database.sqlite:
                connection.execute(table.insert(), rows)
                continue
            names = [column.name for column in table.columns]
            with (
                closing(cast(Any, connection.connection.cursor())) as cursor,
                cursor.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy,
            ):
                for row in rows:
                    copy.write_row([json.dumps(row[name]) if name == "facts" else row[name] for name in names])
            connection.exec_driver_sql(f"ANALYZE {table.name}")  # as autovacuum does it in time


def answered(ledger: Ledger, world: World, *, rounds: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Ask what people ask, each so many times; return the seconds that each answer took, from the text to the graph."""
    took: dict[str, list[float]] = {}
    for what, up in (("revision", True), ("image", False), ("finding", False), ("service", True)):
        for _ in range(rounds):
            began = clock()
            found = ledger.lineage(ledger.nodes(world.asked[what].id), up=up)
            took.setdefault(f"{'up' if up else 'down'} from a {what}", []).append(clock() - began)
            assert len(found.nodes) > 10
    return took
