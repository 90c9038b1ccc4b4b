"""The likeness of a job and a config: by the job's echo, as far as the API is known to echo what was sent.

What an API leaves out of an echo, or rewrites in it, is learnt from the jobs that the ledger knows. A field is believed
where it comes back as it was sent. It counts for nothing where it comes back otherwise. Where no known job has
shown either, a difference proves nothing, and sameness proves nothing either.
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
    UNCLEAR = "unclear"  #: it differs in a field of which no known job has shown whether the API echoes it truly
    OTHER = "other"  #: it differs in a field that the API echoes truly


@dataclass(frozen=True, slots=True)
class Echoes:
    """Facts about the API's echoes."""

    true: frozenset[str] = frozenset()  #: fields that came back as they were sent, in every job that told them
    rewritten: frozenset[str] = frozenset()  #: fields that came back otherwise

    @classmethod
    def learnt(cls, known: Iterable[tuple[Config, RemoteJob]]) -> Echoes:
        """From jobs whose configs are known."""
        seen: set[str] = set()
        rewritten: set[str] = set()
        for asked, told in {(config.echo, job.echo) for config, job in known}:
            differing = set(_differences(asked, told))
            rewritten |= differing
            seen |= {name for name in _FIELDS if None not in (getattr(asked, name), getattr(told, name))}
        return cls(frozenset(seen - rewritten), frozenset(rewritten))

    def likeness(self, job: RemoteJob, config: Config) -> Likeness:
        """Say whether *job* may have been made with *config*."""
        differing = set(_differences(config.echo, job.echo)) - self.rewritten
        if not differing:
            return Likeness.ALIKE
        return Likeness.OTHER if differing & self.true else Likeness.UNCLEAR

    def is_alike(self, job: RemoteJob, config: Config) -> bool:
        """Whether nothing in *job*'s echo speaks against *config*."""
        return self.likeness(job, config) is Likeness.ALIKE

    def tells_rules(self, job: RemoteJob) -> bool:
        """Whether *job*'s echo is worth comparing: it names rules, and nothing says that the API rewrites them."""
        return job.echo.rules is not None and "rules" not in self.rewritten


def _differences(asked: Echo, told: Echo) -> list[str]:
    """The fields that both tell, and differently."""
    return [
        name
        for name in _FIELDS
        if None not in (pair := (getattr(asked, name), getattr(told, name))) and pair[0] != pair[1]
    ]


def compared(connection: Transaction, listed: Mapping[str, RemoteJob]) -> tuple[Set[str], Echoes]:
    """The ids of the *listed* jobs (by id) that the ledger knows, and what they show of the API's echoes."""
    known = queue.config_ids_of(connection, listed)
    configs = queue.configs(connection, set(known.values()))
    return known.keys(), Echoes.learnt((configs[config_id], listed[job_id]) for job_id, config_id in known.items())
