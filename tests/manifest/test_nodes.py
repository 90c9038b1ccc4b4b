"""The YAML layer: hostile or foreign files are refused quickly, and both parsers read alike."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orchestrator.manifest.nodes import LOADER, MAX_BYTES, Entries, Items, Loader, Node, Scalar, parse

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {x: y}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10))

BOMBS: dict[str, Callable[[], str]] = {
    "aliases": lambda: LAUGHS,
    "merge keys": lambda: MERGES,
    "a million anchors": lambda: "".join(f"- &a{n}\n" for n in range(400_000)),
    "a million aliases": lambda: "a: &a x\nb: [" + "*a , " * 900_000 + "]",
    "a self-containing list": lambda: "&a [*a]",
    "100,000 open brackets": lambda: "[" * 100_000,
    "100,000 open braces": lambda: "{a: " * 100_000,
    "100,000 dashes": lambda: "- " * 100_000,
    "100,000 question marks": lambda: "? " * 100_000,
    "100,000 brackets on their own lines": lambda: "\n".join(" " * (n % 900) + "[" for n in range(10_000)),
    "ever deeper indentation": lambda: "".join(f"{' ' * n}a:\n" for n in range(3000)),
    "a million empty lists": lambda: "a: [" + "[]," * 1_000_000 + "]",
    "300,000 unknown keys": lambda: "".join(f"k{n:06}: {n}\n" for n in range(300_000)),
    "90,000 unknown keys": lambda: "".join(f"k{n:06}: {n}\n" for n in range(90_000)),
    "300,000 equal keys": lambda: "name: a\n" * 300_000,
    "90,000 bad rules": lambda: "version: 1\nrules: [" + "a," * 90_000 + "]",
    "a 4 MB key": lambda: f"? {'k' * 4_000_000}\n: v",
    "a 4 MB number": lambda: f"version: 1\nchunk_size: {'9' * 4_000_000}",
    "a 4 MB header name": lambda: f"webhook_configurations: [{{webhook_headers: {{? {'(' * 4_000_000} : x}}}}]",
    "4 MB of variables": lambda: f"webhook_configurations: [{{webhook_url: '{'${' * 2_000_000}'}}]",
    "4 MB of escapes": lambda: 'version: "' + "\\x41" * 1_000_000 + '"',
    "100,000 documents": lambda: "--- a\n" * 100_000,
    "objects to build": lambda: "version: !!python/object/apply:os.system ['touch pwned']",
    "tag handles": lambda: "".join(f"%TAG !{n}! tag:x,2000:\n" for n in range(150_000)) + "--- a",
    "6 MB": lambda: "x" * 6_000_000,
    "5 MB of zeros": lambda: "\0" * 5_000_000,
    "5 MB of a comment": lambda: "#" * 5_000_000,
    "5 MB of empty lines": lambda: "\n" * 5_000_000,
}

CHILD = """
import resource, sys, time
from orchestrator.manifest import loading
from orchestrator.errors import ManifestError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (700_000_000, 700_000_000))
total, started = 0, time.process_time()
for number in range(2_000_000):
    total += number
yardstick, started = time.process_time() - started, time.process_time()
try:
    loading.load(sys.argv[1], environ={})
except ManifestError as error:
    used = time.process_time() - started
    print(len(error.problems), used / yardstick, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_quickly(tmp_path: Path, name: str) -> None:
    """A hostile manifest ends in problems within a second or so of work and a bounded memory, never in a crash.

    The work is told in yardsticks of two million turns of a loop, as one machine is three times as fast as another.
    """
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[name](), "utf-8")
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (child.returncode, child.stderr) == (0, "")
    problems, work, megabytes = map(float, child.stdout.split())
    assert 1 <= problems <= 101
    assert work < 12
    assert megabytes < 300
    assert not (tmp_path / "pwned").exists()


LOADERS = pytest.mark.parametrize(
    "loader", list(dict.fromkeys([LOADER, yaml.BaseLoader])), ids=lambda loader: loader.__name__
)


@LOADERS
@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        ("a: é".encode("utf-16"), (1, 1), "the file is UTF-16; save it as UTF-8"),
        ("a: b".encode("utf-16-le"), (1, 2), "the file is binary or UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0", (1, 1), "this is not UTF-8 text; save the file as UTF-8"),
        ("a: b\nc: é".encode("latin-1"), (2, 4), "this is not UTF-8 text"),
        (b"a: b\nc: \x1b[31m", (2, 4), "the file holds the character U+001B"),
        ("a: b\nü: \u2028".encode(), (2, 4), "the file holds the character U+2028"),
        (b"a: b\n\tc: d", (2, 1), "a tab indents this line; indent with spaces"),
        (b"a:\n  - b\n\t- c", (3, 1), "a tab indents this line; indent with spaces"),
        (b"\xef\xbb\xbfa: 1\nb: *c", (2, 4), "an alias (*) is not supported"),
        (b"a: 1\r\nb: *c\r\n", (2, 4), "an alias (*) is not supported"),
        ("é: 'é'\nb: [é, *c]".encode(), (2, 8), "an alias (*) is not supported"),
        (b"# x\n%TAG ! tag:x,2000:\n--- !a b", (2, 1), "a %TAG directive is not supported"),
        (b"a: 1\n---\nb: 1", (2, 1), "a second document starts here"),
        (b"[" * 21, (1, 21), "nested more than 20 levels deep"),
        (b"a: [b, c\nd: e\n", (1, 4), "a bracket that is opened must be closed"),
        (b"a: 'b\nc: d\n", (1, 4), "a quote or bracket that is opened must be closed"),
        (b'a: "\\q"', (1, 5), "a backslash is written"),
        (b"a: b: c", (1, 5), "put quotes around a text that contains `: `"),
    ],
)
def test_a_foreign_file_says_what_it_is(data: bytes, place: tuple[int, int], words: str, loader: Loader) -> None:
    """Each kind of file that is not one plain YAML document is told apart, at the right place, by either parser."""
    root, (problem,) = parse(data, "m.yaml", loader)
    assert root is None
    assert words in problem.message
    if not data.startswith((b"[[", b"a: [", b"a: b\n\t", b"a:\n", b'a: "')):  # the two parsers notice these elsewhere
        assert (problem.line, problem.column) == place


def plain(node: Node) -> object:
    match node:
        case Scalar():
            return (node.line, node.column, node.text, node.is_null)
        case Items():
            return [plain(item) for item in node.items]
        case Entries():
            return {name: plain(value) for name, value in node.values.items()}


@LOADERS
def test_scalars_stay_text_with_their_places(loader: Loader) -> None:
    """Every style of scalar arrives as its text, with its line and column counted from 1."""
    text = "a: 0123\n'b': [null, '~', ~, ]\nc: >\n  one\n  two\nd: |\n  ü\ne:\nf: {g: \"\\u00e9\\n\"}\n"
    root, problems = parse(text.encode(), "m.yaml", loader)
    assert problems == []
    assert root is not None
    assert plain(root) == {
        "a": (1, 4, "0123", False),
        "b": [(2, 7, "null", True), (2, 13, "~", False), (2, 18, "~", True)],
        "c": (3, 4, "one two\n", False),
        "d": (6, 4, "ü\n", False),
        "e": (8, 3, "", True),
        "f": {"g": (9, 8, "é\n", False)},
    }


def test_the_size_limit_points_to_lists() -> None:
    """A file over 5 MB is reported where many IDs belong; one just under is read."""
    assert "file_ids_from" in parse(b"#" * (MAX_BYTES + 1), "m.yaml")[1][0].message
    assert parse(b"a: b\n" + b"#" * (MAX_BYTES - 5), "m.yaml")[1] == []


@LOADERS
def test_half_a_character_never_gets_through_as_an_id(loader: Loader) -> None:
    """Escapes that make no whole character: libyaml refuses them, the pure parser leaves that to the field."""
    root, problems = parse(b'a: "\\ud800"', "m.yaml", loader)
    assert problems or plain(root or Items(1, 1)) == {"a": (1, 4, "\ud800", False)}
