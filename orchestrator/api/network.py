"""The way to the API through a company's network: its proxy, its certificates, headers that it asks for.

Read from the environment as httpx and the vendor's SDK read it, and only for https: a plain request through a proxy
would show the key to it, where a CONNECT tunnel shows nothing but the host.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from orchestrator.errors import SettingsError

#: What this program sets itself; another value would change what is sent, or to whom.
RESERVED_HEADERS = frozenset({
    "accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "cookie", "host",
    "transfer-encoding", "user-agent",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Network:
    """How requests leave. *trust_env*: the environment's proxies and certificates count; *headers* go with each."""

    trust_env: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def trusts(self, base_url: str) -> bool:
        """Whether the environment counts for *base_url*: never for plain http."""
        return self.trust_env and urlsplit(base_url).scheme == "https"

    def certificates(self, base_url: str) -> ssl.SSLContext:
        """The authorities that may vouch for the API: ``SSL_CERT_FILE``, ``SSL_CERT_DIR``, or certifi's.

        Raises SettingsError when the environment names none that can be read.
        """
        trusted = self.trusts(base_url)
        try:
            return httpx.create_ssl_context(trust_env=trusted)
        except (OSError, ssl.SSLError) as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # no fault of any certificate's
            name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
            raise SettingsError(f"{name} holds no certificates that can be read ({error})") from None

    def proxy(self, base_url: str) -> str | None:
        """The proxy's scheme, host and port for *base_url*, without its credentials; None without a proxy."""
        parts = urlsplit(base_url)
        if not self.trusts(base_url) or proxy_bypass(parts.netloc):
            return None
        proxies = getproxies()
        found = proxies.get(parts.scheme) or proxies.get("all")
        if not found:
            return None
        proxy = urlsplit(found if "://" in found else f"http://{found}")
        return f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}"

    def words(self, base_url: str) -> str:
        """For a person: by which proxy and whose certificates, where they are not the usual ones."""
        proxy = self.proxy(base_url)
        said = [f"through the proxy {proxy}" if proxy else "without a proxy"]
        named = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        if named and self.trusts(base_url):
            said.append(f"with the certificates in {named[0]}")
        if self.headers:
            said.append(f"with the headers {', '.join(sorted(self.headers))}")
        return ", ".join(said)


def custom_headers(text: str) -> dict[str, str]:
    """``LLAMA_CLOUD_CUSTOM_HEADERS``: one ``Name: value`` a line, as the vendor's SDK reads it.

    Raises SettingsError, which never shows a value, for a line without a colon or a header that is not the user's.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not colon or not plain or not value.isascii() or not value.isprintable():
            raise SettingsError(f"LLAMA_CLOUD_CUSTOM_HEADERS: line {number} is not a header; write Name: value")
        if name.lower() in RESERVED_HEADERS:
            raise SettingsError(f"LLAMA_CLOUD_CUSTOM_HEADERS: line {number} sets {name}, which the program sets itself")
        found[name] = value
    return found
