"""One request at a time to one origin: bounded in time and size, never redirected, and never to another host.

Whatever happens comes back as JSON or as one of our errors (see ``status_codes``).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial

import httpx

from orchestrator.api import status_codes
from orchestrator.api.counting import Calls, counted
from orchestrator.api.dialect import Call
from orchestrator.api.hiding import Hiding
from orchestrator.api.network import Network
from orchestrator.errors import Ambiguous, ApiError, NotSent, SettingsError
from orchestrator.models import Json

#: Most bytes of one answer that are read; 500 results are some 300 kB.
MAX_BODY_BYTES = 32 * 1024 * 1024

#: How long a connection may take to be made, name look-up included; and at least, however near the deadline is.
CONNECT_TIMEOUT_S, LEAST_CONNECT_S = 10.0, 0.1

#: Connections kept; callers are bounded to as many, as httpx searches its queue of waiters for every answer.
MAX_CONNECTIONS = 256

OWN_HEADERS = {"user-agent": "orchestrator", "accept": "application/json", "accept-encoding": "identity"}


class Wire:
    """Sends one request at a time to one origin."""

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout_s: float,
        fresh_creates: bool,
        secrets: Sequence[str] = (),
        network: Network = Network(),  # noqa: B008 - frozen
        transport: httpx.AsyncBaseTransport | None = None,
        may_send: Callable[[], bool] | None = None,
    ) -> None:
        """*fresh_creates*: creates never reuse a connection, as one that the API has just closed looks like a call
        that may have been sent. *secrets*: what no words of the API's may repeat. *transport* is for tests.
        *may_send* is asked just before the first byte of a create call or an upload leaves.

        Raises SettingsError for a proxy or certificates in the environment that can't be used.
        """
        self._origin = httpx.URL(base_url)
        self._timeout_s = timeout_s
        self._key = key
        self._hiding = Hiding(key, secrets)
        self._may_send = may_send
        self.requests: Calls = Counter()
        self.server_time: datetime | None = None
        reads = httpx.Limits(max_connections=None, max_keepalive_connections=MAX_CONNECTIONS)
        creates = httpx.Limits(max_connections=None, max_keepalive_connections=0) if fresh_creates else reads
        build = partial(
            httpx.AsyncClient,
            transport=transport,
            verify=network.certificates(base_url),
            trust_env=network.trusts(base_url),
            follow_redirects=False,
            timeout=self._timeouts(None),
            headers={**network.headers, **OWN_HEADERS},
        )
        try:
            self._reading, self._creating = build(limits=reads), build(limits=creates)
        except (ValueError, ImportError, httpx.InvalidURL):  # never its words: the URL may hold a password
            raise SettingsError("the proxy in HTTPS_PROXY or ALL_PROXY can't be used; write http://host:port") from None

    def _timeouts(self, left_s: float | None) -> httpx.Timeout:
        """*left_s*: to the deadline; a call without a connection by then is not to leave any more."""
        connect_s = CONNECT_TIMEOUT_S if left_s is None else max(min(left_s, CONNECT_TIMEOUT_S), LEAST_CONNECT_S)
        return httpx.Timeout(self._timeout_s, connect=min(connect_s, self._timeout_s))

    async def send(self, call: Call, *, kind: str, left_s: float | None = None) -> Json:
        """One attempt, over within ``timeout_s``; *left_s*: to the run's deadline. Raises ApiError."""
        with counted(self.requests, kind):
            return await self._send(call, kind, left_s)

    async def _send(self, call: Call, kind: str, left_s: float | None) -> Json:
        buying = kind in ("create", "upload")
        client = self._creating if buying else self._reading
        url = self._origin.copy_with(raw_path=self._origin.raw_path.rstrip(b"/") + call.path.encode("ascii"))
        headers, content = self._headers(call), _content(call)
        last_look = {"trace": self._last_look} if buying and self._may_send is not None else None
        try:
            async with asyncio.timeout(self._timeout_s + call.extra_s):
                request = client.build_request(
                    call.method,
                    url,
                    params=call.query,
                    content=content,
                    headers=headers,
                    timeout=self._timeouts(left_s),
                    extensions=last_look,
                )
                response = await client.send(request, stream=True)
                try:
                    body = await self._read(response)
                finally:
                    await response.aclose()
                    client.cookies.clear()  # the key alone says who asks
        except ApiError:
            raise
        except Exception as error:
            raise status_codes.of_transport(error) from error
        self.server_time = status_codes.http_date(response.headers.get("date", "")) or self.server_time
        if call.empty_answer and response.is_success:
            return None
        try:
            answer = status_codes.of_response(
                response.status_code, response.headers, body, creating=kind == "create", cancelling=kind == "cancel"
            )
        except ApiError as error:
            self._hiding.of_error(error)
            raise
        return self._hiding.of(answer, body)

    def _headers(self, call: Call) -> dict[str, str]:
        kind = {} if call.body is None else {"content-type": "application/json"}
        return {"authorization": f"Bearer {self._key}", **dict(call.headers), **kind}

    async def _last_look(self, event: str, _: object) -> None:
        """Raise NotSent where the run may not send any more: a process can stand still after its last question."""
        if event.endswith("send_request_headers.started") and self._may_send is not None and not self._may_send():
            raise NotSent("the ledger has not been heard of for too long, so the call was not sent")

    async def _read(self, response: httpx.Response) -> bytes:
        """The body as it came, bounded. A compressed one is refused: nobody asked for it, and it can be a bomb."""
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise Ambiguous("the API's answer is compressed, unasked", created=response.is_success)
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise Ambiguous(f"the API's answer is over {MAX_BODY_BYTES} bytes", created=response.is_success)
        return bytes(body)

    async def close(self) -> None:
        await self._reading.aclose()
        await self._creating.aclose()


def _content(call: Call) -> bytes | AsyncIterator[bytes] | None:
    if call.body is not None:
        return json.dumps(call.body).encode()
    return None if call.stream is None else call.stream()
