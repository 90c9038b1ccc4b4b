"""The likeness of a job and a config: by the job's echo, as far as the API is known to echo what was sent.

What an API leaves out of an echo, or rewrites in it, is learnt from the jobs that the ledger knows. A field is believed
where it comes back as it was sent. Where it comes back otherwise, what came back of the same config is believed. Where
no known job has shown either, a difference proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, fields
from enum import Enum

from orchestrator.ledger import Transaction, queue
from orchestrator.models import Config, Echo, RemoteJob

_FIELDS = tuple(field.name for field in fields(Echo))


class Likeness(Enum):
    """The answer of a job's echo about one config."""

    ALIKE = "alike"  #: nothing in it speaks against the config
    UNCLEAR = "unclear"  #: it differs in a field of which no known job has shown what comes back of such a config
    OTHER = "other"  #: it differs in a field that the API echoes faithfully, or shows the echo of another config


@dataclass(frozen=True, slots=True)
class Echoes:
    """The fields that the API echoes faithfully, as far as known jobs show."""

    true: frozenset[str] = frozenset()  #: fields that came back as they were sent, in every job that has them
    rewritten: frozenset[str] = frozenset()  #: fields that came back otherwise
    pairs: frozenset[tuple[str, object, object]] = frozenset()  #: (field, what was sent, what came back)

    @classmethod
    def learnt(cls, known: Iterable[tuple[Config, RemoteJob]]) -> Echoes:
        """From jobs whose configs are known."""
        pairs: set[tuple[str, object, object]] = set()
        for asked, said in {(config.echo, job.echo) for config, job in known}:
            both = [(name, getattr(asked, name), getattr(said, name)) for name in _FIELDS]
            pairs |= {pair for pair in both if None not in pair[1:]}
        rewritten = frozenset(name for name, sent, back in pairs if sent != back)
        return cls(frozenset(name for name, *_ in pairs) - rewritten, rewritten, frozenset(pairs))

    def likeness(self, job: RemoteJob, config: Config) -> Likeness:
        """Compare *job* with *config*: can it have been made with it?"""
        unclear = False
        for name in _differences(config.echo, job.echo):
            sent, back = getattr(config.echo, name), getattr(job.echo, name)
            if (name, sent, back) in self.pairs:
                continue
            if name in self.true or any(pair[0] == name and pair[2] == back for pair in self.pairs):
                return Likeness.OTHER  # echoed truly, or known to be what comes back of something else
            unclear = True
        return Likeness.UNCLEAR if unclear else Likeness.ALIKE

    def is_alike(self, job: RemoteJob, config: Config) -> bool:
        """Whether nothing in *job*'s echo speaks against *config*."""
        return self.likeness(job, config) is Likeness.ALIKE

    def tells_rules(self, job: RemoteJob) -> bool:
        """Whether *job*'s echo is worth comparing: it names rules, and nothing says that the API rewrites them."""
        return job.echo.rules is not None and "rules" not in self.rewritten


def _differences(asked: Echo, said: Echo) -> list[str]:
    """The fields that both have, and differ in."""
    return [
        name
        for name in _FIELDS
        if None not in (pair := (getattr(asked, name), getattr(said, name))) and pair[0] != pair[1]
    ]


def compared(connection: Transaction, listed: Mapping[str, RemoteJob]) -> tuple[Set[str], Echoes]:
    """The ids of the *listed* jobs (by id) that the ledger knows, and what they show of the API's echoes."""
    known = queue.config_ids_of(connection, listed)
    configs = queue.configs(connection, set(known.values()))
    return known.keys(), Echoes.learnt((configs[config_id], listed[job_id]) for job_id, config_id in known.items())
