"""A company's network: its proxy, its own certificates, the headers that it asks for. Over real, encrypted sockets."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
import trustme
from support.calling import ID
from support.server import CANARY

from orchestrator.api.dialect import Target
from orchestrator.api.network import Network, custom_headers
from orchestrator.api.v1 import V1
from orchestrator.api.wire import Wire
from orchestrator.errors import NotSent, SettingsError, Unreachable
from orchestrator.models import Json

HOST = "api.example.test"

TRUSTING = Network(trust_env=True)


class Company:
    """An encrypted API at HOST, and a proxy that is the only way to it. ``heard``: all that the proxy could read."""

    def __init__(self, certificate: trustme.LeafCert, refusal: bytes = b"") -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)
        self._refusal = refusal
        self.heard = b""
        self.requests: list[bytes] = []
        self.api_port = self.proxy_port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        api = await asyncio.start_server(self._api, "127.0.0.1", 0, ssl=self._context)
        proxy = await asyncio.start_server(self._proxy, "127.0.0.1", 0)
        self.api_port, self.proxy_port = (server.sockets[0].getsockname()[1] for server in (api, proxy))
        try:
            yield
        finally:
            api.close()
            proxy.close()

    async def _api(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        body = json.dumps({"id": ID}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async def _proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard += await reader.readuntil(b"\r\n\r\n")
        with closing(writer):
            if self._refusal:
                writer.write(self._refusal)
                await writer.drain()
                return
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            there, back = await asyncio.open_connection("127.0.0.1", self.api_port)
            with closing(back):
                await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                self.heard += data
                sink.write(data)
            sink.write_eof() if sink.can_write_eof() else None


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The company's own authority; SSL_CERT_FILE names it, and no proxy is set."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "company.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "company.pem"))
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return authority


def ask(company: Company, network: Network, before: Callable[[], None] = lambda: None, host: str = HOST) -> Json:
    """What the API answers a read through *network*. *before* runs when the ports are known."""

    async def go() -> Json:
        async with company.open():
            before()
            wire = Wire(f"https://{host}:{company.api_port}", CANARY, timeout_s=60, fresh_creates=True, network=network)
            try:
                return await wire.send(V1(Target()).get(ID), kind="read")
            finally:
                await wire.close()

    return asyncio.run(go())


def test_a_proxy_carries_what_it_cannot_read(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """CONNECT only: the proxy learns the host, and never the key."""
    company = Company(authority.issue_cert(HOST))

    def before() -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{company.proxy_port}")

    assert ask(company, TRUSTING, before) == {"id": ID}
    assert company.heard.startswith(b"CONNECT " + HOST.encode())
    assert CANARY.encode() not in company.heard
    assert CANARY.encode() in company.requests[0]


def test_a_proxy_that_refuses_has_sent_nothing(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its refusal proves that the API never heard of the call, and says where to look."""
    company = Company(authority.issue_cert(HOST), b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    def before() -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://someone:{CANARY}@127.0.0.1:{company.proxy_port}")

    with pytest.raises(NotSent, match=r"proxy does not let us through.*407.*HTTPS_PROXY") as caught:
        ask(company, TRUSTING, before)
    assert CANARY not in str(caught.value)


def test_no_proxy_and_trust_env_keep_the_proxy_out(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host in NO_PROXY is called directly; with trust_env off nothing of the environment counts."""
    company = Company(authority.issue_cert("127.0.0.1"))

    def before() -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{company.proxy_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    assert ask(company, TRUSTING, before, host="127.0.0.1") == {"id": ID}
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(Unreachable, match="certificate is not trusted"):
        ask(company, Network(), before, host="127.0.0.1")
    assert company.heard == b""


def test_an_authority_that_nobody_named_is_not_trusted(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What to do about it is said; a certificate file that can't be read is a mistake in the settings."""
    monkeypatch.delenv("SSL_CERT_FILE")
    company = Company(authority.issue_cert("127.0.0.1"))
    with pytest.raises(Unreachable, match="SSL_CERT_FILE"):
        ask(company, TRUSTING, host="127.0.0.1")
    assert company.requests == []
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(SettingsError, match="SSL_CERT_FILE holds no certificates"):
        ask(company, TRUSTING, host="127.0.0.1")


def test_custom_headers_go_with_every_call(authority: trustme.CA) -> None:
    """As the vendor's SDK reads them: one a line; what the program sets itself stays its own."""
    company = Company(authority.issue_cert("127.0.0.1"))
    headers = custom_headers("X-Gateway: team-7\n\n X-Trace:on ")
    assert ask(company, Network(True, headers), host="127.0.0.1") == {"id": ID}
    assert b"X-Gateway: team-7\r\n" in company.requests[0]
    assert b"X-Trace: on\r\n" in company.requests[0]


@pytest.mark.parametrize(
    "text", ["no colon", "Authorization: Bearer x", "host: elsewhere", "X Y: z", "X-A: caf\u00e9", "X-A: a\x07"]
)
def test_headers_that_can_not_be_sent(text: str) -> None:
    """The line is named, and never its value, which may be a secret."""
    with pytest.raises(SettingsError, match="LLAMA_CLOUD_CUSTOM_HEADERS: line 1") as caught:
        custom_headers(text)
    assert text.partition(":")[2].strip() not in str(caught.value) or ":" not in text


def test_the_words_for_doctor_hide_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy, certificates and headers are named; no credential is."""
    monkeypatch.setenv("HTTPS_PROXY", "http://someone:secret-password@proxy.corp:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/corp.pem")
    words = Network(True, {"X-Gateway": "also-secret"}).words("https://api.cloud.llamaindex.ai")
    assert "through the proxy http://proxy.corp:3128, with the certificates in SSL_CERT_FILE" in words
    assert "X-Gateway" in words
    assert "secret" not in words
    assert Network(True).words("http://127.0.0.1:8787") == "without a proxy"


@pytest.mark.parametrize("proxy", ["gopher://x", "http://[::1", "socks5://127.0.0.1:1080"])
def test_a_proxy_that_can_not_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """A mistake in the environment is one clear line, before anything is sent."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(SettingsError, match="HTTPS_PROXY"):
        Wire("https://api.example.test", CANARY, timeout_s=1, fresh_creates=True, network=TRUSTING)
