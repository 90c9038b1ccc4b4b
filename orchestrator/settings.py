"""The settings of a run: the only reader of the environment.

``LLAMA_CLOUD_API_KEY`` and ``LLAMA_CLOUD_BASE_URL`` are spelled as in the official SDK; all else is ``ORCHESTRATOR_*``.
One ``.env`` file is read too, see ``env_file``; the environment wins over it.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.errors import SettingsError

PREFIX = "ORCHESTRATOR_"

NORTH_AMERICA = "https://api.cloud.llamaindex.ai"

#: The key in ``configs/.env.example``.
EXAMPLE_KEY = "llx-your-key-here"

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
    allow_http: bool = Field(False, description="allow http:// to another host: the key travels unencrypted")
    ledger: str | None = Field(
        None, description="path or postgresql:// URL of the ledger; default: ledger.db beside the manifest"
    )
    ledger_patience_s: Seconds = Field(
        60, description="how long a run waits for a ledger's server that is away, sending nothing, before it ends (8)"
    )
    creates_per_s: Rate = Field(40, description="most create calls a second; adapted downwards when the API says 429")
    reads_per_s: Rate = Field(80, description="most status and result calls a second; adapted in the same way")
    lists_per_s: Rate = Field(5, description="most list calls a second; adapted in the same way")
    uploads_per_s: Rate = Field(
        10, description="most uploads a second; adapted in the same way; the API takes 50 in 5 seconds"
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(60, description="longest that one call may take, in all")
    retry_budget_s: Seconds = Field(900, description="how long an outage may last before the run gives up (exit 7)")
    settle_s: Seconds = Field(
        120, description="how long the API may take to list a job that an unanswered create call made"
    )
    stale_s: Seconds = Field(7200, description="a job in flight for longer is left to the next run and reported")
    late_results_s: Seconds = Field(
        600, description="how long the results of a job that succeeded may take, before its files count as missing"
    )
    gone_s: Seconds = Field(
        3600, description="a job that the API has denied having for this long counts as gone, its files as missing"
    )
    deadline: str | None = Field(None, description="when to stop, counted from the start: 90s, 30m, 2h; default: never")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe log line shown")
    log_dir: str | None = Field(None, description="folder of the logs of runs; default: logs/ beside the ledger")
    ping_url: SecretStr | None = Field(None, description="`nightly`: the monitor that gets each start and end")
    ping_down: str | None = Field(
        None, description="`nightly`: exit codes reported to the monitor as down, such as 5,6,7; default: all but 0"
    )
    notify: SecretStr | None = Field(
        None, description="more services to notify beside the manifest's `notify`, separated by white space"
    )
    otel_endpoint: str | None = Field(
        None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="the collector that gets a span for each run and each of its jobs, by OTLP over HTTP",
    )
    traceparent: str | None = Field(
        None, validation_alias="TRACEPARENT", description="the trace that a run's span joins, as W3C writes it"
    )
    metrics_file: str | None = Field(
        None, description="the file for node_exporter that the end of each run writes; see `run --metrics-file`"
    )
    strict: bool = Field(False, description="`nightly`: exit 1 also when every failed file is known (see --known-ok)")


def env_file(manifest: str | None = None) -> Path | None:
    """The one file of settings that is read beside the environment, if there is any.

    ``ORCHESTRATOR_ENV_FILE``; else ``.env`` in the folder of *manifest* (links resolved); else ``.env`` in the current
    folder.
    """
    if named := os.environ.get(f"{PREFIX}ENV_FILE"):
        places = [Path(os.path.expanduser(named))]  # noqa: PTH111 - Path.expanduser raises where there is no home
    else:
        places = [folder / ".env" for folder in (*([folder_of(manifest)] if manifest else []), Path())]
    return next((place for place in places if place.is_file()), None)


def database_passwords() -> list[str]:
    """The secrets that libpq reads from the environment to sign in; the program needs them only to hide them."""
    return [value for name in ("PGPASSWORD", "PGSSLPASSWORD") if (value := os.environ.get(name))]


def folder_of(manifest: str) -> Path:
    """The folder of *manifest*, links resolved: a link to it uses the same ledger and settings."""
    return Path(os.path.realpath(manifest)).parent


def load(manifest: str | None = None) -> Settings:
    """The settings for *manifest*. Raises SettingsError; no value ever appears in its message.

    A relative path in a setting is relative to the file it stands in, one from the environment to the manifest.
    """
    file = env_file(manifest)
    try:
        settings = Settings(_env_file=file)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0])
        name = name if name.isupper() else PREFIX + name.upper()
        raise SettingsError(f"{name}: {first['msg']}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: can't be read ({type(error).__name__})") from None
    if file is not None and settings.api_key is not None and not _in_environment():
        _refuse_shared(file)
    ledger = (settings.ledger or "").removeprefix("sqlite:///")
    if not ledger or "://" in ledger:
        return settings
    in_environment = any(name.upper() == f"{PREFIX}LEDGER" and value for name, value in os.environ.items())
    folder = folder_of(manifest) if manifest else Path.cwd()
    if file is not None and not in_environment:
        folder = file.absolute().parent
    home = os.path.expanduser(ledger)  # noqa: PTH111 - as above
    return settings.model_copy(update={"ledger": str(folder / home)})


def unknown(manifest: str | None = None) -> list[str]:
    """The variables, in the environment and the file of settings, that look like settings and are none: misspelt."""
    found = {name for name in os.environ if _misspelt(name)}
    file = env_file(manifest)
    if file is not None:
        found |= {f"{name} in {file}" for name in dotenv_values(file) if _misspelt(name)}
    return sorted(found)


def _misspelt(name: str) -> bool:
    if name.upper() in _KNOWN:
        return False
    if name.startswith(PREFIX):
        return True
    return name.startswith("LLAMA") and bool(difflib.get_close_matches(name, _VENDORS, n=1, cutoff=0.9))


#: Read by ``load`` itself.
_OTHER_READERS = ("ENV_FILE",)
_VENDORS = ("LLAMA_CLOUD_API_KEY", "LLAMA_CLOUD_BASE_URL", "LLAMA_PARSE_API_KEY")
_KNOWN = {PREFIX + name.upper() for name in (*Settings.model_fields, *_OTHER_READERS)} | {*_VENDORS}


def key_of(settings: Settings) -> str:
    """The API key. Raises SettingsError when there is none, or one that no HTTP header can carry."""
    value = settings.api_key.get_secret_value().strip() if settings.api_key else ""
    if not value:
        raise SettingsError(
            "LLAMA_CLOUD_API_KEY is not set; set it (or put it in a .env file of mode 600), or rehearse with --sandbox"
        )
    if value == EXAMPLE_KEY:
        raise SettingsError(f"LLAMA_CLOUD_API_KEY is still the example ({EXAMPLE_KEY}); write your own key there")
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
    if version := re.search(r"^/api/?$|/api/v[0-9]+(/.*)?$", parts.path):
        raise SettingsError(f"LLAMA_CLOUD_BASE_URL has the path {version[0]}; leave it out, the program adds it")
    return value.rstrip("/")


def in_clear(base_url: str) -> str | None:
    """A warning where *base_url* sends the key over a network unencrypted; None where it does not."""
    parts = urlsplit(base_url)
    if parts.scheme != "http" or parts.hostname in LOOPBACK:
        return None
    return f"{base_url} is not encrypted: the key and every answer can be read on the way (ORCHESTRATOR_ALLOW_HTTP)"


def origin(base_url: str) -> str:
    """The name that the ledger gives an API: its host; one name for all ports of this machine."""
    parts = urlsplit(base_url)
    return "loopback" if parts.hostname in LOOPBACK else parts.netloc.lower()


def seconds(text: str, name: str) -> float:
    """``90s``, ``30m``, ``2h``, ``1.5h``, ``45`` as seconds. Raises SettingsError naming *name*."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"{name} {text!a} is not a duration; write 90s, 30m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def _in_environment() -> bool:
    return bool(os.environ.get("LLAMA_CLOUD_API_KEY") or os.environ.get("LLAMA_PARSE_API_KEY"))


def _refuse_shared(path: Path) -> None:
    """Raise SettingsError for a file that others can read: a key in it is no secret.

    A group may read a file of root's (0440 or 0640): so Kubernetes and Docker mount secrets.
    """
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    mounted = mode in (0o440, 0o640) and status.st_uid == 0 and status.st_gid != 0
    if mode & 0o077 and not mounted:
        raise SettingsError(f"{path} holds the API key and others can read it; run: chmod 600 {path}")
