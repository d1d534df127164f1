"""Measure what people wait for, side by side in one run, and print figures and ratios; exit 1 when a target is missed.

Run by ``tox -e bench``; ``tox -e bench -- plan help`` picks parts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import urllib3

from tests.support import lineage_world, postgres
from tests.support.registry import running_registry
from trainshed import config
from trainshed.console import Console
from trainshed.ledger.database import Database
from trainshed.ledger.records import Verdict
from trainshed.ledger.store import Ledger
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.survey import survey
from trainshed.stages.work import Work

ROOT = Path(__file__).parents[2]
ROUNDS = 5
HELP_TARGET_SECONDS = 0.15
PLAN_TARGET_SECONDS = {100: 1.0}
FILES = 20
LINEAGE_EDGES = 100_000
LINEAGE_TARGET_SECONDS = 0.2


def main(parts: list[str]) -> int:
    """Run the parts (all when none is named); return 1 when a target is missed."""
    missed = [name for name, part in PARTS.items() if (not parts or name in parts) and not part()]
    if missed:
        print(f"missed: {', '.join(missed)}")
    return 1 if missed else 0


def help_part() -> bool:
    """Measure ``trainshed --help`` beside a bare interpreter."""
    bare = _seconds([sys.executable, "-c", "pass"], ROOT)
    ours = _seconds([sys.executable, "-m", "trainshed", "--help"], ROOT)
    print(f"--help: {ours:.3f} s, a bare interpreter {bare:.3f} s, ratio {ours / bare:.1f} (target {HELP_TARGET_SECONDS} s)")
    return ours < HELP_TARGET_SECONDS


def plan_part() -> bool:
    """Measure a plan that has nothing to do, for generated repositories of three sizes."""
    good = True
    for count in (20, 100, 500):
        with tempfile.TemporaryDirectory() as folder, running_registry(Path(folder, "registry")) as address:
            root = Path(folder, "project")
            root.mkdir()
            _generate(root, count, address)
            _settle(root)
            seconds = _seconds([sys.executable, "-m", "trainshed", "--env", "bench", "plan"], root)
            target = PLAN_TARGET_SECONDS.get(count)
            print(f"no-op plan, {count} components of {FILES} files: {seconds:.2f} s" + (f" (target {target:g} s)" if target else ""))
            good = good and (target is None or seconds < target)
    return good


def images_part() -> bool:
    """Measure the example cold, once in parallel and once one thing after the other."""
    took = {}
    ways = {"sequential": ("1", ["build", "scan", "test"]), "parallel": ("0", ["images"])}
    for name, (parallel, stages) in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for part in ("components", "pipeline_templates", "trainshed.toml", "waivers.toml"):
                _copy(ROOT / part, root / part)
            dockerfile = root / "components" / "base-python" / "Dockerfile"
            dockerfile.write_text(f"{dockerfile.read_text()}\nLABEL bench={time.time_ns()}\n")
            _make_cold(root, str(time.time_ns()))
            environment = {**_environment(), "TRAINSHED_BUILD_PARALLEL": parallel}
            began = time.monotonic()
            for stage in stages:
                subprocess.run([sys.executable, "-m", "trainshed", stage], cwd=root, env=environment, check=True, stderr=subprocess.DEVNULL)
            took[name] = time.monotonic() - began
            subprocess.run(
                [sys.executable, "-m", "trainshed", "local", "down"], cwd=root, env=environment, check=True, stderr=subprocess.DEVNULL
            )
    ratio = took["sequential"] / took["parallel"]
    print(f"images of the example, cold: sequential {took['sequential']:.1f} s, parallel {took['parallel']:.1f} s, ratio {ratio:.2f}")
    return ratio > 1.0


def lineage_part() -> bool:
    """Measure questions to the lineage of years of builds, and what it adds to the record of a lock, on both databases."""
    with tempfile.TemporaryDirectory() as folder, postgres.server() as server:
        years = lineage_world.years(LINEAGE_EDGES)
        urls = {"SQLite": f"sqlite:///{folder}/ledger.sqlite", "PostgreSQL": server.create("bench")}
        good = [_lineage(name, url, years) for name, url in urls.items()]
        return all(good)


def _lineage(name: str, url: str, years: lineage_world.Years) -> bool:
    with Ledger.open(url, tier=Tier.MAIN) as ledger:
        database = Database(url)
        try:
            lineage_world.write(database, years)
        finally:
            database.close()
        took = lineage_world.answered(ledger, years.world, rounds=ROUNDS)
        told = ", ".join(f"{what} {statistics.median(seconds) * 1000:.0f} ms" for what, seconds in took.items())
        print(f"lineage, {LINEAGE_EDGES} edges, {name}: {told} (target {LINEAGE_TARGET_SECONDS * 1000:.0f} ms each)")
        images = {part: {"reference": f"r/{part}@{part}", "digest": part, "input_digest": part} for part in map(str, range(200))}
        for which, number in (("first", 1), ("next", 2)):
            began = time.monotonic()
            ledger.record_lock("p", f"{number}", "main", {"project": f"{number}", "commit": f"{number}", "dirty": False, "images": images})
            print(f"the {which} lock of {len(images)} images, {name}: recorded in {(time.monotonic() - began) * 1000:.0f} ms")
        return all(statistics.median(seconds) < LINEAGE_TARGET_SECONDS for seconds in took.values())


PARTS: Mapping[str, Callable[[], bool]] = {"help": help_part, "plan": plan_part, "images": images_part, "lineage": lineage_part}


def _seconds(command: list[str], folder: Path) -> float:
    """Return the median of some rounds after one that warms up."""
    took = []
    for _ in range(ROUNDS + 1):
        began = time.monotonic()
        subprocess.run(command, cwd=folder, env=_environment(), check=True, capture_output=True)
        took.append(time.monotonic() - began)
    return statistics.median(took[1:])


def _environment() -> dict[str, str]:
    """Return the environment of a user, whose interpreter keeps what it has compiled."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _make_cold(root: Path, mark: str) -> None:
    """Change the first layer of the base, so that no cache of the builder helps either round."""
    script = root / "components" / "base-python" / "install-locked"
    script.write_text(f"{script.read_text()}\n# {mark}\n")


def _generate(root: Path, count: int, address: str) -> None:
    registry = f'registry = {{ url = "{address}", insecure = true }}'
    (root / "trainshed.toml").write_text(f'[project]\nname = "bench"\n[scan]\nscanners = ["secret"]\n[environments.bench]\n{registry}\n')
    (root / "waivers.toml").write_text("")
    (root / "pipeline_templates").mkdir()
    for number in range(count):
        folder = root / "components" / f"part-{number:03}"
        folder.mkdir(parents=True)
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /app/\nUSER 65534\n")
        for index in range(FILES - 1):
            (folder / f"file_{index:02}.py").write_text(f"# {number} {index}\n" * 50)


def _settle(root: Path) -> None:
    """Put an image of every component's inputs into the registry, and its verdicts into the ledger."""
    settings = config.load(root / "trainshed.toml", environment="bench")
    context = Context(config=settings, console=Console(), tier=Tier.LAPTOP)
    try:
        work = Work(context, survey(context))
        with urllib3.PoolManager() as pool:
            for name in work.survey.selected:
                digest = _put(pool, context.repository_prefix, name, work.survey.source(name).digest)
                verdict = Verdict(digest=digest, check="scan", version=work.version(name, "scan"), component=name, green=True)
                context.ledger.record_verdict(verdict)
        work.survey.hashes.save()
    finally:
        context.close()


def _put(pool: urllib3.PoolManager, prefix: str, name: str, input_digest: str) -> str:
    """Put the smallest image that a registry takes; return its digest."""
    host, _, path = f"{prefix}/{name}".partition("/")
    blob = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Labels": {"of": input_digest}}, "rootfs": {"type": "layers", "diff_ids": []}}
    )
    digest = f"sha256:{hashlib.sha256(blob.encode()).hexdigest()}"
    place = pool.request("POST", f"http://{host}/v2/{path}/blobs/uploads/").headers["Location"]
    pool.request("PUT", f"{place}&digest={digest}", body=blob.encode(), headers={"Content-Type": "application/octet-stream"})
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    config_of = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(blob), "digest": digest}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config_of, "layers": []}).encode()
    tag = f"in-{input_digest.removeprefix('sha256:')}-laptop"
    answer = pool.request("PUT", f"http://{host}/v2/{path}/manifests/{tag}", body=manifest, headers={"Content-Type": kind})
    if answer.status != 201:
        raise SystemExit(f"the registry refused {name}: {answer.status} {answer.data!r}")
    return answer.headers["Docker-Content-Digest"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
