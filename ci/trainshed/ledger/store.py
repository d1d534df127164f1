"""The store of verdicts, images, locks and events: one class over SQLAlchemy Core, for SQLite and PostgreSQL."""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from trainshed.ledger import graph, leases, lineage
from trainshed.ledger.database import Database
from trainshed.ledger.leases import Lease
from trainshed.ledger.lineage import Edge, Graph, Node
from trainshed.ledger.records import Event, ImageRecord, Verdict
from trainshed.ledger.tables import attachments, events, images, locks, verdicts
from trainshed.settings import Tier

_PER_QUERY = 500
_RECENT = 5
_LOOK_BACK = 5000


class Ledger:
    """An open ledger. All methods may be called from any thread, and by many processes at once.

    Every record carries the tier that made it. Where a wrong record could turn a check off or bring something to a release
    (verdicts, locks, attachments; events: the runs whose models are deployed, the revisions that are gone back to) a look-up takes
    those of its own tier or above; what only explains or orders (images, durations) is taken from all.
    """

    def __init__(self, database: Database, tier: Tier, *, keeps: bool = True) -> None:
        self._database = database
        self._tier = tier
        self._keeps = keeps

    @classmethod
    def open(cls, url: str, *, tier: Tier, keeps: bool = True) -> Self:
        """Open a ledger, making it or bringing it up to date first.

        Args:
            url: ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/DATABASE``.
            tier: how far the records of this process can be trusted.
            keeps: False for a dry run: what is recorded is forgotten at once.

        Raises:
            UsageError: the address is no such URL, the file is no ledger or may not be written, or the ledger is newer than this code.
            RemoteError: the database cannot be reached; the message masks the password.
        """
        return cls(Database(url), tier, keeps=keeps)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def record_verdict(self, verdict: Verdict) -> None:
        """Keep the outcome of a check, with the tier of this ledger."""
        self._record(
            verdicts,
            lambda connection: self._project_verdict(connection, verdict),
            digest=verdict.digest,
            check_name=verdict.check,
            version=verdict.version,
            component=verdict.component,
            green=verdict.green,
            seconds=verdict.seconds,
            details=verdict.details,
        )

    def verdict(self, digest: str, check: str, version: str, *, max_age: float | None = None) -> Verdict | None:
        """Return the newest verdict of the own tier or above, None when there is none or it is older than ``max_age`` seconds."""
        wanted = (verdicts.c.digest == digest, verdicts.c.check_name == check, verdicts.c.version == version)
        newest = next(self._verdicts(*wanted, limit=1), None)
        return newest if newest is not None and (max_age is None or newest.age <= max_age) else None

    def verdicts(self, digests: Iterable[str]) -> dict[tuple[str, str, str], Verdict]:
        """Return the newest verdicts of many digests at once, by digest, check and version; `Verdict.age` tells how old each is."""
        newest: dict[tuple[str, str, str], Verdict] = {}
        wanted = list(dict.fromkeys(digests))
        for start in range(0, len(wanted), _PER_QUERY):
            for verdict in self._verdicts(verdicts.c.digest.in_(wanted[start : start + _PER_QUERY])):
                newest.setdefault((verdict.digest, verdict.check, verdict.version), verdict)
        return newest

    def record_image(  # noqa: PLR0913 - all by keyword
        self, *, component: str, repository: str, input_digest: str, digest: str, manifest: Mapping[str, Any], seconds: float
    ) -> None:
        """Keep what went into an image and what came out. ``seconds`` is the time of the build, 0 when it was found."""
        told = lineage.edges_of_image(component, input_digest, digest, manifest)
        self._record(
            images,
            lambda connection: self._project(connection, told),
            component=component,
            repository=repository,
            input_digest=input_digest,
            digest=digest,
            manifest=manifest,
            seconds=seconds,
        )

    def last_image(self, component: str, repository: str) -> ImageRecord | None:
        """Return the last image of a component, to tell what changed since."""
        wanted = sa.select(images, self._age(images)).where(images.c.component == component, images.c.repository == repository)
        with self._database.read() as connection:
            row = connection.execute(wanted.order_by(images.c.id.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        return ImageRecord(
            component=row.component,
            repository=row.repository,
            input_digest=row.input_digest,
            digest=row.digest,
            manifest=row.manifest,
            seconds=row.seconds,
            tier=Tier(row.tier),
            age=row.age,
        )

    def attach(self, digest: str, kind: str, content: bytes) -> None:
        """Keep a file that belongs to a digest (``kind`` such as ``sbom``), in place of the former one of this tier."""
        if not self._keeps:
            return
        mine = (attachments.c.digest == digest, attachments.c.kind == kind, attachments.c.tier == int(self._tier))
        with self._database.write() as connection:
            connection.execute(self._database.insert_new(attachments, self._new(digest=digest, kind=kind, content=b"")))
            connection.execute(attachments.update().where(*mine).values(content=zlib.compress(content), created=self._database.clock))

    def attachment(self, digest: str, kind: str) -> bytes | None:
        """Return the newest file of the own tier or above."""
        wanted = sa.select(attachments.c.content).where(attachments.c.digest == digest, attachments.c.kind == kind)
        with self._database.read() as connection:
            content = connection.execute(
                wanted.where(attachments.c.tier >= int(self._tier)).order_by(attachments.c.created.desc()).limit(1)
            ).scalar()
        return None if content is None else zlib.decompress(content)

    def durations(self) -> dict[tuple[str, str], float]:
        """Return, by component and check, the median of the last five times that it took, in seconds; of green verdicts only."""
        newest = sa.select(verdicts.c.component, verdicts.c.check_name, verdicts.c.seconds)
        newest = newest.where(verdicts.c.green, verdicts.c.seconds > 0).order_by(verdicts.c.id.desc()).limit(_LOOK_BACK)
        taken: dict[tuple[str, str], list[float]] = {}
        with self._database.read() as connection:
            for component, check, seconds in connection.execute(newest):
                times = taken.setdefault((component, check), [])
                if len(times) < _RECENT:
                    times.append(seconds)
        return {key: statistics.median(times) for key, times in taken.items()}

    def lease(
        self, key: str, *, ttl: float = 30.0, deadline: float | None = None, on_wait: Callable[[str], None] | None = None
    ) -> AbstractContextManager[Lease]:
        """Hold a key during a ``with`` block; nobody else holds it meanwhile.

        Args:
            key: what is guarded, such as ``build sha256:…``.
            ttl: seconds after which the lease of a holder that is no longer heard of is free; it is renewed in the background.
            deadline: seconds to wait for the present holder; None waits as long as it lives.
            on_wait: called with the holder (its Jenkins build, or process and host) when there is a wait, and every minute of it.

        Raises:
            leases.Held: the deadline passed.
            Interrupted: SIGINT or SIGTERM arrived during the wait.
        """
        return leases.held(self._database, key, ttl=ttl, deadline=deadline, on_wait=on_wait)

    def record_lock(self, plan_digest: str, commit: str, branch: str, document: Mapping[str, Any]) -> None:
        """Keep the lock of a green tree. ``commit`` and ``branch`` are empty outside of a repository."""
        told = lineage.edges_of_lock(document)
        self._record(
            locks,
            lambda connection: self._project(connection, told),
            plan_digest=plan_digest,
            commit_id=commit,
            branch=branch,
            document=document,
        )

    def lock(self, *, commit: str | None = None, branch: str | None = None) -> dict[str, Any] | None:
        """Return the newest lock of the own tier or above, of one commit or branch when asked."""
        wanted = sa.select(locks.c.document).where(locks.c.tier >= int(self._tier))
        if commit is not None:
            wanted = wanted.where(locks.c.commit_id == commit)
        if branch is not None:
            wanted = wanted.where(locks.c.branch == branch)
        with self._database.read() as connection:
            found: dict[str, Any] | None = connection.execute(wanted.order_by(locks.c.id.desc()).limit(1)).scalar()
        return found

    def locks(self, *, least: Tier, commit: str | None = None) -> list[dict[str, Any]]:
        """Return every lock that a tier or one above made, of one commit when asked, the newest first; what they hold is still needed."""
        wanted = sa.select(locks.c.document).where(locks.c.tier >= int(least)).order_by(locks.c.id.desc())
        if commit is not None:
            wanted = wanted.where(locks.c.commit_id == commit)
        with self._database.read() as connection:
            return list(connection.execute(wanted).scalars())

    def record_event(self, kind: str, environment: str, name: str, key: str, document: Mapping[str, Any]) -> None:
        """Keep what happened: ``kind`` upload, run or deployment, of the pipeline or service ``name``; ``key`` is what tells it apart."""
        told = lineage.edges_of_event(kind, environment, name, key, document)
        self._record(
            events,
            lambda connection: self._project(connection, told),
            kind=kind,
            environment=environment,
            name=name,
            key=key,
            document=document,
        )

    def events(
        self, kind: str, environment: str, name: str | None = None, key: str | None = None, *, limit: int | None = None
    ) -> list[Event]:
        """Return what happened by the own tier or above, the newest first."""
        wanted = sa.select(events).where(events.c.kind == kind, events.c.environment == environment, events.c.tier >= int(self._tier))
        if name is not None:
            wanted = wanted.where(events.c.name == name)
        if key is not None:
            wanted = wanted.where(events.c.key == key)
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(events.c.id.desc()).limit(limit)).all()
        return [_event(row) for row in rows]

    def latest_events(self, kind: str, environment: str, name: str) -> list[Event]:
        """Return the newest event of each key by the own tier or above, the newest first: how each stands, without how it came to be."""
        mine = (events.c.kind == kind, events.c.environment == environment, events.c.name == name, events.c.tier >= int(self._tier))
        last = sa.select(sa.func.max(events.c.id)).where(*mine).group_by(events.c.key)
        with self._database.read() as connection:
            rows = connection.execute(sa.select(events).where(events.c.id.in_(last)).order_by(events.c.id.desc())).all()
        return [_event(row) for row in rows]

    def newest_events(self, kind: str, keys: Iterable[str]) -> dict[str, Event]:
        """Return the newest event of each key, in whatever environment it happened, by the own tier or above."""
        newest: dict[str, Event] = {}
        asked = list(dict.fromkeys(keys))
        for start in range(0, len(asked), _PER_QUERY):
            part = asked[start : start + _PER_QUERY]
            wanted = sa.select(events).where(events.c.kind == kind, events.c.key.in_(part), events.c.tier >= int(self._tier))
            with self._database.read() as connection:
                for row in connection.execute(wanted.order_by(events.c.id.desc())):
                    newest.setdefault(row.key, _event(row))
        return newest

    def lineage(self, starts: Iterable[Node], *, up: bool, limit: int = 500) -> Graph:
        """Follow causes (``up``) or effects from some nodes, by what the own tier and those above recorded.

        Args:
            starts: nodes that `nodes` gave.
            up: towards commits and data; else towards services.
            limit: so many nodes are told of; of more than that those that serve come first, each with the way to it.
        """
        with self._database.read() as connection:
            return graph.walk(connection, starts, up=up, limit=limit, tier=int(self._tier))

    def nodes(self, text: str, *, kind: str | None = None) -> list[Node]:
        """Return what a text may mean, of one kind if asked, what serves first.

        It is an id, a name (of a service, pipeline, component, run, release, tag or finding), a reference ``…@sha256:…``, or the
        beginning of a digest or commit of seven characters or more.
        """
        with self._database.read() as connection:
            return graph.find(connection, text, kind=kind, tier=int(self._tier))

    def _verdicts(self, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> Iterator[Verdict]:
        """Yield the verdicts of the own tier or above, the newest first."""
        wanted = sa.select(verdicts, self._age(verdicts)).where(*conditions, verdicts.c.tier >= int(self._tier))
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(verdicts.c.id.desc()).limit(limit)).all()
        for row in rows:
            yield Verdict(
                digest=row.digest,
                check=row.check_name,
                version=row.version,
                component=row.component,
                green=row.green,
                seconds=row.seconds,
                details=row.details,
                tier=Tier(row.tier),
                age=row.age,
                created=row.created,
            )

    def _record(self, table: sa.Table, project: Callable[[sa.Connection], None], **values: Any) -> None:  # noqa: ANN401 - the columns
        """Write a record, and in the same transaction what it tells of the lineage."""
        if not self._keeps:
            return
        with self._database.write() as connection:
            connection.execute(table.insert().values(self._new(**values)))
            project(connection)

    def _project(self, connection: sa.Connection, told: Sequence[Edge]) -> None:
        graph.write(connection, told, tier=int(self._tier), created=self._database.clock)

    def _project_verdict(self, connection: sa.Connection, verdict: Verdict) -> None:
        found = lineage.edges_of_verdict(verdict.digest, verdict.check, verdict.component, verdict.details)
        if found is None:
            return
        image, whole = Node(lineage.IMAGE, verdict.digest, verdict.component), lineage.complete(verdict.details)
        graph.write_findings(connection, image, found, whole=whole, tier=int(self._tier), created=self._database.clock)

    def _new(self, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - the columns of a table
        return {**values, "tier": int(self._tier), "created": self._database.clock}

    def _age(self, table: sa.Table) -> sa.Label[float]:
        return (self._database.clock - table.c.created).label("age")


def _event(row: Any) -> Event:  # noqa: ANN401 - a row of `events`
    return Event(
        kind=row.kind,
        environment=row.environment,
        name=row.name,
        key=row.key,
        document=row.document,
        tier=Tier(row.tier),
        created=row.created,
    )
