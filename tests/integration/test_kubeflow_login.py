"""Our client and ``trainshed login`` through Dex and oauth2-proxy, as an imitation of both plays them, to a strict Kubeflow."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.dex import PASSWORD, SESSION, USER, Dex, Gate
from tests.support.kubeflow import Scripted, specification, step, text
from tests.support.kubeflow_server import StrictServer
from trainshed.cli import main
from trainshed.errors import RemoteError
from trainshed.tools import kubeflow_auth
from trainshed.tools.http import Http, NoAnswer
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.values import Auth

AUTH = Auth(kind="dex", username=USER, password_env="DEX_PASSWORD")  # noqa: S106 - the name of a variable
PIPELINE = text(specification("flow", {"train": step("pass")}))


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEX_PASSWORD", PASSWORD)


@contextmanager
def guarded(gate: Gate, *, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, StrictServer]]:
    """Serve a multi-user Kubeflow behind a gate; yield the gate's address."""
    server = StrictServer(multi_user=True, allows=lambda headers: headers.get("kubeflow-userid") == USER)
    with server.serve() as address:
        gate.upstream = address
        with Scripted(gate).serve(tls) as outside:
            yield outside, server


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Make a certificate for loopback that this machine trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubeflow for tests")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key(), serial_number=1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption_algorithm=serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(private)
    (tmp_path / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    return context


def test_work_goes_on_over_sessions_that_end_and_nothing_is_made_twice() -> None:
    gate = Gate(Dex(connectors=("github", "local"), approval=True))
    with guarded(gate) as (address, server), KubeflowClient(address, namespace="risk", auth=AUTH) as client:
        assert client.require_ready() == []
        made = client.create_pipeline("flow")
        gate.sessions.clear()
        version = client.upload_version(made.id, "main-1", PIPELINE)
        gate.sessions.clear()
        experiment = client.experiment("lab")
        gate.sessions.clear()
        client.create_run(version, {}, name="one-of-many", experiment=experiment)
        assert [each.name for each in client.versions(made.id)] == ["main-1"]
        assert [run.name for run in client.runs(experiment=experiment)] == ["one-of-many"]
        assert gate.dex.logins == 4
        assert {one.headers["kubeflow-userid"] for one in server.requests} == {USER}


def test_a_refused_login_reaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEX_PASSWORD", "wrong-one")
    with guarded(Gate()) as (address, server), KubeflowClient(address, namespace="risk", auth=AUTH) as client:
        with pytest.raises(RemoteError, match="Dex refused the login"):
            client.create_pipeline("flow")
        assert server.requests == []


def test_a_server_that_is_not_trusted_was_asked_for_nothing(certified: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    script = Scripted(Gate())
    with script.serve(certified) as address, Http(retries=0) as http, pytest.raises(NoAnswer, match="self-signed") as caught:
        http.request("POST", f"{address}/apis/v2beta1/runs")
    assert (caught.value.sent, script.asked) == (False, [])


def test_the_command_tells_who_one_is_over_https(
    tmp_path: Path, certified: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    gate = Gate(Dex(connectors=("ldap", "local"), approval=True), cookie="; Max-Age=86400; Secure", button=True, scheme="https")
    with guarded(gate, tls=certified) as (address, _):
        (tmp_path / "trainshed.toml").write_text(
            f'[environments.dev.kubeflow]\nhost = "{address}"\nnamespace = "risk"\n'
            f'auth = {{ kind = "dex", username = "{USER}", password-env = "DEX_PASSWORD" }}\n'
        )
        code = main(["--env", "dev", "--json", "login"])
    out = capsys.readouterr()
    assert code == 0, out.err
    result = json.loads(out.out)["results"][0]
    wanted = {"name": "dev", "user": USER, "server_user": USER, "server_from": "oauth2-proxy", "renews": True, "multi_user": True}
    assert {name: result[name] for name in wanted} == wanted
    left = dt.datetime.fromisoformat(result["until"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(hours=20) < left <= dt.timedelta(hours=24)
    for secret in (PASSWORD, *gate.sessions, SESSION):
        assert secret not in out.out + out.err


def test_the_token_of_the_cluster_is_where_the_sdk_looks_for_it() -> None:
    import kfp.client

    assert str(kubeflow_auth.SERVICE_ACCOUNT_TOKEN) == kfp.client.KF_PIPELINES_SA_TOKEN_PATH
    assert kfp.client.KF_PIPELINES_SA_TOKEN_ENV == "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105 - the name of a variable
