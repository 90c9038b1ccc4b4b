"""Whether a job may be of a config, by its echo and by what known jobs show of the API's echoes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.models import Config, Echo, JobStatus, Mode, RemoteJob, Rule
from orchestrator.stages.unanswered.likeness import Echoes, Likeness

OLD, NEW = (Config((Rule("invoice", f"contains {what}"),)) for what in ("line items", "a total"))
CUT = (("invoice", "cont"),)


def job(config: Config, **told: object) -> RemoteJob:
    return RemoteJob("j", JobStatus.SUCCEEDED, "SUCCESS", replace(config.echo, **told))  # type: ignore[arg-type]


CASES: dict[str, tuple[list[tuple[Config, RemoteJob]], RemoteJob, Likeness]] = {
    "the same": ([], job(NEW), Likeness.ALIKE),
    "nothing is told": ([], job(NEW, rules=None, mode=None, lang=None, pages=None), Likeness.ALIKE),
    "another, and nothing is known": ([], job(OLD), Likeness.UNCLEAR),
    "another, where the API echoes truly": ([(NEW, job(NEW))], job(OLD), Likeness.OTHER),
    "what came back of the same": ([(NEW, job(NEW, rules=CUT))], job(NEW, rules=CUT), Likeness.ALIKE),
    "what came back of another config": ([(OLD, job(OLD, rules=CUT))], job(NEW, rules=CUT), Likeness.OTHER),
    "rewritten, and never seen": ([(OLD, job(OLD, rules=CUT))], job(NEW, rules=()), Likeness.UNCLEAR),
    "a field that known jobs do not tell": ([(NEW, job(NEW, mode=None))], job(NEW, mode="TURBO"), Likeness.UNCLEAR),
    "one true field is enough": (
        [(NEW, job(NEW, rules=CUT))],
        job(NEW, rules=CUT, mode=Mode.MULTIMODAL.value),
        Likeness.OTHER,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_likeness(name: str) -> None:
    """One row for each way to it; the question is always whether the job may be of the new rules."""
    known, told, expected = CASES[name]
    assert Echoes.learnt(known).likeness(told, NEW) is expected


def test_an_empty_echo_speaks_against_nothing() -> None:
    """A config that only the server knows can't be compared with anything."""
    assert Config((), configuration_id="cfg").echo == Echo()
    assert Echoes().is_alike(job(OLD), Config((), configuration_id="cfg"))


def test_rules_are_worth_comparing_where_they_are_told_and_not_rewritten() -> None:
    """Neither is enough alone."""
    rewriting = Echoes.learnt([(OLD, job(OLD, rules=CUT))])
    assert Echoes().tells_rules(job(NEW))
    assert not Echoes().tells_rules(job(NEW, rules=None))
    assert not rewriting.tells_rules(job(NEW))


def test_only_fields_that_both_tell_are_learnt() -> None:
    """A field that the config or the job leaves out is neither true nor rewritten."""
    known = [(NEW, job(NEW, mode=None)), (Config((), configuration_id="cfg"), job(OLD))]
    learnt = Echoes.learnt(known)
    assert "mode" not in learnt.true | learnt.rewritten
    assert {pair[0] for pair in learnt.pairs} == learnt.true
    assert all(None not in pair for pair in learnt.pairs)
