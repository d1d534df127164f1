"""What goes wrong between a controller and its client, and how it is told."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.jenkins_client import PATIENT
from tests.support.jenkins_server import KEY, WORD, FakeJob, JenkinsServer, running_jenkins
from trainshed.errors import RemoteError, UsageError
from trainshed.tools import jenkins as tool
from trainshed.tools.jenkins import Jenkins, Job

pytestmark = pytest.mark.sockets


def certificate(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1 that signs itself, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "controller")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "both.pem").write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return folder / "both.pem"


class TestWhatGoesWrong:
    @pytest.mark.parametrize("fault", ["502", "503", "504", "500", "429", "drop", "cut off", "starting"])
    def test_a_question_is_asked_again_when_the_controller_falters(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob, fault: str
    ) -> None:
        main.add_build()
        match fault:
            case "drop":
                server.drop("main/1/", times=2)
            case "cut off":
                server.cut_off("main/1/", times=2)
            case "starting":
                server.start_up("main/1/", times=2)
            case status:
                server.fail("main/1/", int(status), times=2)
        assert jenkins.build(job, 1).number == 1

    def test_a_controller_that_stays_broken_is_told_in_its_own_words(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.fail("main/1/", 502, times=99, page="<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body>")
        with pytest.raises(tool.Unavailable, match="HTTP 502: 502 Bad Gateway"):
            jenkins.build(job, 1)

    def test_a_wrong_token_is_told_without_showing_it(self, server: JenkinsServer) -> None:
        wrong = "wrong-one"
        with Jenkins.connect(server.url, user="ada", token=wrong) as jenkins, pytest.raises(tool.Denied) as caught:
            jenkins.job("team/repo", "main")
        assert "does not accept user 'ada' or the API token (HTTP 401)" in caught.value.message
        assert wrong not in caught.value.told
        assert wrong not in repr(jenkins) + str(vars(jenkins))

    def test_nobody_in_particular_is_told_to_log_in(self, server: JenkinsServer) -> None:
        with Jenkins.connect(server.url) as jenkins, pytest.raises(tool.Denied) as caught:
            jenkins.job("team/repo", "main")
        assert "user 'anonymous' lacks the permission Overall/Read (HTTP 403)" in caught.value.message
        assert "jenkins.token-env" in caught.value.next_step

    def test_anybody_may_ask_a_controller_that_is_open(self, server: JenkinsServer) -> None:
        server.anonymous = {"hudson.model.Hudson.Read", "hudson.model.Item.Read", "hudson.model.Item.Build"}
        with Jenkins.connect(server.url) as jenkins:
            job = jenkins.job("team/repo", "main")
            assert jenkins.build_of(job, jenkins.trigger(job, {}), deadline=PATIENT).number == 1

    @pytest.mark.parametrize(("user", "token", "told"), [("ada", "", "jenkins.token-env"), ("", "11aa", "jenkins.user")])
    def test_a_user_without_a_token_or_the_other_way_round_is_refused(self, user: str, token: str, told: str) -> None:
        with pytest.raises(UsageError) as caught:
            Jenkins.connect("http://127.0.0.1:1", user=user, token=token)
        assert told in caught.value.next_step

    @pytest.mark.parametrize("url", ["ftp://jenkins", "jenkins.example.org", "https://ada:11aa@jenkins.example.org"])
    def test_an_address_of_another_kind_is_refused_and_not_repeated(self, url: str) -> None:
        with pytest.raises(UsageError) as caught:
            Jenkins.connect(url)
        assert "11aa" not in caught.value.told

    def test_a_log_in_page_is_not_taken_for_an_answer(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        server.log_in()
        with pytest.raises(tool.Denied, match=r"got text/html \('Sign in'\): a log-in page, or not a Jenkins controller"):
            jenkins.job("team/repo", "main")

    def test_a_redirect_to_a_log_in_page_is_not_followed(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        server.fail("", 302, headers={"Location": "https://login.example.org/sso?back=11aa"})
        with pytest.raises(tool.Denied, match=r"redirected to https://login.example.org/sso: a log-in page"):
            jenkins.job("team/repo", "main")
        assert len(server.requests) == 1

    def test_a_redirect_to_https_says_which_address_to_write_down(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        server.fail("", 301, headers={"Location": f"https://127.0.0.1:{server.port}/"})
        with pytest.raises(UsageError) as caught:
            jenkins.job("team/repo", "main")
        assert caught.value.next_step == "Correct jenkins.url."

    def test_a_trigger_that_meets_a_log_in_page_is_told(self, server: JenkinsServer) -> None:
        with Jenkins.connect(server.url, user="ada", token=WORD) as jenkins:
            job = jenkins.job("team/repo", "main")
            server.log_in("crumbIssuer", times=99)
            with pytest.raises(tool.Denied, match="a log-in page"):
                jenkins.trigger(job, {})
        assert not server.asked("POST")

    def test_a_server_that_is_no_jenkins_is_told(self, server: JenkinsServer) -> None:
        with (
            Jenkins.connect(f"{server.url}/wrong/path", user="ada", token=KEY) as jenkins,
            pytest.raises(RemoteError, match="/wrong/path: no Jenkins controller answers there"),
        ):
            jenkins.job("team/repo", "main")

    def test_a_proxy_is_asked_for_what_is_not_on_this_machine(self, server: JenkinsServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", server.url)
        server.fail("", 200, page='{"name": "main"}')
        with Jenkins.connect("http://jenkins.invalid", user="ada", token=KEY) as jenkins:
            assert jenkins.job("team/repo", "main").branch == "main"
        assert server.requests[0].headers["host"] == "jenkins.invalid"

    def test_a_controller_without_tls_is_no_trusted_connection(self, server: JenkinsServer) -> None:
        with (
            Jenkins.connect(server.url.replace("http:", "https:"), user="ada", token=KEY) as jenkins,
            pytest.raises(RemoteError, match="no trusted connection") as caught,
        ):
            jenkins.job("team/repo", "main")
        assert "SSL_CERT_FILE" in caught.value.next_step

    def test_a_certificate_is_trusted_where_the_bundle_of_the_machine_holds_its_signer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundle, context = certificate(tmp_path), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(bundle)
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"):
            monkeypatch.delenv(name, raising=False)
        with running_jenkins(tls=context) as server:
            server.root.job("small")
            with Jenkins.connect(server.url, user="ada", token=KEY) as jenkins, pytest.raises(RemoteError, match="self-signed"):
                jenkins.job("small")
            monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
            with Jenkins.connect(server.url, user="ada", token=KEY) as jenkins:
                assert jenkins.job("small").path == "small"

    def test_a_password_of_netrc_is_not_used(self, server: JenkinsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password 11aa\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        with Jenkins.connect(server.url) as jenkins, pytest.raises(tool.Denied):
            jenkins.job("team/repo", "main")

    def test_the_library_is_loaded_only_when_a_controller_is_spoken_to(self) -> None:
        program = "import sys, trainshed.tools.jenkins; sys.exit('jenkinsapi' in sys.modules or 'requests' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
