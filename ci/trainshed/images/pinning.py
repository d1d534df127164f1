"""Dockerfiles whose foreign images are pinned by digest, so that what was resolved is what is built on."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trainshed.images.dockerfile import Dockerfile, External


def pinned(dockerfile: Dockerfile, pins: Mapping[str, str], *, args: Mapping[str, str]) -> str:
    """Return the text with foreign images replaced; every line keeps its number.

    Args:
        dockerfile: what to rewrite.
        pins: by normalised reference (as `Dockerfile.resolve` gives it with ``args``), what to write in its place; an image that is not
            among them stays as it is, own bases too.
        args: the build arguments, the component's own laid over.
    """
    text = dockerfile.text.split("\n")
    heads = {stage.line: stage for stage in dockerfile.stages}
    for external in dockerfile.externals(dockerfile.stages):
        pin = pins.get(dockerfile.resolve(external, args))
        if pin is None:
            continue
        stage = heads.get(external.line)
        if stage is None:
            _rewrite(text, external, pin)
            continue
        name = f" AS {stage.name}" if stage.name else ""
        platform = f"--platform={stage.platform} " if stage.platform else ""
        text[external.line - 1] = f"FROM {platform}{pin}{name}"
        text[external.line : stage.last_line] = [""] * (stage.last_line - external.line)
    return "\n".join(text)


def _rewrite(text: list[str], external: External, pin: str) -> None:
    """Put the pin behind the first ``from=`` of an instruction that names the image: flags stand before everything else."""
    pattern = re.compile(rf"((?:--|,|=)from=[\"']?){re.escape(external.written)}(?=[\s,\"']|$)")
    for number in range(external.line - 1, external.last_line):
        text[number], count = pattern.subn(lambda match: match[1] + pin, text[number], count=1)
        if count:
            return
