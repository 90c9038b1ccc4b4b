"""Files to be submitted again on purpose: which of them, which are quarantined, and what changed since.

A file that ended badly is *quarantined* when halving found that it alone sank its job, or when it was submitted as
often as the manifest's ``limits.max_generations`` allows. Nothing sends it again unless a person names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from orchestrator.errors import InputError
from orchestrator.ledger.chunks.accept import PERSON
from orchestrator.ledger.chunks.cutting import choose, name_files
from orchestrator.ledger.documents import names
from orchestrator.ledger.scope import Scope, Staged
from orchestrator.ledger.spellings import spelt
from orchestrator.ledger.sql import GOOD_SQL, scalar_int, text
from orchestrator.models import BAD, Config, Extent, Outcome
from orchestrator.plaintext import counted

#: The event that halving leaves at the chunk of a file at fault; its note is the file.
QUARANTINED = "quarantined"

_SAME_FILE = "manifest_id = :manifest_id AND {alias}.file_id = f.file_id AND {alias}.config_id = :config_id"

#: How often file ``f`` was deliberately submitted. The halves of a failed job are one submission with it.
SUBMISSIONS = f"""(SELECT count(*) FROM files g JOIN jobs gj ON gj.id = g.chunk_id
    WHERE g.{_SAME_FILE.format(alias="g")} AND gj.depth = 0 AND gj.api <> '{PERSON}')"""

#: Whether halving found file ``f`` to be at fault.
_AT_FAULT = f"""EXISTS (SELECT 1 FROM files q JOIN events e ON e.chunk_id = q.chunk_id
    WHERE q.{_SAME_FILE.format(alias="q")} AND e.event = '{QUARANTINED}' AND e.note = q.file_id)"""

#: Whether a generation of file ``f`` is in flight, under any rules.
_UNDER_WAY = """EXISTS (SELECT 1 FROM files n LEFT JOIN results nr ON nr.file_row = n.id
    WHERE n.manifest_id = :manifest_id AND n.file_id = f.file_id AND nr.file_row IS NULL)"""


@dataclass(frozen=True, slots=True)
class Selection:
    """The files with an outcome that a person asks to send again; all conditions that are set must hold.

    Files in *file_ids* are named by a person: neither quarantine, *max_generations* nor an earlier verdict of a person
    keeps them back.
    """

    outcomes: tuple[Outcome, ...] = BAD
    types: tuple[str, ...] = ()
    below_confidence: float | None = None
    file_ids: tuple[str, ...] | None = None
    run_id: str | None = None
    error: str | None = None
    other_rules: bool = False  #: also files whose only outcome is under other rules than the scope's

    @property
    def of_cancelled(self) -> bool:
        """Whether a file whose job has just been cancelled can be among them."""
        on_result = self.types or self.below_confidence is not None or self.error is not None
        return Outcome.CANCELLED in self.outcomes and not on_result


@dataclass(frozen=True, slots=True)
class Allowed:
    """The limits of the program on sending files again, whatever a person asks for."""

    max_generations: int | None = None  #: files submitted as often as this are left alone, unless a person names them
    never_escalated: bool = False
    good_before: str | None = None  #: not those with a good result of this time or later


def select_again(connection: Connection, scope: Scope, selection: Selection, allowed: Allowed = Allowed()) -> int:
    """Choose, for the next cut, the wanted files of *selection* that are *allowed*, one generation on; how many.

    A file with a generation in flight is never chosen.
    """
    if selection.file_ids is not None:
        name_files(connection, selection.file_ids)
    elsewhere = """(SELECT max(o.id) FROM files o
        WHERE o.manifest_id = :manifest_id AND o.file_id = w.file_id AND o.standing = 1)"""
    conditions = [
        *_asked(selection),
        *_free_to_go(named=selection.file_ids is not None),
        *_permitted(selection, allowed),
    ]
    return choose(
        connection,
        f"""
        SELECT w.position, w.file_id,
               1 + coalesce((SELECT max(g.generation) FROM files g WHERE g.{_SAME_FILE.format(alias="g")}), -1)
                 AS generation
        FROM wanted w
        JOIN files f ON f.id = coalesce(
          (SELECT o.id FROM files o WHERE o.manifest_id = :manifest_id AND o.file_id = w.file_id
             AND o.config_id = :config_id AND o.standing = 1),
          {elsewhere if selection.other_rules else "NULL"})
        JOIN results r ON r.file_row = f.id JOIN jobs j ON j.id = f.chunk_id
        WHERE {" AND ".join(conditions)}
        """,
        scope,
        outcomes=[outcome.value for outcome in selection.outcomes],
        types=list(selection.types),
        below=selection.below_confidence,
        run_id=selection.run_id,
        error=selection.error,
        max_generations=allowed.max_generations,
        good_before=allowed.good_before,
    )


def _asked(selection: Selection) -> Iterator[str]:
    """Yield what a person asks of result ``r``, its file ``f`` and its job ``j``."""
    yield "r.outcome IN :outcomes"
    if selection.types:
        yield "r.type IN :types"
    if selection.below_confidence is not None:
        yield "r.confidence < :below"
    if selection.file_ids is not None:
        yield "w.file_id IN (SELECT file_id FROM named)"
    if selection.run_id is not None:
        yield "j.run_id = :run_id"
    if selection.error:
        yield "replace(lower(r.error), lower(:error), '') <> lower(r.error)"  # the text is in it


def _free_to_go(*, named: bool) -> Iterator[str]:
    """No other generation of the file is in flight or about to be, and nothing keeps back what nobody has *named*."""
    yield f"NOT {_UNDER_WAY}"
    # The halves of a chunk that failed under this config are about to be sent.
    yield "NOT (j.isolate = 1 AND r.outcome = 'failed' AND f.config_id = :config_id)"
    if not named:
        yield f"(r.outcome IN {GOOD_SQL} OR NOT {_AT_FAULT})"
        yield f"j.api <> '{PERSON}'"


def _permitted(selection: Selection, allowed: Allowed) -> Iterator[str]:
    """Yield what the program allows."""
    if allowed.max_generations is not None and selection.file_ids is None:
        yield f"{SUBMISSIONS} < :max_generations"
    if allowed.never_escalated:
        same = _SAME_FILE.format(alias="g")
        yield f"""NOT EXISTS (SELECT 1 FROM files g JOIN jobs gj ON gj.id = g.chunk_id
            WHERE g.{same} AND gj.escalation = 1)"""
    if allowed.good_before is not None:
        yield f"(r.outcome NOT IN {GOOD_SQL} OR j.finished_at < :good_before)"


def check(connection: Connection, scope: Scope, selection: Selection, config: Config) -> None:
    """Raises InputError when *selection* names a file, a run or a type that manifest and ledger do not know."""
    if selection.file_ids is not None:
        name_files(connection, selection.file_ids)
        strange = connection.execute(
            text(
                "SELECT n.spelling FROM named n "
                "WHERE NOT EXISTS (SELECT 1 FROM wanted w WHERE w.file_id = n.file_id) ORDER BY n.file_id"
            )
        ).all()
        if strange:
            more = f" (nor {len(strange) - 1:,} more)" if len(strange) > 1 else ""
            raise InputError(f"file {strange[0].spelling!a}{more} is not in the manifest; name files that it lists")
    parameters = {"manifest_id": scope.manifest_id, "run_id": selection.run_id}
    if selection.run_id is not None and not scalar_int(
        connection, "SELECT count(*) FROM runs WHERE manifest_id = :manifest_id AND id = :run_id", **parameters
    ):
        raise InputError(f"--run {selection.run_id!a}: no run of this manifest; `orchestrator status` lists the latest")
    statement = text("SELECT DISTINCT type FROM tallies WHERE manifest_id = :manifest_id AND type <> ''")
    known = {rule.type for rule in config.rules}.union(connection.execute(statement, parameters).scalars())
    if known and (unknown := [label for label in selection.types if label not in known]):
        raise InputError(
            f"--type {unknown[0]!a}: no rule names it and no file has it; write {', '.join(sorted(known))}"
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """The differences of the manifest from the time when the files of a retry were last sent."""

    files: int = 0  #: of the retry: have an outcome only under what the manifest said before
    fields: tuple[str, ...] = ()  #: the manifest's fields that changed: rules, mode, ...

    @property
    def words(self) -> str:
        """One sentence; empty without changes."""
        if not self.files:
            return ""
        fields = " and ".join(self.fields)
        return (
            f"changed since {self.files:,} of these files were last sent: {fields}; "
            "they will be sent with the current settings"
        )


def changes(connection: Connection, scope: Scope, config: Config) -> Changes:
    """After ``select_again`` in *scope*, whose config is *config*. Files that were sent under several: the latest."""
    files = scalar_int(connection, "SELECT count(*) FROM chosen WHERE generation = 0")
    return changed_since(connection, scope, config, files)


def changed_since(connection: Connection, scope: Scope, config: Config, files: int) -> Changes:
    """The fields in which *config* differs from what *files* of the chosen files were last classified with."""
    if not files:
        return Changes()
    found = connection.execute(
        text(
            "SELECT c.canonical FROM chosen ch JOIN files f ON f.manifest_id = :manifest_id "
            "AND f.file_id = ch.file_id AND f.standing = 1 JOIN configs c ON c.id = f.config_id "
            "JOIN results r ON r.file_row = f.id WHERE ch.generation = 0 ORDER BY f.id DESC LIMIT 1"
        ),
        {"manifest_id": scope.manifest_id},
    )
    canonical = found.scalar()
    return Changes(files, () if canonical is None else Config.from_canonical(str(canonical)).differences(config))


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """A file that is sent again only when a person names it."""

    file_id: str
    outcome: str
    error: str
    why: str
    name: str | None = None  #: of its document, or as a list calls it


@dataclass(frozen=True, slots=True)
class Quarantine:
    """How many files are quarantined, and the first of them."""

    files: int
    first: list[QuarantinedFile]

    @property
    def extent(self) -> Extent:
        """How long the list is of which ``first`` is the beginning."""
        return Extent.of(self.first, self.files)


def quarantined(
    connection: Connection, scope: Scope, max_generations: int | None, *, staged: Staged | None, most: int
) -> Quarantine:
    """The quarantined files, at most *most* of them named: of the staged files (*staged*), or of the whole ledger."""
    rows = connection.execute(
        # CROSS: from the bad results, which have an index of their own, to their files.
        text(f"""
        SELECT {spelt("f")} AS file_id, r.outcome, coalesce(r.error, '') AS error, {_AT_FAULT} AS at_fault,
               {SUBMISSIONS} AS submissions, {names.columns("f")}
        FROM results r CROSS JOIN files f
        WHERE f.id = r.file_row AND r.outcome NOT IN {GOOD_SQL}
          AND f.manifest_id = :manifest_id AND f.config_id = :config_id AND f.standing = 1
          AND ({_AT_FAULT} OR {SUBMISSIONS} >= CAST(:max_generations AS INTEGER))
          AND NOT {_UNDER_WAY}
          AND NOT EXISTS (SELECT 1 FROM jobs v WHERE v.id = f.chunk_id AND v.api = '{PERSON}')
          {"AND EXISTS (SELECT 1 FROM wanted w WHERE w.file_id = f.file_id)" if staged else ""}
        ORDER BY r.file_row
        """),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "max_generations": max_generations},
    ).all()
    first = [
        QuarantinedFile(
            row.file_id,
            row.outcome,
            row.error,
            "sank its job alone" if row.at_fault else f"submitted {counted(row.submissions, 'time')} in vain",
            names.name_of(row.document, row.listed),
        )
        for row in rows[:most]
    ]
    return Quarantine(len(rows), first)
