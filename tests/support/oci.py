"""Images of a few bytes, put into a registry past all clients of ours."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def ask(address: str, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, path, body=body, headers={"Content-Type": kind})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@dataclass
class Store:
    """A repository that images are put into, past all clients of ours."""

    address: str
    name: str

    @property
    def repository(self) -> str:
        return f"{self.address}/{self.name}"

    def blob(self, content: bytes, kind: str = LAYER) -> dict[str, Any]:
        place = ask(self.address, "POST", f"/v2/{self.name}/blobs/uploads/").headers["Location"].removeprefix(f"http://{self.address}")
        assert ask(self.address, "PUT", f"{place}&digest={digest_of(content)}", content).status == 201
        return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}

    def manifest(self, document: Mapping[str, Any], *, tag: str = "") -> dict[str, Any]:
        content = json.dumps(document).encode()
        selector = tag or digest_of(content)
        assert ask(self.address, "PUT", f"/v2/{self.name}/manifests/{selector}", content, document["mediaType"]).status == 201
        return {"mediaType": document["mediaType"], "digest": digest_of(content), "size": len(content)}

    def image(self, *layers: bytes, subject: Mapping[str, Any] | None = None, tag: str = "") -> dict[str, Any]:
        described = self.blob(json.dumps({"os": "linux", "architecture": "amd64", "n": len(layers)}).encode(), CONFIG)
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [self.blob(layer) for layer in layers]}
        return self.manifest({**document, **({"subject": subject} if subject else {})}, tag=tag)


def some(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - content of a layer
