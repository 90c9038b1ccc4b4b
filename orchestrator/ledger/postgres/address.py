"""A ledger's place on a server, as ``--ledger`` names it: a URL of libpq's, without a password."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from orchestrator.errors import SettingsError

SCHEMES = ("postgresql", "postgres")

#: What libpq takes as a secret. They belong into its password file or the environment: a command line is public.
_SECRETS = ("password", "sslpassword")

_ELSEWHERE = "put it into ~/.pgpass, PGPASSFILE, PGSERVICE or PGPASSWORD"


@dataclass(frozen=True, slots=True)
class Server:
    """A ledger in a database of PostgreSQL."""

    url: str  #: as libpq reads it; holds no secret

    def __str__(self) -> str:
        return self.url

    def absolute(self) -> Self:
        """It means the same from every folder; a file's path has this method too."""
        return self


def is_server(option: str) -> bool:
    """Whether *option* names a PostgreSQL server, well or badly."""
    return option.split(":", 1)[0].lower() in SCHEMES and ":" in option


def locate(option: str) -> Server:
    """The place that a ``--ledger`` or ``ORCHESTRATOR_LEDGER`` value names. Raises SettingsError; never repeats it."""
    try:
        parts = urlsplit(option)
        query = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    except ValueError:
        raise _malformed() from None
    if not re.match(r"postgres(ql)?://", option) or any(ord(c) < 0x21 or ord(c) == 0x7F for c in option):
        raise _malformed()
    if ":" in parts.netloc.rpartition("@")[0] or query.intersection(_SECRETS):
        raise SettingsError(
            f"--ledger postgresql://…: a password in a ledger's URL can be seen by others; {_ELSEWHERE}"
        )
    if parts.fragment:
        raise _malformed()
    try:
        from psycopg import ProgrammingError, conninfo
    except ImportError:
        raise SettingsError(
            "--ledger postgresql://…: the driver is missing; install it with: pip install 'orchestrator[postgres]'"
        ) from None
    try:
        conninfo.conninfo_to_dict(option)
    except ProgrammingError:
        raise _malformed() from None
    return Server(option)


def _malformed() -> SettingsError:
    return SettingsError(
        "--ledger postgresql://…: not a URL that libpq reads; write postgresql://USER@HOST:PORT/DATABASE"
    )
