"""Each mistake in a manifest is reported once, at its place, with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ManifestError, Problem
from orchestrator.manifest import loading

GOOD = """\
version: 1
name: letters
api: v1
mode: FAST
parsing_configuration: {lang: en, max_pages: 5}
rules:
  - type: invoice
    description: contains line items and a total
  - type: receipt
    description: proof of a payment already made
file_ids:
  - 182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26e
  - dfl-1
webhook_configurations:
  - webhook_url: https://example.com/hook
    webhook_headers: {Authorization: Bearer x}
chunk_size: 100
review: {below_confidence: 0.6}
limits: {max_files: 10}
"""

CHUNK, IDS, LANG, MODE = "chunk_size: 100", "  - dfl-1", "{lang: en, max_pages: 5}", "mode: FAST"
LIMITS, URL = "limits: {max_files: 10}", "https://example.com/hook"

# what is replaced in GOOD, by what, and then the one problem's line, column and words
ONE_MISTAKE = [
    ("version: 1\n", "", 1, 1, "the manifest has no `version`; add it"),
    ("version: 1\n", "version: 2\n", 1, 10, "version '2' is unknown; write 1"),
    ("version: 1\n", "version: '1'\n", 1, 10, "version is text in quotes, not a number; write 1"),
    ("name: letters\n", "", 1, 1, "the manifest has no `name`; add it"),
    ("name: letters", "name:", 2, 6, "name is empty; a name is letters"),
    ("name: letters", "name: a/b", 2, 7, "name is 'a/b'; a name is letters"),
    ("name: letters", "name: ..", 2, 7, "name is '..'; a name is letters, digits, -, _ and ., and not only dots"),
    ("name: letters", f"name: {'x' * 65}", 2, 7, "name has 65 characters; 1 to 64 are allowed"),
    ("name: letters", "name: [a]", 2, 7, "name must be text, not a list"),
    ("name: letters", "nmae: x\nname: letters", 2, 1, "unknown key 'nmae'; did you mean `name`?"),
    ("name: letters", "zzz: x\nname: letters", 2, 1, "unknown key 'zzz'; the keys of the manifest are version, name"),
    ("name: letters", "name: a\nname: b", 3, 1, "this key is already given in line 2; keep one of them"),
    ("api: v1", "api: v3", 3, 6, "api is 'v3'; write v1 or v2"),
    (MODE, "mode: fast", 4, 7, "mode is 'fast'; write FAST or MULTIMODAL"),
    (f"api: v1\n{MODE}", "api: v2\nmode: MULTIMODAL", 4, 7, "mode MULTIMODAL is v1 only; use mode: FAST, or api: v1"),
    (LANG, "{lang: eng}", 5, 31, "lang 'eng' is not among the 86 codes of v1; did you mean"),
    (LANG, "{lang: zh}", 5, 31, "did you mean ch_sim or ch_tra?"),
    (LANG, "{lang: e}", 5, 31, "lang is 'e'; write a language code"),
    (LANG, "{max_pages: 0}", 5, 36, "max_pages is '0'; write a whole number from 1"),
    (LANG, "{max_pages: 1.5}", 5, 36, "max_pages is '1.5'; write a whole number"),
    (LANG, f"{{max_pages: {'9' * 5000}}}", 5, 36, "write a whole number from 1"),
    (LANG, "{target_pages: [0, -1]}", 5, 43, "target_pages[1] is '-1'; write a whole number from 0"),
    (LANG, "{target_pages: [1, 2, 1]}", 5, 46, "target_pages has this item already in line 5"),
    (LANG, "{target_pages: []}", 5, 39, "target_pages is an empty list"),
    (LANG, "{target_pages: '1,3'}", 5, 39, "target_pages must be a list, not a single value"),
    (LANG, "{max_pages: 2, target_pages: [0]}", 5, 53, "target_pages and max_pages exclude each other"),
    (LANG, "{page: 1}", 5, 25, "unknown key 'page'"),
    ("type: invoice", "type: in/voice", 7, 11, "rules[0].type is 'in/voice'; a type is 1 to 50 letters"),
    ("type: invoice", "type: ' invoice'", 7, 11, "with no space at either end"),
    ("type: invoice", f"type: {'x' * 51}", 7, 11, "rules[0].type has 51 characters; 1 to 50 are allowed"),
    ("type: receipt", "type: invoice", 9, 11, "type 'invoice' is already used in line 7; types must differ"),
    ("description: contains line items and a total", "description: too short", 8, 18, "has 9 characters; 10 to 500"),
    ("description: contains line items and a total", f"description: {'x' * 501}", 8, 18, "has 501 characters"),
    ("description: contains line items and a total", f"description: '{' ' * 20}'", 8, 18, "describe in words"),
    ("    description: contains line items and a total\n", "", 7, 5, "rules[0] has no `description`; add it"),
    (
        "  - type: receipt\n    description: proof of a payment already made\n",
        "  - receipt\n",
        9,
        5,
        "must be a mapping",
    ),
    (IDS, "  - dfl 1", 13, 5, "file_ids[1] is 'dfl 1'; a file ID is 1 to 200 characters"),
    (IDS, "  -", 13, 4, "file_ids[1] is empty; a file ID is"),
    (IDS, '  - "a\\u202e"', 13, 5, "file_ids[1] is 'a\\u202e'; a file ID is"),
    (IDS, '  - "a\\u200b"', 13, 5, "file_ids[1] is 'a\\u200b'; a file ID is"),
    (IDS, '  - "a\\x1b"', 13, 5, "file_ids[1] is 'a\\x1b'; a file ID is"),
    (IDS, f"  - {'x' * 201}", 13, 5, "file_ids[1] has 201 characters; 1 to 200 are allowed"),
    (IDS, "  - dfl-1: x", 13, 5, "file_ids[1] must be text, not a mapping"),
    (CHUNK, "chunk_size: 501", 17, 13, "chunk_size is '501'; write a whole number from 1 to 500"),
    (CHUNK, "chunk_size: '5'", 17, 13, "chunk_size is text in quotes, not a number"),
    (CHUNK, "chunk_size: ten", 17, 13, "chunk_size is 'ten'; write a whole number"),
    ("below_confidence: 0.6", "below_confidence: 60", 18, 28, "is '60'; write a number from 0 to 1, such as 0.6"),
    ("below_confidence: 0.6", "below_confidence: .nan", 18, 28, "is '.nan'; write a number from 0 to 1"),
    ("below_confidence: 0.6", "unmatched: yes", 18, 21, "review.unmatched is 'yes'; write true or false"),
    (LIMITS, "limits: {max_files: 0}", 19, 21, "limits.max_files is '0'; write a whole number, 1 or more"),
    (LIMITS, "limits: 10", 19, 9, "limits must be a mapping, not a single value"),
    (LIMITS, "escalate: {mode: MULTIMODAL}", 19, 11, "escalate has no `below_confidence`"),
    (LIMITS, "project_id: a b", 19, 13, "project_id is 'a b'; write the UUID, such as 3f2504e0-"),
    (LIMITS, "project_id: my-project", 19, 13, "project_id is 'my-project'; write the UUID"),
    (LIMITS, "organization_id: org-1", 19, 18, "organization_id is 'org-1'; write the UUID"),
    (URL, f"{URL}\n    webhook_events: [classify.succes]", 16, 22, "v1 has no such event; write one such as"),
    (URL, f"{URL}\n    webhook_events: [extract.success]", 16, 22, "v1 has no such event; write one such as"),
    (LIMITS, "webhook_configuration_ids: [a]", 19, 28, "webhook_configuration_ids is v2 only"),
    (LIMITS, "file_ids_from: [ids.xlsx]", 19, 17, "a list's name ends in .txt"),
    (LIMITS, "file_ids_from: [gone.txt]", 19, 17, "gone.txt' can't be read (No such file or directory)"),
    (LIMITS, "file_ids_from: [-, gone.csv]", 19, 20, "gone.csv' can't be read"),
    (LIMITS, "file_ids_from: [-, -]", 19, 20, "standard input is already named in line 19"),
    (URL, "ftp://example.com", 15, 18, "webhook_url has a wrong form; write https://host/path"),
    (URL, "https://me:pw@example.com", 15, 18, "webhook_url has a wrong form"),
    (URL, "'https://example.com/a b'", 15, 18, "webhook_url has a wrong form"),
    (URL, "https://example.com\\@evil.example", 15, 18, "webhook_url has a wrong form"),
    (URL, "https://${HOST}/", 15, 18, "needs the environment variable HOST, which is not set; set it"),
    (URL, "https://${EMPTY}/", 15, 18, "needs the environment variable EMPTY, which is empty; set it"),
    (URL, "https://${a b}/", 15, 18, "has a ${ without a variable's name; write ${NAME}"),
    (URL, "https://${HOST", 15, 18, "has a ${ without a variable's name; write ${NAME}"),
    ("webhook_url: https://example.com/hook\n    ", "", 15, 5, "webhook_configurations[0] has no `webhook_url`"),
    ("{Authorization: Bearer x}", "{'a b': x}", 16, 23, "has a name of a wrong form"),
    (
        "{Authorization: Bearer x}",
        '{A: "x\\r\\nB: y"}',
        16,
        26,
        "webhook_headers.A has a wrong form; a header is one line",
    ),
    ("webhook_headers:", "webhook_header:", 16, 5, "unknown key; did you mean `webhook_headers`?"),
    ("name: letters", "name: a: b", 2, 8, "mapping values are not allowed in this context; put quotes around"),
    ("name: letters", "name: 'letters", 2, 7, "a quote or bracket that is opened must be closed"),
    ("name: letters", "\tname: letters", 2, 1, "a tab indents this line; indent with spaces"),
    ("name: letters", "name: @letters", 2, 7, "put quotes around a text that starts with a special character"),
    ("name: letters", "name: &a letters", 2, 7, "an anchor (&) is not supported"),
    ("name: letters", "name: !x letters", 2, 7, "a tag (!) is not supported"),
    ("name: letters", "name: *a", 2, 7, "an alias (*) is not supported"),
    ("name: letters", "<<: {}\nname: letters", 2, 1, "a merge key (<<) is not supported"),
    ("name: letters", "? [a]\n: b\nname: letters", 2, 3, "a key must be text"),
    ("chunk_size: 100", "---\nchunk_size: 100", 17, 1, "a second document starts here"),
]


def problems_of(path: Path, text: str, **environ: str) -> tuple[Problem, ...]:
    path.write_text(text, "utf-8")
    with pytest.raises(ManifestError) as caught:
        loading.load(str(path), environ=environ)
    return caught.value.problems


@pytest.mark.parametrize(("old", "new", "line", "column", "words"), ONE_MISTAKE)
def test_one_mistake_is_one_problem_at_its_place(
    tmp_path: Path, old: str, new: str, line: int, column: int, words: str
) -> None:
    """The problem names the user's file, the exact line and column, what is wrong and what would be right."""
    assert GOOD.count(old) == 1
    path = tmp_path / "m.yaml"
    (problem,) = problems_of(path, GOOD.replace(old, new), EMPTY="")
    assert (problem.file, problem.line, problem.column) == (str(path), line, column)
    assert words in problem.message


def test_the_table_starts_from_a_good_manifest(tmp_path: Path) -> None:
    """Each problem in the table is the replacement's, not the template's."""
    path = tmp_path / "m.yaml"
    path.write_text(GOOD)
    assert loading.check(str(path), environ={})[1] == []


NO_FILES = "version: 1\nname: n\nrules: [{type: a, description: long enough it is}]\n"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (NO_FILES, (1, 1), "no files are named; give `documents_from`, `file_ids` or `file_ids_from`"),
        (f"{NO_FILES}file_ids:\n", (1, 1), "no files are named"),
        ("version: 1\nname: n\nfile_ids: [a]\n", (1, 1), "no rules are given; add `rules`"),
        ("version: 1\nname: n\nfile_ids: [a]\nrules: []\n", (4, 8), "rules is an empty list; give at least 1"),
        ("version: 1\nname: n\nfile_ids: [a]\nconfiguration_id: c\n", (4, 19), "configuration_id is v2 only"),
        (
            "version: 1\nname: n\napi: v2\nfile_ids: [a]\nconfiguration_id: c\nlimits: {max_credits: 5}\n",
            (6, 23),
            "limits.max_credits can't be kept with configuration_id",
        ),
        (
            f"{NO_FILES}file_ids: [a]\napi: v2\nconfiguration_id: c\n",
            (3, 1),
            "rules can't stand beside configuration_id",
        ),
        (f"{NO_FILES}file_ids: [a]\napi: v2\nescalate: {{below_confidence: 1}}\n", (6, 11), "which is v1 only"),
        (
            f"{NO_FILES}file_ids: [a]\napi: v2\nwebhook_configurations:\n- webhook_url: https://h.example\n"
            "  webhook_events: [classify.success, parse.error, classify.succes]\n",
            (8, 51),
            "v2 has no such event; write one such as classify.success",
        ),
        (f"{NO_FILES}file_ids: [a]\nmode: MULTIMODAL\nescalate: {{below_confidence: 1}}\n", (6, 11), "nothing better"),
        ("- a\n", (1, 1), "the manifest must be a mapping, not a list"),
        ("just text\n", (1, 1), "the manifest must be a mapping, not a single value"),
        ("", (1, 1), "the file is empty; a manifest starts with `version: 1`"),
        ("# only a comment\n", (1, 1), "the file is empty"),
        ("---\n", (1, 1), "the file is empty"),
    ],
)
def test_what_is_not_there_points_at_where_it_belongs(
    tmp_path: Path, text: str, place: tuple[int, int], words: str
) -> None:
    """Whatever is missing, or can't stand beside another field, is one problem with a place."""
    (problem,) = problems_of(tmp_path / "m.yaml", text)
    assert (problem.line, problem.column) == place
    assert words in problem.message


def test_all_problems_come_at_once_in_file_order(tmp_path: Path) -> None:
    """A person mends a manifest in one round."""
    text = GOOD.replace(CHUNK, "chunk_size: 0").replace(MODE, "mode: SLOW").replace("name: letters\n", "")
    text = text.replace(IDS, "  - a b").replace("type: receipt", "typ: receipt")
    places = [(problem.line, problem.column) for problem in problems_of(tmp_path / "m.yaml", text)]
    assert places == [(1, 1), (3, 7), (8, 5), (8, 5), (12, 5), (16, 13)]


def test_a_crowd_of_problems_is_cut_with_a_word(tmp_path: Path) -> None:
    """After a hundred problems one last line says that there are more."""
    problems = problems_of(tmp_path / "m.yaml", GOOD.replace(IDS, "  - a b\n" * 3000))
    assert len(problems) == 101
    assert problems[99].line == 112
    assert problems[100].message == "more problems follow; fix the ones above first"


@pytest.mark.parametrize("place", ["", "/no/such/folder/m.yaml"])
def test_a_manifest_that_is_not_there(tmp_path: Path, place: str) -> None:
    """A folder or a wrong path is a problem of line 1, under the name that the user gave."""
    path = place or str(tmp_path)
    with pytest.raises(ManifestError, match="can't be read") as caught:
        loading.load(path, environ={})
    assert [(problem.file, problem.line) for problem in caught.value.problems] == [(path, 1)]


def test_a_later_version_is_the_only_problem(tmp_path: Path) -> None:
    """In an unknown format nothing else can be checked."""
    (problem,) = problems_of(tmp_path / "m.yaml", "version: 2.1\nnew_field: 5\n")
    assert problem.message == "version '2.1' is unknown; write 1"


CANARY = "c4nary-s3cret"


@pytest.mark.parametrize(
    "hook",
    [
        f"- webhook_url: ftp://{CANARY}",
        f"- webhook_url: https://user:{CANARY}@h.example/",
        f"- webhook_url: https://h.example/{CANARY} x",
        "- webhook_url: ftp://${SECRET}",
        "- webhook_url: https://${SECRET}@h.example/",
        "- webhook_url: https://h.example/${LINES}",
        f"- {{webhook_url: https://h.example, webhook_headers: {{'{CANARY} x': y}}}}",
        f"- {{webhook_url: https://h.example, webhook_headers: {CANARY}}}",
        f"- {{webhook_url: https://h.example, webhook_headers: [{CANARY}]}}",
        f'- {{webhook_url: https://h.example, webhook_headers: {{A: "{CANARY}\\n"}}}}',
        "- {webhook_url: https://h.example, webhook_headers: {A: '${LINES}'}}",
        "- {webhook_url: https://h.example, webhook_headers: {A: '${HALF}'}}",
        f"- {{webhook_url: https://h.example, webhook_headers: {{A: {{{CANARY}: b}}}}}}",
        f"- {{webhook_url: https://h.example, webhook_headers: {{A: '${{{CANARY}}}'}}}}",
        f"- {{webhook_url: https://h.example, webhook_headers: {{{CANARY}: a, {CANARY}: b}}}}",
        f'- {{webhook_url: https://h.example, webhook_signing_secret: "{CANARY}\\t"}}',
        "- {webhook_url: https://h.example, webhook_signing_secret: '${LINES}'}",
        f"- {{webhook_url: https://h.example, webhook_signing_secret: [{CANARY}]}}",
        f"- {{webhook_url: https://h.example, {CANARY}: x}}",
        f"- {{webhook_url: https://h.example, webhook_events: ['{CANARY} x']}}",
        f"- {{webhook_url: https://h.example, webhook_signing_secret: &{CANARY} x}}",
        f"- {{webhook_url: https://h.example, webhook_signing_secret: *{CANARY}}}",
        f"- {{webhook_url: https://h.example, webhook_signing_secret: !{CANARY} x}}",
        f"- {{webhook_url: https://h.example, webhook_signing_secret: '{CANARY}",
        f"- {CANARY}",
        f"- [{CANARY}]",
    ],
)
def test_no_problem_shows_a_secret(tmp_path: Path, hook: str) -> None:
    """Whatever is wrong with a webhook, neither its own text nor a variable's value is in the error."""
    text = f"{NO_FILES}file_ids: [a]\nwebhook_configurations:\n  {hook}\n"
    environ = {"SECRET": CANARY, "LINES": f"{CANARY}\n{CANARY}", "HALF": f"{CANARY}\udc80"}
    problems = problems_of(tmp_path / "m.yaml", text, **environ)
    assert CANARY not in "\n".join(map(repr, problems))
