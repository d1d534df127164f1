"""Build, scan and test one component: each returns a Result, and turns what can go wrong into one."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainshed.errors import Interrupted, TrainshedError, UsageError, WorkFailed
from trainshed.files import write_bytes
from trainshed.findings import waivers as waivers_of
from trainshed.findings.model import from_document
from trainshed.findings.policy import judge, warnings
from trainshed.findings.waivers import Waiver
from trainshed.images.inputs import Inputs, changes, check_inputs
from trainshed.images.planning import CHECKS, Facts, Standing
from trainshed.ledger.records import Verdict, details
from trainshed.results import Case, Result, Status
from trainshed.scheduling.scheduler import Node
from trainshed.stages import budgets, lookup
from trainshed.stages.checks.scanners import Asking, Scanners
from trainshed.stages.context import Context, opened
from trainshed.stages.lookup import Found
from trainshed.stages.survey import LOOKUPS, Survey
from trainshed.tools import process

if TYPE_CHECKING:
    from trainshed.stages.checks.scanning import Answer

BUILD_VERSION = "build/1"
_RULES = {"scan": 1, "test": 1}
_CHANGED = {
    "scan": "the policy, the waivers or the scanner changed",
    "test": "the tests or their settings changed",
}


class Work:
    """What the checks of one command share: the images found so far, the scanner, the waivers.

    Methods may be called from several threads, for different components.
    """

    def __init__(self, context: Context, survey: Survey) -> None:
        self.context, self.survey = context, survey
        self.found: dict[str, Found] = {}
        self.inputs: dict[str, Inputs] = {}
        self.verdicts: dict[str, dict[str, Verdict]] = {name: {} for name in survey.selected}
        self.causes: dict[str, str] = {}
        self._known: dict[str, dict[tuple[str, str], Verdict]] = {}
        self.scanners = Scanners(context)

    def facts(self) -> dict[str, Facts]:
        """Look up what is there already, wave by wave; remember it for the checks."""
        _ = self.scanners.asked  # a source that cannot answer is told before the work
        process.interruptible(self._look)
        self.survey.hashes.save()
        self._learn(found.digest for found in self.found.values())
        return {name: self._facts(name) for name in self.survey.selected}

    def _look(self) -> None:
        with ThreadPoolExecutor(LOOKUPS, initializer=process.abandonable) as pool:
            pool.submit(lambda: self.scanners.version)  # asked meanwhile: the version of every scan needs it
            for wave in self.survey.graph.waves(self.survey.selected):
                for _ in pool.map(self._find_before, wave):
                    pass  # to its end, so that an error is raised

    def _find_before(self, name: str) -> None:
        if all(base in self.found for base in self.survey.own_bases(name)):
            self._find_again(name, self._take_inputs(name))

    def _learn(self, digests: Iterable[str]) -> None:
        """Read all verdicts of images, in one query."""
        learnt: dict[str, dict[tuple[str, str], Verdict]] = {digest: {} for digest in digests if digest not in self._known}
        for (digest, check, version), verdict in self.context.ledger.verdicts(learnt).items():
            learnt[digest][check, version] = verdict
        self._known.update(learnt)  # only now: another thread takes a digest that is there for one whose verdicts are

    def _facts(self, name: str) -> Facts:
        waiting = tuple(base for base in self.survey.own_bases(name) if base not in self.found)
        inputs = self.survey.source(name) if waiting else self.inputs[name]
        found = self.found.get(name)
        last = None if found else self.context.ledger.last_image(name, lookup.repository(self.context, name))
        moved = changes(_without_bases(last.manifest, inputs, waiting), inputs.manifest) if last else []
        return Facts(
            name=name,
            input_digest=None if waiting else inputs.digest,
            digest=found.digest if found else None,
            changes=tuple(moved),
            known_before=last is not None,
            waits_for=waiting,
            standings={check: self.standing(name, check) for check in CHECKS[1:]} if found else {},
        )

    def _take_inputs(self, name: str) -> Inputs:
        own = {base: self.found[base].digest for base in self.survey.own_bases(name)}
        self.inputs[name] = self.survey.inputs(name, own)
        return self.inputs[name]

    # --- verdicts -------------------------------------------------------------------------------------------------------------

    def standing(self, name: str, check: str) -> Standing:
        """Tell whether a check's verdict of the found image holds for the check as it is now."""
        component, digest = self.survey.components[name], self.found[name].digest
        if check == "test" and not (component.has_tests or component.structure_test):
            return Standing(green=True, reason="has no tests")
        self._learn([digest])
        verdict = self._known[digest].get((check, self.version(name, check)))
        if verdict is None:
            others = any(other == check for other, _ in self._known[digest])
            return Standing(reason=_CHANGED[check]) if others else Standing()
        self.verdicts[name][check] = verdict
        if not verdict.green:
            return Standing(reason=f"the {check} failed before")
        if check == "scan" and self._database_age(verdict) > self.context.config.scan.max_db_age:
            return Standing(reason="the database of the scan is older than scan.max-db-age")
        return Standing(green=True, reason="green for this digest")

    def _database_age(self, verdict: Verdict) -> float:
        """Return the seconds since the database of a scan was made; since the scan, where there was none."""
        made = verdict.details.get("database")
        return verdict.age if made is None else datetime.now(UTC).timestamp() - datetime.fromisoformat(made).timestamp()

    def version(self, name: str, check: str) -> str:
        """Return the version of a check: all that its outcome depends on besides the image."""
        if check == "scan":
            policy = self.context.config.scan
            today = datetime.now(UTC).date()
            own = [waiver for waiver in self.waivers if not waiver.components or name in waiver.components]
            waivers = [(asdict(waiver), waiver.expires >= today) for waiver in own]
            over: Any = [policy.fail_on, policy.unfixed, policy.scanners, policy.without_db, waivers, self.scanners.version]
        else:
            component = self.survey.components[name]
            bases = {key: self._base(key) for key in self.survey.graph.test_bases(name)}
            over = check_inputs(component, hashes=self.survey.hashes, args=self.survey.arguments(name), extra={"bases": bases})
        text = json.dumps([_RULES[check], over], sort_keys=True, default=str)
        return f"{check}/{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _base(self, key: str) -> str:
        """Return the digest of a base as it is now; for an own one without an image, that of its source."""
        if key not in self.survey.components:
            return self.survey.pins[key].digest
        return self.found[key].digest if key in self.found else self.survey.source(key).digest

    @opened
    def waivers(self) -> list[Waiver]:
        """Return the waivers in force."""
        config = self.context.config
        return waivers_of.load(config.scan.waivers, place=config.waivers_place)

    # --- the three checks -----------------------------------------------------------------------------------------------------

    def build(self, name: str) -> Result:
        """Have the image: found by its inputs, else built and pushed."""
        return self._guarded(name, "build", lambda: self._build(name))

    def located(self, name: str) -> Result:
        """Have the image only if it is there already: for checks that are run alone."""
        if name in self.found:
            return self._built(name, Status.CACHED, "the image of these inputs is in the registry", 0.0)
        message = "there is no image of these inputs"
        return Result(
            name=name,
            stage="build",
            status=Status.FAILED,
            message=message,
            cause=f"run `trainshed build {name}` first",
            exit_code=UsageError.exit_code,
        )

    def _build(self, name: str) -> Result:
        started = time.monotonic()
        moved = name not in self.found and bool(self.survey.own_bases(name))
        inputs = self._take_inputs(name)
        if name not in self.found and moved:  # a base was rebuilt: perhaps with equal content
            self._find_again(name, inputs)
        if name in self.found:
            return self._built(name, Status.CACHED, "the image of these inputs is in the registry", 0.0)
        self.context.console.start(name, "build", self.causes.get(name, ""))
        key = f"build:{lookup.repository(self.context, name)}:{inputs.digest}"
        with self.context.ledger.lease(key, on_wait=lambda holder: self._tell(f"{name}: waiting for its build by {holder}")) as lease:
            if lease.taken_over:
                self._tell(f"{name}: the build by {lease.taken_over} has ended without an image, or is heard of no more; building here")
            self._find_again(name, inputs)
            if name in self.found:
                return self._built(name, Status.CACHED, "built meanwhile by another run", time.monotonic() - started)
            with budgets.slot(self.context, name, "build"):  # inside the lease: who holds a slot waits for no lease
                began = time.monotonic()
                self._build_and_push(name, inputs)
                seconds = time.monotonic() - began
        if lease.lost:
            self._tell(f"{name}: another build took the lease over meanwhile, and made the image too: the one pushed first is taken")
        self._record_image(name, inputs, seconds)
        return self._built(name, Status.DONE, self.causes.get(name, ""), seconds)

    def _build_and_push(self, name: str, inputs: Inputs) -> None:
        from trainshed.stages.checks import build

        component, log = self.survey.components[name], self._fresh_log(name, "build")
        own = {base: self.found[base] for base in self.survey.graph.bases(name) if base in self.found}
        pins = {reference: self.survey.pins[reference] for reference in self.survey.graph.foreign(name)}
        repository = lookup.repository(self.context, name)
        build.require_repository(self.context, repository)
        image = build.build_image(
            self.context,
            component,
            inputs=inputs,
            arguments=self.survey.arguments(name),
            own={base: found.reference for base, found in own.items()},
            pins={reference: pin.pinned for reference, pin in pins.items() if not pin.local},
            copies={reference: pin.digest for reference, pin in pins.items() if pin.local},
            again=lambda: self.survey.taken(name, {base: found.digest for base, found in own.items()}),
            log=log,
        )
        digest = build.push_image(self.context, image, repository=repository, tag=lookup.own_tag(self.context, inputs.digest), log=log)
        self.found[name] = Found(digest=digest, reference=lookup.reference(self.context, name, digest))

    def _find_again(self, name: str, inputs: Inputs) -> None:
        found = lookup.find(self.context, name, inputs.digest)
        if found is not None:
            self.found[name] = found

    def _record_image(self, name: str, inputs: Inputs, seconds: float) -> None:
        self.context.ledger.record_image(
            component=name,
            repository=lookup.repository(self.context, name),
            input_digest=inputs.digest,
            digest=self.found[name].digest,
            manifest=inputs.manifest,
            seconds=seconds,
        )
        self._record(name, "build", BUILD_VERSION, green=True, seconds=seconds)

    def _built(self, name: str, status: Status, cause: str, seconds: float) -> Result:
        found = self.found[name]
        if "build" not in self.verdicts[name]:
            self._learn([found.digest])
            known = self._known[found.digest].get(("build", BUILD_VERSION))
            if known is None:  # the ledger was lost, the image was not
                self._record_image(name, self.inputs[name], 0.0)
            else:
                self.verdicts[name]["build"] = known
        log = self._shown_log(name, "build") if status is Status.DONE else None
        extra = {"digest": found.digest, "input_digest": self.inputs[name].digest, "reference": found.reference}
        return Result(name=name, stage="build", status=status, cause=cause, seconds=seconds, log=log, details=extra)

    def scan(self, name: str) -> Result:
        """Have a verdict of the scan: a green one that holds is taken, else the image is scanned."""
        return self._guarded(name, "scan", lambda: self._scan(name))

    def _scan(self, name: str) -> Result:
        from trainshed.stages.checks import scanning

        cached = self._cached(name, "scan")
        if cached is None:
            component, reference = self.survey.components[name], self.found[name].reference
            with self.scanners.asking(component, reference) as asking:
                with self.scanners.turn(name):
                    cached, started = self._taken_meanwhile(name, "scan"), time.monotonic()
                    answers = [] if cached else self._ask_here(name, asking)
                if cached is None:  # the slot is free while ECR is waited for
                    return self._judged(name, asking.all(answers), started)
        self._write_sbom(name, self.context.ledger.attachment(self.found[name].digest, scanning.SBOM))
        return cached

    def _ask_here(self, name: str, asking: Asking) -> list[Answer]:
        log = self._fresh_log(name, "scan")
        self._start(name, "scan")
        return asking.trivy(log)

    def _judged(self, name: str, answers: Sequence[Answer], started: float) -> Result:
        from trainshed.stages.checks import scanning

        cause, version = self._cause(name, "scan"), self.version(name, "scan")
        component, log = self.survey.components[name], self._log(name, "scan")
        scanned = scanning.judged(self.context, component, answers, waivers=self.waivers, log=log)
        if scanned.sbom:
            self.context.ledger.attach(self.found[name].digest, scanning.SBOM, scanned.sbom)
        self._write_sbom(name, scanned.sbom)
        seconds = time.monotonic() - started
        kept = details(findings=scanned.findings, notes=list(scanned.notes), message=scanned.message, database=scanned.database)
        self._record(name, "scan", version, green=scanned.green, seconds=seconds, kept=kept)
        return Result(
            name=name,
            stage="scan",
            status=Status.DONE if scanned.green else Status.FAILED,
            cause=cause,
            message=scanned.message,
            seconds=seconds,
            log=self._shown_log(name, "scan"),
            details=self._scan_details(name),
        )

    def test(self, name: str) -> Result:
        """Have a verdict of the tests: a green one that holds is taken, else the tests run inside the image."""
        return self._guarded(name, "test", lambda: self._test(name))

    def _test(self, name: str) -> Result:
        component = self.survey.components[name]
        if not (component.has_tests or component.structure_test):
            return Result(name=name, stage="test", status=Status.SKIPPED, cause="has no tests", details={"digest": self.found[name].digest})
        cached = self._cached(name, "test")
        if cached is not None:
            return cached
        with budgets.slot(self.context, name, "test"):
            return self._taken_meanwhile(name, "test") or self._really_test(name)

    def _really_test(self, name: str) -> Result:
        from trainshed.stages.checks import test

        component = self.survey.components[name]
        started, cause = time.monotonic(), self._start(name, "test")
        log, version = self._fresh_log(name, "test"), self.version(name, "test")
        own = {base: self.found[base].reference for base in self.survey.graph.bases(name) if base in self.found}
        pins = {reference: self.survey.pins[reference] for reference in self.survey.graph.foreign(name)}
        tested = test.test_image(
            self.context,
            component,
            self.found[name].reference,
            arguments=self.survey.arguments(name),
            own=own,
            pins={reference: pin.pinned for reference, pin in pins.items() if not pin.local},
            log=log,
        )
        if self.version(name, "test") != version:
            message = f"{component.folder}: its tests changed while they ran"
            raise WorkFailed(message, next_step="Run the same again, without editing meanwhile.")
        seconds = time.monotonic() - started
        kept = details(cases=tested.cases, message=tested.message)
        self._record(name, "test", version, green=tested.green, seconds=seconds, kept=kept)
        return Result(
            name=name,
            stage="test",
            status=Status.DONE if tested.green else Status.FAILED,
            cause=cause,
            message=tested.message,
            seconds=seconds,
            log=self._shown_log(name, "test"),
            details={"digest": self.found[name].digest},
            cases=tuple(tested.cases),
        )

    # --- shared ---------------------------------------------------------------------------------------------------------------

    def _cached(self, name: str, check: str) -> Result | None:
        """Take a green verdict that holds, with the cases and findings that it keeps."""
        if not self.standing(name, check).green:
            return None
        verdict = self.verdicts[name][check]
        extra = self._scan_details(name) if check == "scan" else {"digest": self.found[name].digest}
        return Result(name=name, stage=check, status=Status.CACHED, cause="green for this digest", details=extra, cases=verdict.cases)

    def _taken_meanwhile(self, name: str, check: str) -> Result | None:
        """Look again for the verdict: while we waited for a slot, another command may have come to it."""
        for (digest, kind, version), verdict in self.context.ledger.verdicts([self.found[name].digest]).items():
            self._known.setdefault(digest, {})[kind, version] = verdict
        return self._cached(name, check)

    def _scan_details(self, name: str) -> dict[str, Any]:
        verdict = self.verdicts[name]["scan"]
        return {"digest": self.found[name].digest, "findings": verdict.findings, "notes": list(verdict.details.get("notes", ()))}

    def _start(self, name: str, check: str) -> str:
        cause = self._cause(name, check)
        self.context.console.start(name, check, cause)
        return cause

    def _cause(self, name: str, check: str) -> str:
        return self.standing(name, check).reason or "new image"

    def _record(  # noqa: PLR0913 - the verdict's own fields
        self, name: str, check: str, version: str, *, green: bool, seconds: float, kept: Mapping[str, Any] | None = None
    ) -> None:
        verdict = Verdict(
            digest=self.found[name].digest,
            check=check,
            version=version,
            component=name,
            green=green,
            seconds=seconds,
            details=kept or {},
            tier=self.context.tier,
        )
        self.context.ledger.record_verdict(verdict)
        self._known.setdefault(verdict.digest, {})[check, version] = verdict
        self.verdicts[name][check] = verdict

    def _guarded(self, name: str, check: str, do: Callable[[], Result]) -> Result:
        """Turn an error into a failed result, so that the other components' work goes on."""
        started = time.monotonic()
        try:
            return do()
        except Interrupted:
            raise
        except TrainshedError as error:
            log = self._log(name, check)
            return Result(
                name=name,
                stage=check,
                status=Status.FAILED,
                cause=self.causes.get(name, "") if check == "build" else "",
                message=error.told,
                seconds=time.monotonic() - started,
                log=self._shown_log(name, check) if log.is_file() else None,
                exit_code=error.exit_code,
            )

    def _tell(self, line: str) -> None:
        self.context.console.line(line)

    def _log(self, name: str, check: str) -> Path:
        return self.context.config.project.work_dir / "logs" / f"{name}.{check}.log"

    def _fresh_log(self, name: str, check: str) -> Path:
        log = self._log(name, check)
        log.unlink(missing_ok=True)
        return log

    def _shown_log(self, name: str, check: str) -> str:
        return self.context.config.project.shown(self._log(name, check))

    def _write_sbom(self, name: str, sbom: bytes | None) -> None:
        if sbom:
            write_bytes(self.context.config.project.work_dir / "reports" / "sbom" / f"{name}.cdx.json", sbom)

    def scan_warnings(self) -> list[str]:
        """Say what the scans could not look for, once for all images that it is true of; a cached verdict says it again."""
        names: dict[str, list[str]] = {}
        for name, verdicts in self.verdicts.items():
            for note in verdicts["scan"].details.get("notes", ()) if "scan" in verdicts else ():
                names.setdefault(note, []).append(name)
        return [f"scan of {', '.join(found)}: {note}" for note, found in names.items()]

    def waiver_warnings(self) -> list[str]:
        """Say which waivers are expired, soon to expire, or without a finding, by what all scans found."""
        today, used = datetime.now(UTC).date(), set[Waiver]()
        scanned = {name: verdicts["scan"] for name, verdicts in self.verdicts.items() if "scan" in verdicts}
        for name, verdict in scanned.items():
            findings = [from_document(document) for document in verdict.findings]
            policy = self.context.config.scan
            rules = {"fail_on": policy.fail_on, "unfixed": policy.unfixed}
            used |= judge(findings, **rules, waivers=self.waivers, today=today, component=name).used
        complete = set(scanned) == set(self.survey.components)
        return warnings(self.waivers, used=used, today=today, complete=complete, components=self.survey.components)

    def lock_entries(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the lock's entries for components whose checks are all green."""
        entries = {}
        for name in names:
            found = self.found[name]
            entries[name] = {
                "reference": found.reference,
                "digest": found.digest,
                "input_digest": self.inputs[name].digest,
                "base": dict(self.inputs[name].manifest["bases"]),
                "verdicts": {check: _verdict_entry(verdict) for check, verdict in sorted(self.verdicts[name].items())},
                "origin": {"environment": self.context.config.environment.name, "build_url": self.context.build_url},
            }
        return entries


def aborted(node: Node[Result], reason: str) -> Result:
    """Return the result of a check that was not made; its node's key is ``component/check``."""
    name, _, stage = node.key.partition("/")
    return Result(name=name, stage=stage, status=Status.ABORTED, message=reason)


def failed_case(result: Result) -> Result:
    """Give a failed check without cases one, so that the JUnit file says the same as the console."""
    if result.status is not Status.FAILED or any(case.failure for case in result.cases):
        return result
    case = Case(name=result.stage, suite=result.name, seconds=result.seconds, failure=result.message or "failed")
    return replace(result, cases=(*result.cases, case))


def _verdict_entry(verdict: Verdict) -> dict[str, Any]:
    made = datetime.fromtimestamp(verdict.created, UTC).replace(microsecond=0)
    return {"version": verdict.version, "tier": verdict.tier.name.lower().replace("_", "-"), "created": made.isoformat()}


def _without_bases(old: Mapping[str, Any], inputs: Inputs, waiting: Iterable[str]) -> Mapping[str, Any]:
    """Take bases that are not built yet out of the comparison: what they move is said by their names."""
    taken = {base: inputs.manifest["bases"][base] for base in waiting}
    return {**old, "bases": {**old.get("bases", {}), **taken}}
