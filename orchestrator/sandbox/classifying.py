"""The answer for one file: by the words of an uploaded text, or made up from the hash of an ID that is not known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from orchestrator.models import Json, Rule
from orchestrator.sandbox.story import Story

#: Least share of a rule's words that a text must have for the rule to match.
THRESHOLD = 0.15

_WORD = re.compile(r"[^\W\d_]{3,}")
_STOP_WORDS = frozenset(
    [
        "about",
        "all",
        "also",
        "and",
        "any",
        "are",
        "because",
        "been",
        "between",
        "but",
        "can",
        "contain",
        "contains",
        "containing",
        "could",
        "document",
        "documents",
        "does",
        "each",
        "file",
        "files",
        "for",
        "from",
        "had",
        "has",
        "have",
        "how",
        "into",
        "its",
        "may",
        "more",
        "most",
        "not",
        "one",
        "only",
        "other",
        "our",
        "out",
        "page",
        "pages",
        "same",
        "shall",
        "should",
        "some",
        "such",
        "text",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "type",
        "under",
        "upon",
        "was",
        "were",
        "what",
        "when",
        "where",
        "which",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)
_ENDINGS = ("ations", "ation", "ings", "ing", "ments", "ment", "ies", "ied", "ers", "er", "es", "ed", "ly", "s", "y")


@dataclass(frozen=True, slots=True)
class Answer:
    """A file's ``result``; a ``type`` of None says that no rule matched."""

    type: str | None
    confidence: float
    reasoning: str

    def json(self) -> dict[str, Json]:
        return {"type": self.type, "confidence": self.confidence, "reasoning": self.reasoning}


def words_of(text: str) -> frozenset[str]:
    """The text's words, lightly stemmed, stop words dropped."""
    return frozenset(_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS)


def by_words(words: frozenset[str], rules: Sequence[Rule]) -> Answer:
    """The rule most of whose words are among *words*; sure of it by as much as it leads the next one."""
    scored = sorted(((_share(words, rule), rule) for rule in rules), key=lambda pair: -pair[0])
    best, rule = scored[0]
    second = scored[1][0] if len(scored) > 1 else 0.0
    if best < THRESHOLD:
        return Answer(None, round(1 - best, 2), "No rule shares enough words with the document.")
    matched = ", ".join(sorted(words & _words_of_rule(rule)))
    return Answer(rule.type, round(min(0.99, 0.5 + (best - second)), 2), f"Words in common with the rule: {matched}.")


def made_up(story: Story, file_id: str, rules: Sequence[Rule], null_share: float) -> Answer:
    """A stable answer for a document that nobody has: it depends on seed, *file_id* and *rules* only."""
    digest = story.digest("answer", file_id, _text_of(tuple(rules)))
    confidence = round(0.5 + digest[0] / 255 * 0.49, 2)
    if int.from_bytes(digest[1:4]) / 2**24 < null_share:
        return Answer(None, confidence, "No rule describes this document.")
    rule = rules[int.from_bytes(digest[4:8]) % len(rules)]
    return Answer(rule.type, confidence, f"Made up by the sandbox: it was never given this document ({file_id}).")


def _share(words: frozenset[str], rule: Rule) -> float:
    wanted = _words_of_rule(rule)
    return len(words & wanted) / len(wanted) if wanted else 0.0


@lru_cache
def _words_of_rule(rule: Rule) -> frozenset[str]:
    return words_of(f"{rule.type} {rule.description}".replace("_", " "))


@lru_cache
def _text_of(rules: tuple[Rule, ...]) -> str:
    return repr(rules)


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
