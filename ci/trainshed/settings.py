"""The only reader of the process environment. Everything else takes what it needs as an argument."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

PREFIX = "TRAINSHED_"
_REPOSITORY = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_NAMESPACE", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE"),
    *("GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS"),
)
"""What git sets for its hooks: it would have every git command speak of that repository, whichever folder it is told."""
_KEPT_FROM_CHILDREN = ("TRAINSHED_", "COV_CORE_", "PYTEST_", *_REPOSITORY)


class Tier(IntEnum):
    """Who made a record, by how far it can be trusted: a look-up takes its own tier or above."""

    LAPTOP = 0
    PULL_REQUEST = 1
    MAIN = 2


def interpreter() -> str:
    """Return the path of the running Python, links not followed: a virtual environment's programs stand beside it."""
    return sys.executable


def search_path() -> str:
    """Return ``PATH``."""
    return os.environ.get("PATH", os.defpath)


def child_environment() -> dict[str, str]:
    """Return the environment for child processes: ours, without Trainshed's own variables and those that name a git repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_KEPT_FROM_CHILDREN)}


def variable(name: str) -> str | None:
    """Return a variable that a component's or environment's configuration names (``password-env = "…"``); None when unset."""
    return os.environ.get(name)


def pipelines_token() -> Path | None:
    """Return the file that ``KF_PIPELINES_SA_TOKEN_PATH`` names, as the SDK of Kubeflow Pipelines reads it; None when unset."""
    named = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    return Path(named) if named else None


def in_cluster() -> bool:
    """Tell whether this runs in a pod: Kubernetes tells each where its API is."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def own() -> Mapping[str, str]:
    """Return all ``TRAINSHED_…`` variables, the prefix kept."""
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}


def docker_host() -> str | None:
    """Return ``DOCKER_HOST``, the engine's address as its own client reads it."""
    return os.environ.get("DOCKER_HOST") or None


def in_ci() -> bool:
    """Tell whether this runs in CI (``CI``, or Jenkins' ``BUILD_URL``): plain lines instead of a live table."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"} or bool(build_url())


def build_url() -> str | None:
    """Return the address of the Jenkins build that runs this, None elsewhere."""
    return os.environ.get("BUILD_URL") or None


def tier() -> Tier:
    """Tell how far this run's records can be trusted.

    Jenkins sets ``BUILD_URL``; ``CHANGE_ID`` for a pull request, ``CHANGE_FORK`` for one of a fork, which is trusted as little as a
    laptop; and for the main branch of a multibranch job ``BRANCH_IS_PRIMARY``. That one is never "false", only absent, also where the
    controller cannot know: there the name counts, ``main`` or ``master`` unless ``TRAINSHED_MAIN_BRANCH`` says others, with blanks
    between. A tag (``TAG_NAME``) may be called so too, and no rule that protects the branch protects it.
    """
    if build_url() is None or from_fork():
        return Tier.LAPTOP
    if os.environ.get("CHANGE_ID") or os.environ.get("TAG_NAME"):
        return Tier.PULL_REQUEST
    names = os.environ.get("TRAINSHED_MAIN_BRANCH", "").split() or ["main", "master"]
    primary = os.environ.get("BRANCH_IS_PRIMARY", "").lower() == "true" or os.environ.get("BRANCH_NAME") in names
    return Tier.MAIN if primary else Tier.PULL_REQUEST


def from_fork() -> bool:
    """Tell whether Jenkins builds a pull request of a fork: what comes from there gets no credentials."""
    return bool(os.environ.get("CHANGE_FORK"))


def change() -> str | None:
    """Return the number of the pull request that Jenkins builds, None elsewhere."""
    return os.environ.get("CHANGE_ID") or None


def build_number() -> int:
    """Return the number of the Jenkins build that runs this, as its address ends; 0 elsewhere."""
    last = (build_url() or "").rstrip("/").rpartition("/")[2]
    return int(last) if last.isascii() and last.isdigit() else 0


def git_settings() -> int:
    """Return how many settings the environment hands to git (``GIT_CONFIG_COUNT``): more are numbered from there."""
    told = os.environ.get("GIT_CONFIG_COUNT", "")
    return int(told) if told.isascii() and told.isdigit() else 0


def policy_revision() -> str | None:
    """Return the git revision whose policy holds instead of the tree's, None for the tree's own.

    In a pull request it is the target branch, whatever ``TRAINSHED_POLICY_FROM`` says; written in full, because a tag could be
    called ``origin/main`` too.
    """
    if os.environ.get("CHANGE_ID"):
        return f"refs/remotes/origin/{os.environ.get('CHANGE_TARGET', '')}"
    return os.environ.get("TRAINSHED_POLICY_FROM") or None


def branch() -> str | None:
    """Return the branch as Jenkins names it (for a pull request ``PR-7``), None elsewhere."""
    return os.environ.get("BRANCH_NAME") or None


def change_branch() -> str | None:
    """Return the branch that a pull request is to merge, None elsewhere, and for one of a fork, where others choose the name."""
    return None if from_fork() else os.environ.get("CHANGE_BRANCH") or None


def tag() -> str | None:
    """Return the tag that Jenkins builds, None elsewhere."""
    return os.environ.get("TAG_NAME") or None


def home() -> Path:
    """Return the home folder."""
    return Path(os.environ.get("HOME") or "~").expanduser()


def ca_bundle() -> Path | None:
    """Return the CA bundle that this machine's tools are told to use, None when none is named."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"):
        value = os.environ.get(name)
        if value and Path(value).is_file():
            return Path(value)
    return None


def proxies() -> dict[str, str]:
    """Return the proxy variables that are set, under both spellings as they stand."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
    return {name: os.environ[name] for upper in names for name in (upper, upper.lower()) if os.environ.get(name)}


def pip_settings() -> dict[str, str]:
    """Return the ``PIP_…`` variables that are set: they reach builds as a secret file, never as arguments."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


def capable_terminal() -> bool:
    """Tell whether ``TERM`` names a terminal that can move its cursor."""
    return os.environ.get("TERM", "") not in {"", "dumb"}


def no_color() -> bool:
    """Tell whether ``NO_COLOR`` asks for plain text."""
    return bool(os.environ.get("NO_COLOR"))
