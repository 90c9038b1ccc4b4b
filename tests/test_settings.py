"""The environment: every value checked, none repeated in a message, the key sent to no other place."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from support import documented
from support.server import CANARY

from orchestrator import settings
from orchestrator.errors import SettingsError
from orchestrator.settings import Settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment and a folder with no settings in them."""
    for name in os.environ:
        if name.startswith(("ORCHESTRATOR_", "LLAMA_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def key_file(text: str | bytes, mode: int = 0o600) -> Path:
    path = Path(".env")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def with_key(key: str) -> Settings:
    return Settings(LLAMA_CLOUD_API_KEY=SecretStr(key))


def test_nothing_set_is_the_documented_default() -> None:
    """North America, the published limits."""
    loaded = settings.load()
    assert loaded.base_url == "https://api.cloud.llamaindex.ai"
    assert (loaded.creates_per_s, loaded.reads_per_s, loaded.lists_per_s) == (40, 80, 5)
    assert loaded.api_key is None


@pytest.mark.parametrize("name", ["LLAMA_CLOUD_API_KEY", "LLAMA_PARSE_API_KEY"])
def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Under both names that the official SDK reads."""
    monkeypatch.setenv(name, CANARY)
    assert settings.key_of(settings.load()) == CANARY


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an empty variable counts as none."""
    key_file(f"LLAMA_CLOUD_API_KEY={CANARY}\nORCHESTRATOR_SETTLE_S=7\n")
    monkeypatch.setenv("ORCHESTRATOR_SETTLE_S", "9")
    monkeypatch.setenv("LLAMA_CLOUD_API_KEY", "")
    loaded = settings.load()
    assert (settings.key_of(loaded), loaded.settle_s) == (CANARY, 9)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o620])
def test_a_key_file_that_others_can_reach_is_refused(mode: int) -> None:
    """It says what to do; the key is not in it."""
    key_file(f"LLAMA_CLOUD_API_KEY={CANARY}\n", mode)
    with pytest.raises(SettingsError, match="chmod 600") as caught:
        settings.load()
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_key_file_is_read(mode: int) -> None:
    """By us alone."""
    key_file(f"LLAMA_CLOUD_API_KEY={CANARY}\n", mode)
    assert settings.key_of(settings.load()) == CANARY


def test_a_shared_file_without_a_key_is_fine() -> None:
    """Limits are no secret."""
    key_file("ORCHESTRATOR_SETTLE_S=7\n", 0o644)
    assert settings.load().settle_s == 7


def test_another_file_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By ORCHESTRATOR_ENV_FILE; the one in the current folder is then not read."""
    key_file("ORCHESTRATOR_SETTLE_S=7\n").rename(tmp_path / "other.env")
    key_file("ORCHESTRATOR_SETTLE_S=9\n")
    monkeypatch.setenv("ORCHESTRATOR_ENV_FILE", str(tmp_path / "other.env"))
    assert settings.load().settle_s == 7


def test_the_manifests_own_file_is_read_and_no_other(tmp_path: Path) -> None:
    """A run from another folder is sent to the same account; through a link, too."""
    (tmp_path / "work").mkdir()
    key_file("ORCHESTRATOR_SETTLE_S=7\n").rename(tmp_path / "work" / ".env")
    key_file("ORCHESTRATOR_SETTLE_S=9\nORCHESTRATOR_STALE_S=9\n")
    (tmp_path / "work" / "m.yaml").touch()
    (tmp_path / "link.yaml").symlink_to(tmp_path / "work" / "m.yaml")
    for manifest in ("work/m.yaml", str(tmp_path / "work" / "m.yaml"), "link.yaml"):
        loaded = settings.load(manifest)
        assert (loaded.settle_s, loaded.stale_s) == (7, 7200)
        assert settings.env_file(manifest) == tmp_path / "work" / ".env"


def test_without_one_beside_the_manifest_the_current_folders_file_is_read(tmp_path: Path) -> None:
    """And with no manifest that alone."""
    (tmp_path / "work").mkdir()
    key_file("ORCHESTRATOR_SETTLE_S=9\n")
    assert settings.load("work/m.yaml").settle_s == settings.load().settle_s == 9
    assert settings.env_file("work/m.yaml") == Path(".env")


@pytest.mark.parametrize("value", ["~/x.db", "sqlite:///~/x.db"])
def test_a_home_folder_in_a_setting_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
    """And no folder named ``~`` is made."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    key_file(f"ORCHESTRATOR_LEDGER={value}\n")
    assert settings.load().ledger == str(tmp_path / "home" / "x.db")
    monkeypatch.setenv("ORCHESTRATOR_LEDGER", value)
    assert settings.load("m.yaml").ledger == str(tmp_path / "home" / "x.db")


def test_a_relative_setting_is_relative_to_where_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To the file's folder; from the environment to the manifest's; never to the folder the run starts in."""
    (tmp_path / "work").mkdir()
    key_file("ORCHESTRATOR_LEDGER=a.db\n").rename(tmp_path / "work" / ".env")
    assert settings.load("work/m.yaml").ledger == str(tmp_path / "work" / "a.db")
    monkeypatch.setenv("ORCHESTRATOR_LEDGER", "b.db")
    assert settings.load("work/m.yaml").ledger == str(tmp_path / "work" / "b.db")
    assert settings.load().ledger == str(tmp_path / "b.db")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(
    ("mode", "owner", "group", "fine"),
    [
        (0o440, 0, 1000, True),
        (0o640, 0, 1000, True),
        (0o660, 0, 1000, False),
        (0o444, 0, 1000, False),
        (0o440, 1000, 1000, False),
        (0o640, 0, 0, False),
    ],
)
def test_a_mounted_secret_is_read(mode: int, owner: int, group: int, fine: bool) -> None:
    """Kubernetes and Docker mount secrets as root's, readable by the group of the process."""
    os.chown(key_file(f"LLAMA_CLOUD_API_KEY={CANARY}\n", mode), owner, group)
    if fine:
        assert settings.key_of(settings.load()) == CANARY
        return
    with pytest.raises(SettingsError, match="chmod 600"):
        settings.load()


def test_a_file_of_other_bytes_is_refused_without_its_content() -> None:
    """Latin-1, or a binary that was named by mistake."""
    key_file(b"LLAMA_CLOUD_API_KEY=" + CANARY.encode() + b"\xff\xfe\n")
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("padding", ["\n", "\r\n", " ", "\t", "\n\n"])
def test_blanks_around_the_key_are_dropped(padding: str) -> None:
    """``echo`` and editors add them; a header can't carry them."""
    assert settings.key_of(with_key(f"{padding}{CANARY}{padding}")) == CANARY


@pytest.mark.parametrize(
    "inside", ["\n", "\r\nX-Evil: 1", " ", "\x00", "\x7f", "é", "\u200b", "\ufeff", "１", "\ud800"], ids=ascii
)
def test_a_key_that_no_header_can_carry_is_refused_unseen(inside: str) -> None:
    """httpx would print it in its own error."""
    with pytest.raises(SettingsError, match="LLAMA_CLOUD_API_KEY") as caught:
        settings.key_of(with_key(CANARY + inside + "z"))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("key", ["", " ", "\n", "x" * 513])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    """Empty, blank, or longer than any header should be."""
    with pytest.raises(SettingsError):
        settings.key_of(with_key(key))


def test_settings_do_not_show_the_key() -> None:
    """However they are printed."""
    loaded = with_key(CANARY)
    assert CANARY not in f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()}"


BAD = [
    ("ORCHESTRATOR_CREATES_PER_S", ["0", "-1", "10001", "nan", "inf", "x"]),
    ("ORCHESTRATOR_TIMEOUT_S", ["0", "-1", "3601", "nan", "x"]),
    ("ORCHESTRATOR_SETTLE_S", ["-1", "nan", "inf", "1e9", "２"]),
    ("ORCHESTRATOR_RETRY_BUDGET_S", ["-0.1", "nan", "inf"]),
    ("ORCHESTRATOR_LOG_LEVEL", ["LOUD", "debug ", "0"]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD for value in values])
def test_a_wrong_value_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """It may be a key in the wrong variable."""
    for given_ in (value, CANARY + value):
        monkeypatch.setenv(name, given_)
        with pytest.raises(SettingsError, match=name) as caught:
            settings.load()
        assert CANARY not in str(caught.value)
        assert caught.value.__cause__ is None


def test_the_validators_own_words_show_no_value() -> None:
    """Wherever they may be printed: pydantic's messages would hold the raw input, keys included."""
    with pytest.raises(ValidationError) as caught:
        Settings(LLAMA_CLOUD_API_KEY=SecretStr(CANARY), settle_s=CANARY)
    assert CANARY not in f"{caught.value} {caught.value!r}"


def test_misspelt_variables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name; real ones are not among them."""
    for name in ("ORCHESTRATOR_SETLE_S", "ORCHESTRATOR_SETTLE_S", "ORCHESTRATOR_ENV_FILE"):
        monkeypatch.setenv(name, "1")
    assert settings.unknown() == ["ORCHESTRATOR_SETLE_S"]


def test_misspelt_variables_of_the_file_and_the_vendor_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they stand; what belongs to other programs is left alone."""
    key_file("ORCHESTRATOR_LEGDER=x\nLLAMACLOUD_BASE_URL=https://x\nLLAMA_CLOUD_API_KEY=k\nPATH_TO=x\n")
    for name in ("LLAMA_CLOUD_APIKEY", "LLAMA_CLOUD_PROJECT_ID", "LLAMA_DEPLOY_PROJECT_ID", "LLAMA_PARSE_API_KEY"):
        monkeypatch.setenv(name, "x")
    found = ["LLAMACLOUD_BASE_URL in .env", "LLAMA_CLOUD_APIKEY", "ORCHESTRATOR_LEGDER in .env"]
    monkeypatch.delenv("ORCHESTRATOR_ENV_FILE", raising=False)
    assert settings.unknown() == found


@pytest.mark.parametrize(
    "url",
    [
        "https://api.cloud.llamaindex.ai",
        "https://api.cloud.eu.llamaindex.ai",
        "https://llama.example:8443/base/path",
        "http://127.0.0.1:8787",
        "http://localhost:8787",
        "http://[::1]:8787",
        "https://[2001:db8::1]",
    ],
)
def test_a_plain_url_is_taken(url: str) -> None:
    """Without its trailing slashes."""
    assert settings.checked_base_url(url) == url
    assert settings.checked_base_url(url + "/") == url


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v1", "/base/api/v2", "/api/v1/classifier/jobs"])
def test_a_url_that_has_the_programs_own_path_is_named(path: str) -> None:
    """It would be called twice over, and 404 would look as if the API were gone."""
    with pytest.raises(SettingsError, match=r"has the path .*; leave it out"):
        settings.checked_base_url(f"https://api.example{path}")


HOSTILE = [
    "",
    "api.cloud.eu.llamaindex.ai",
    "//api.example",
    "https://",
    "https:///path",
    "https:api.example",
    "ftp://api.example",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "http://api.example",
    "http://127.0.0.1.evil.example",
    "http://localhost.evil.example",
    "http://127.1",
    "http://0x7f.0.0.1",
    "http://2130706433",
    "http://[::ffff:127.0.0.1]",
    "http://0.0.0.0",
    "https://user@api.example",
    "https://user:pass@api.example",
    "https://api.example@evil.example",
    "https://@api.example",
    "https://api.example\\@evil.example",
    "https://api.example/\\evil.example",
    "https://api.example?x=1",
    "https://api.example#x",
    "https://api.example:port",
    "https://api.example:99999",
    "https://api.example:-1",
    "https://[::1",
    "https://::1]",
    "https://[not-an-address]",
    "https://api.example\n",
    "https://api.example\r\nHost: evil.example",
    "https://api.exam ple",
    " https://api.example",
    "https://api.example\t",
    "https://api.example\x00.evil.example",
    "https://аpi.example",
    "https://api。example",
    "https://api．example",
    "https://api.example\u2044evil.example",
]


@pytest.mark.parametrize("url", HOSTILE, ids=ascii)
def test_a_hostile_url_is_refused(url: str) -> None:
    """No scheme, no TLS off this machine, a second host, a user name, or characters that parsers disagree about."""
    with pytest.raises(SettingsError, match="LLAMA_CLOUD_BASE_URL"):
        settings.checked_base_url(url)


@pytest.mark.parametrize(
    "url",
    [f"https://{CANARY}@api.example", f"https://api.example?key={CANARY}", f"http://{CANARY}", f"https://[{CANARY}"],
)
def test_a_refused_url_is_not_shown(url: str) -> None:
    """It may hold a password."""
    with pytest.raises(SettingsError) as caught:
        settings.checked_base_url(url)
    assert CANARY not in str(caught.value)


URLS = st.one_of(
    st.text(),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["https://", "http://", "HTTPS://", "https:/", "//"]),
        st.lists(
            st.sampled_from(
                [*"@:/\\?#[];%.,&=~|^`{}<>'\"* \t\n", "%2f", "%40", "%00", "a", "evil.example", "127.0.0.1"]
            ),
            max_size=6,
        ).map("".join),
        st.sampled_from(["api.example", "127.0.0.1", "[::1]", "localhost", ""]),
        st.lists(st.sampled_from([*"@:/\\?#[]%.;", ":80", ":0", "b", "evil.example"]), max_size=5).map("".join),
    ),
)


@given(URLS)
@hypothesis.settings(max_examples=500)
def test_any_text_is_refused_or_means_one_host_to_everyone(value: str) -> None:
    """The host that was checked is the host that the HTTP library will connect to, and TLS is on."""
    try:
        url = settings.checked_base_url(value)
    except SettingsError as error:
        assert str(error).startswith("LLAMA_CLOUD_BASE_URL")
        return
    parsed, checked = httpx.URL(url), urlsplit(url)
    assert (parsed.scheme, parsed.host, parsed.userinfo) == (checked.scheme, checked.hostname, b"")
    assert parsed.scheme == "https" or parsed.host in ("127.0.0.1", "localhost", "::1")
    call = parsed.copy_with(raw_path=parsed.raw_path.rstrip(b"/") + b"/api/v2/classify")
    assert (call.host, call.port) == (parsed.host, parsed.port)
    assert settings.origin(url) in ("loopback", checked.netloc.lower())


def test_the_origin_tells_one_api_from_another() -> None:
    """Two regions are two; upper case is not; the ports of this machine are all one sandbox."""
    assert settings.origin("https://API.example") == settings.origin("https://api.example/base") == "api.example"
    assert settings.origin("https://api.example:8443") == "api.example:8443"
    assert settings.origin("http://127.0.0.1:1") == settings.origin("http://localhost:2") == "loopback"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1.5h", 5400),
        ("45", 45),
        ("1d", 86400),
        ("250ms", 0.25),
        (" 2 h ", 7200),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    """A number and a unit; without one, seconds."""
    assert settings.seconds(text, "--deadline") == seconds


@pytest.mark.parametrize("text", ["", "h", "-1s", "1h30m", "２h", "1e3", "nan", "inf", "1_0s", "2 hours", "\x1b[2J"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """In words that name the option and can be printed."""
    with pytest.raises(SettingsError, match="--deadline") as caught:
        settings.seconds(text, "--deadline")
    assert str(caught.value).isprintable()


def test_the_table_names_every_variable() -> None:
    """The documentation is made from it; no default is a secret and every line says what it is for."""
    rows = documented.table()
    assert len(rows) == len(Settings.model_fields)
    for variable, _, meaning in rows:
        assert variable.isupper()
        assert meaning
