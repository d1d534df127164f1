"""``trainshed version``: the version that the next release will have, or that of this build, which is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainshed import settings
from trainshed.errors import Interrupted, TrainshedError
from trainshed.releases import version as versions
from trainshed.releases.version import AUTO
from trainshed.results import Report, Result, Status
from trainshed.settings import Tier
from trainshed.stages import versioning
from trainshed.stages.context import Context
from trainshed.stages.versioning import UnitPlan
from trainshed.tools import git

_FEW = 50
_SHORT = 7


def version(context: Context, names: Sequence[str] = (), *, why: bool = False, bump: str | None = None) -> Report:
    """Print the version on stdout: bare for one unit, ``name version`` lines for several.

    On main's build it is that of the next release, the last one's where nothing asks for a next; elsewhere it is a pre-release of it.

    Args:
        context: the command's room.
        names: pipelines and services; all when empty.
        why: show which commits ask for which growth.
        bump: what the version grows by; what the commits ask for by default.

    Raises:
        UsageError: the version cannot be told, because the history is cut off or a tag was moved; on main, because it was given elsewhere.
    """
    plans = versioning.planned(context, names, bump=bump or AUTO, strict=False)
    head = git.head(context.config.project.root)
    told = [(plan, _told(context, plan, branch=head.branch, dirty=head.dirty, asked=bump is not None)) for plan in plans]
    if why:
        for plan, text in told:
            _explain(context, plan, text)
    context.console.data(told[0][1] if len(told) == 1 else "\n".join(f"{plan.unit} {text}" for plan, text in told))
    return Report(stage="version", results=tuple(_result(context, plan, text) for plan, text in told))


def of_build(context: Context) -> str | None:
    """Return the one version of what is checked out; None where each unit has its own, or git does not tell."""
    try:
        plans = [] if context.config.release.versions == versioning.EACH else versioning.planned(context, strict=False)
        head = git.head(context.config.project.root)
        return next((_told(context, plan, branch=head.branch, dirty=head.dirty, asked=False) for plan in plans), None)
    except Interrupted:
        raise
    except TrainshedError:
        return None


def _told(context: Context, plan: UnitPlan, *, branch: str | None, dirty: bool, asked: bool) -> str:
    """Return the version of what is checked out."""
    last = plan.previous_version
    here = last is not None and plan.previous_commit == plan.head and not asked
    ci = context.build_url is not None
    if context.tier is Tier.MAIN:
        plan.require_free()
        return plan.next.version or last or versions.FIRST
    if last is not None and here and not (dirty and not ci) and settings.change() is None and (not ci or settings.tag()):
        return last
    label = _label(plan, branch) if ci else f"dev.{len(plan.commits)}"
    return versions.pre_release(last, plan.next, label, commit=plan.head, dirty=dirty and not ci)


def _label(plan: UnitPlan, branch: str | None) -> str:
    """Return what a build of Jenkins is: of a pull request, or of a branch, and which."""
    change = settings.change()
    what = f"pr.{versions.slug(change)}" if change else f"branch.{versions.slug(branch or git.short(plan.head))}"
    return f"{what}.{settings.build_number()}"


def _explain(context: Context, plan: UnitPlan, text: str) -> None:
    """Show the commits that ask, and the reason in a sentence."""
    console = context.console
    title = f"{plan.unit or context.config.project.name}: {plan.previous or 'no release'} → {plan.next.version or 'nothing to release'}"
    rows = [(change.commit.id[:_SHORT], growth, _subject(change.commit.subject), change.breaking) for change, growth in plan.next.asked]
    if rows:
        console.table(title, ("commit", "asks for", "title", "breaks"), rows[:_FEW])
    else:
        console.heading(title)
    if len(rows) > _FEW:
        console.line(f"… and {len(rows) - _FEW} more; --json has all")
    silent = len(plan.commits) - len(plan.next.asked)
    console.line(f"{plan.next.why}" + (f" {silent} more of {len(plan.commits)} commits ask for nothing." if silent > 0 else ""))
    if plan.in_the_way:
        console.warning(plan.in_the_way)
    if text != plan.next.version:
        console.line(f"This build is no release of it: {text}" if text != plan.previous_version else f"This is {text}, as it was released.")


def _subject(text: str) -> str:
    return " ".join(text.split())


def _result(context: Context, plan: UnitPlan, text: str) -> Result:
    asked: list[dict[str, Any]] = [
        {
            "commit": change.commit.id,
            "subject": change.commit.subject,
            "author": change.commit.author,
            "type": change.type,
            "scope": change.scope,
            "breaking": change.breaking,
            "bump": growth,
        }
        for change, growth in plan.next.asked
    ]
    unit = plan.unit_version()
    return Result(
        name=plan.unit or context.config.project.name,
        stage="version",
        status=Status.SKIPPED if plan.next.version is None else Status.DONE,
        cause=plan.next.why,
        details={
            "version": text,
            "release": plan.next.version,
            "tag": unit.tag if unit is not None else None,
            "bump": plan.next.bump,
            "in_the_way": plan.in_the_way or None,
            "previous": plan.previous or None,
            "previous_commit": plan.previous_commit,
            "commit": plan.head,
            "commits": len(plan.commits),
            "asked": asked,
        },
    )
