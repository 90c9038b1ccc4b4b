"""How to run: the only reader of the environment.

``LLAMA_CLOUD_API_KEY`` and ``LLAMA_CLOUD_BASE_URL`` are spelled as in the official SDK; all else is ``ORCHESTRATOR_*``.
A ``.env`` file in the current folder (or ``ORCHESTRATOR_ENV_FILE``) is read too; the environment wins over it.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.errors import SettingsError

PREFIX = "ORCHESTRATOR_"

NORTH_AMERICA = "https://api.cloud.llamaindex.ai"

_KEY = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)
#: Nothing about these can mean another host to another parser.
_HOST_AND_PORT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_ONLY_DIGITS = re.compile(r"[0-9.]+", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Rate = Annotated[float, Field(gt=0, le=10_000)]
Seconds = Annotated[float, Field(ge=0, le=30 * 86400)]


class Settings(BaseSettings):
    """Every knob, with its default. Field names are the variables' names without ``ORCHESTRATOR_``, in lower case."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True, frozen=True
    )

    api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("LLAMA_CLOUD_API_KEY", "LLAMA_PARSE_API_KEY"), description="the API key"
    )
    base_url: str = Field(
        NORTH_AMERICA, validation_alias="LLAMA_CLOUD_BASE_URL", description="the API's region or your own host"
    )
    custom_headers: SecretStr | None = Field(
        None,
        validation_alias="LLAMA_CLOUD_CUSTOM_HEADERS",
        description="headers to send with every call, one `Name: value` a line, as the official SDK reads them",
    )
    trust_env: bool = Field(
        True, description="use HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR from the environment, for https"
    )
    allow_http: bool = Field(False, description="allow http:// to another host: the key travels in clear")
    ledger: str | None = Field(None, description="path of the ledger; default: ledger.db beside the manifest")
    creates_per_s: Rate = Field(40, description="most create calls a second; adapted downwards when the API says 429")
    reads_per_s: Rate = Field(80, description="most status and result calls a second, likewise")
    lists_per_s: Rate = Field(5, description="most list calls a second, likewise")
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(60, description="longest that one call may take, in all")
    retry_budget_s: Seconds = Field(900, description="how long an outage may last before the run gives up (exit 7)")
    settle_s: Seconds = Field(
        120, description="how long the API may take to show a job that it made of an unanswered create call"
    )
    stale_s: Seconds = Field(7200, description="a job in flight for longer is left to the next run and reported")
    deadline: str | None = Field(None, description="when to stop, counted from the start: 90s, 30m, 2h; default: never")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe log line shown")


def load() -> Settings:
    """The settings of this process. Raises SettingsError; no value ever appears in its message."""
    env_file = Path(os.environ.get(f"{PREFIX}ENV_FILE") or ".env")
    try:
        settings = Settings(_env_file=env_file if env_file.is_file() else None)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0])
        name = name if name.isupper() else PREFIX + name.upper()
        raise SettingsError(f"{name}: {first['msg']}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{env_file}: can't be read ({type(error).__name__})") from None
    if settings.api_key is not None and not _in_environment():
        _refuse_shared(env_file)
    return settings


def unknown() -> list[str]:
    """Variables that look like settings and are none: most likely misspelt."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {PREFIX + name for name in _OTHER_READERS}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


#: Read by ``load`` itself and by ``scripts/nightly``.
_OTHER_READERS = ("ENV_FILE", "LOG_DIR", "PING_URL")


def key_of(settings: Settings) -> str:
    """The API key. Raises SettingsError when there is none, or one that no HTTP header can carry."""
    value = settings.api_key.get_secret_value().strip() if settings.api_key else ""
    if not value:
        raise SettingsError(
            "LLAMA_CLOUD_API_KEY is not set; set it (or put it in a .env file of mode 600), or rehearse with --sandbox"
        )
    if not _KEY.fullmatch(value):
        raise SettingsError("LLAMA_CLOUD_API_KEY has characters that no key has (spaces, line breaks or not ASCII)")
    return value


def checked_base_url(value: str, *, allow_http: bool = False) -> str:
    """*value* without a trailing slash. Raises SettingsError unless it is https, or http on loopback, and plain.

    *allow_http*: http to any host.
    """
    if any(ord(c) < 0x21 or ord(c) > 0x7E or c == "\\" for c in value):
        raise SettingsError("LLAMA_CLOUD_BASE_URL has characters that no URL has")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
        if host and _ONLY_DIGITS.fullmatch(host):
            IPv4Address(host)
    except ValueError:
        raise SettingsError("LLAMA_CLOUD_BASE_URL: the host or the port can't be read") from None
    if parts.scheme not in ("https", "http") or not host:
        raise SettingsError(f"LLAMA_CLOUD_BASE_URL must begin with https:// and name a host, such as {NORTH_AMERICA}")
    if not _HOST_AND_PORT.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise SettingsError("LLAMA_CLOUD_BASE_URL must hold a plain host, no user name, no query and no fragment")
    if parts.scheme == "http" and host not in LOOPBACK and not allow_http:
        raise SettingsError(
            "LLAMA_CLOUD_BASE_URL must be https:// (http:// is for this machine only): it carries the key; "
            "inside one cluster ORCHESTRATOR_ALLOW_HTTP=1 allows it"
        )
    return value.rstrip("/")


def in_clear(base_url: str) -> str | None:
    """A warning where *base_url* sends the key over a network unencrypted; None where it does not."""
    parts = urlsplit(base_url)
    if parts.scheme != "http" or parts.hostname in LOOPBACK:
        return None
    return f"{base_url} is not encrypted: the key and every answer can be read on the way (ORCHESTRATOR_ALLOW_HTTP)"


def origin(base_url: str) -> str:
    """What tells one API from another in the ledger: the host; on this machine any port."""
    parts = urlsplit(base_url)
    return "loopback" if parts.hostname in LOOPBACK else parts.netloc.lower()


def seconds(text: str, name: str) -> float:
    """``90s``, ``30m``, ``2h``, ``1.5h``, ``45`` as seconds. Raises SettingsError naming *name*."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"{name} {text!a} is not a duration; write 90s, 30m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def table() -> list[tuple[str, str, str]]:
    """Variable, default, meaning: for ``doctor`` and the documentation."""
    rows = []
    for name, field in Settings.model_fields.items():
        alias: Any = field.validation_alias
        variable = alias.choices[0] if isinstance(alias, AliasChoices) else alias or PREFIX + name.upper()
        default = (
            ""
            if field.default is None
            else f"{field.default:g}"
            if isinstance(field.default, float | int)
            else field.default
        )
        rows.append((str(variable), str(default), field.description or ""))
    return rows


def _in_environment() -> bool:
    return bool(os.environ.get("LLAMA_CLOUD_API_KEY") or os.environ.get("LLAMA_PARSE_API_KEY"))


def _refuse_shared(path: Path) -> None:
    """A key in a file that others can read is not a secret."""
    if path.is_file() and path.stat().st_mode & 0o077:
        raise SettingsError(f"{path} holds the API key and others can read it; run: chmod 600 {path}")
