"""The monitor of a schedule: what it gets, in which words, and that a dead one does no harm."""

from __future__ import annotations

import uuid

import httpx
import pytest

from orchestrator.commands.announcing.pings import MOST_BODY, PAUSE_S, TRIES, Monitor, rid

RUN = "20261127T042000Z-ab12cd"


class Seen:
    """A monitor that answers each call with the next of *statuses*, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.calls: list[tuple[str, bytes]] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append((str(request.url), request.content))
        return httpx.Response(self.statuses.pop(0) if self.statuses else 200)

    def at(self, url: str, *down: int) -> Monitor:
        codes = frozenset(down) or None
        return Monitor(url, codes, transport=httpx.MockTransport(self), sleep=self.slept.append)


def test_a_check_is_told_of_start_and_end_under_one_uuid() -> None:
    """The end has the exit code in its path and the summary as its body."""
    seen = Seen()
    monitor = seen.at("https://hc.example/check/")
    assert monitor.start(RUN)
    assert monitor.end(RUN, 5, "exit 5: the API refuses the key")
    assert seen.calls == [
        (f"https://hc.example/check/start?rid={rid(RUN)}", b""),
        (f"https://hc.example/check/5?rid={rid(RUN)}", b"exit 5: the API refuses the key"),
    ]
    assert str(uuid.UUID(rid(RUN))) == rid(RUN) != rid("another")


def test_an_end_without_a_run_has_no_uuid() -> None:
    """Nothing began that it could belong to."""
    seen = Seen()
    seen.at("https://hc.example/check").end(None, 2, "")
    assert seen.calls[0][0] == "https://hc.example/check/2"


@pytest.mark.parametrize(("code", "told"), [(0, "0"), (1, "0"), (3, "0"), (5, "5"), (7, "7")])
def test_only_the_chosen_exit_codes_count_as_down(code: int, told: str) -> None:
    """The others are reported as a success, with the true code in the body."""
    seen = Seen()
    seen.at("https://hc.example/check", 5, 7).end(None, code, "")
    assert seen.calls[0][0].endswith(f"/{told}")


@pytest.mark.parametrize(
    ("url", "code", "called"),
    [
        ("https://up.example/push/T?status=up&msg=OK", 0, "https://up.example/push/T?status=up&msg=OK"),
        ("https://up.example/push/T?status=up&msg=OK", 7, None),
        (
            "https://up.example/push/T?status={state}&msg={summary}",
            7,
            "https://up.example/push/T?status=down&msg=n%3A%20exit%207",
        ),
        ("https://up.example/push/T?status={state}", 0, "https://up.example/push/T?status=up"),
        ("https://up.example/{state}/{exit}", 3, "https://up.example/down/3"),
    ],
)
def test_a_url_with_a_query_or_a_placeholder_is_kept_whole(url: str, code: int, called: str | None) -> None:
    """It is called once, at the end; one that always means "up" is not called by a bad night."""
    seen = Seen()
    assert seen.at(url).start(RUN)
    assert seen.at(url).end(RUN, code, f"n: exit {code}\nmore")
    assert [call for call, _ in seen.calls] == ([] if called is None else [called])


def test_three_tries_and_then_the_night_goes_on() -> None:
    """Whether the monitor answers badly or not at all."""
    seen = Seen(500, 502)
    assert seen.at("https://hc.example/check").end(RUN, 0, "")
    assert (len(seen.calls), seen.slept) == (TRIES, [PAUSE_S] * (TRIES - 1))

    def dead(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("no answer")

    transport = httpx.MockTransport(dead)
    assert not Monitor("https://hc.example/check", transport=transport, sleep=seen.slept.append).end(RUN, 0, "")
    assert not Monitor("no url at all", sleep=seen.slept.append).start(RUN)


@pytest.mark.parametrize("character", ["a", "\N{SNOWMAN}"])
def test_the_body_has_at_most_a_hundred_kilobytes(character: str) -> None:
    """Cut between two characters."""
    seen = Seen()
    seen.at("https://hc.example/check").end(RUN, 0, character * MOST_BODY)
    assert MOST_BODY - 3 < len(seen.calls[0][1]) <= MOST_BODY
    assert seen.calls[0][1].decode().strip(character) == ""
