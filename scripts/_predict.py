"""Ask a deployed service over HTTP, as one of its users would; prints one JSON document."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from trainshed import config, settings
from trainshed.console import Console
from trainshed.errors import NothingSelected, RemoteError, TrainshedError, UsageError
from trainshed.images.components import discover, select
from trainshed.services import golden, spec
from trainshed.services.spec import Service
from trainshed.stages.context import Context
from trainshed.tools.http import Http


def main() -> int:
    """Ask, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/predict", description="Ask a deployed service over HTTP.")
    parser.add_argument("service", nargs="?", help="component of the service; the first one when none is named")
    parser.add_argument("--data", type=Path, help="a JSON file to send to /predict instead of the first golden request")
    given = parser.parse_args()
    console = Console(stream=sys.stderr)
    try:
        print(json.dumps(asked(given.service, given.data, console), indent=2))
    except TrainshedError as error:
        console.error(error)
        return error.exit_code
    return 0


def asked(name: str | None, data: Path | None, console: Console) -> dict[str, Any]:
    """Return ``service``, ``url``, ``request``, ``status`` and ``answer``.

    Raises:
        RemoteError: the service does not answer with success.
    """
    own = settings.own()
    file = own.get("TRAINSHED_CONFIG")
    loaded = config.load(
        Path(file) if file else config.find(Path.cwd()), environment=own.get("TRAINSHED_ENV") or config.LOCAL, overrides=own
    )
    context = Context(config=loaded, console=console, tier=settings.tier())
    try:
        service = _service(context, name)
        path, body = _request(service, data)
        address = service.address or context.prediction.address(service.name)
        if not address:
            raise UsageError(f"{service.file}: load-balancer.address is needed to ask the service")
        url = f"{address.rstrip('/')}{path}"
        with Http(timeout=30) as http:
            answer = http.request("POST", url, json=body)
        if not answer.ok:
            message = f"{url} answered {answer.status}: {answer.body[:500].decode(errors='replace')}"
            raise RemoteError(message, next_step="See `trainshed local logs prediction`.")
        return {"service": service.name, "url": url, "request": body, "status": answer.status, "answer": answer.json()}
    finally:
        context.close()


def _service(context: Context, name: str | None) -> Service:
    components = discover(context.config.project.components)
    known = [component for component, found in components.items() if found.service]
    if not known:
        raise NothingSelected("no component has a service.yaml")
    chosen = select(known, [name] if name else [], what="service")[0]
    return spec.load(components[chosen].folder / "service.yaml", environment=context.config.environment.name)


def _request(service: Service, data: Path | None) -> tuple[str, Any]:
    if data is not None:
        try:
            return "/predict", json.loads(data.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{data}: not a JSON file: {error}") from error
    if service.golden is None:
        raise UsageError(f"{service.file}: there is no golden request to send", next_step="Name a JSON file with --data.")
    first = golden.load(service.golden)[0]
    return first.path, first.body


if __name__ == "__main__":
    sys.exit(main())
