"""The judge: what the world knows against what the ledger says, once nothing is left to do but a person's decisions."""

from __future__ import annotations

import json
from collections import defaultdict

from sqlalchemy import Connection, Row

from orchestrator.stages.unanswered.judging import MAX_RESENDS
from simulation.custom import plain
from simulation.purchases import GOOD, Purchases
from simulation.world import BAD_WORDS, SimJob, World


class Judge:
    """Tells the world of every violation in a ledger whose work has ended."""

    def __init__(self, connection: Connection, world: World, purchases: Purchases) -> None:
        self._world = world
        self._purchases = purchases
        self._manifest = purchases.manifest
        self._jobs = {job.id: job for job in world.jobs}
        read = connection.exec_driver_sql
        self._config_id = read("SELECT config_id FROM manifests").scalar_one()
        self._held = read("SELECT id, resends, accepted FROM jobs WHERE held = 1 AND finished_at IS NULL").all()
        self._known = set(read("SELECT job_id FROM jobs WHERE job_id IS NOT NULL").scalars())
        # The program looks at all runs together whose failed jobs it is about to halve.
        self._outage = read(
            "SELECT count(*) FROM (SELECT depth > 0 FROM jobs WHERE status = 'failed' GROUP BY depth > 0 "
            "HAVING count(*) > CASE WHEN depth > 0 THEN 4 ELSE 2 END) AS waves"
        ).scalar_one()
        self._rows: dict[tuple[str, int], list[Row[tuple[object, ...]]]] = defaultdict(list)
        for row in read(
            "SELECT f.file_id, f.config_id, f.chunk_id, f.generation, f.standing, r.outcome, r.type, r.confidence, "
            "j.job_id, j.size, j.status, j.escalation, c.canonical FROM files f JOIN jobs j ON j.id = f.chunk_id "
            "JOIN configs c ON c.id = f.config_id LEFT JOIN results r ON r.file_row = f.id ORDER BY f.generation"
        ):
            self._rows[row.file_id, row.config_id].append(row)

    def judge(self, *, after: str) -> None:
        """*after* says what came before, for whoever reads of a violation."""
        held = self._judge_held()
        for rows in self._rows.values():
            self._judge_rows(rows, held)
        if not held:
            for file_id in map(plain, self._manifest.ids):
                self._judge_file(file_id, self._rows[file_id, self._config_id])
        if self._world.violations:
            self._world.tell("judged after", after)

    def _judge_held(self) -> set[int]:
        """A chunk may be left to a person only where nobody but a person could tell, or after its last send.

        Nor can anybody tell where the ledger knows no job at all, by which a listing could be checked, or where the API
        stands by a mistaken answer.
        """
        unknown = [job for job in self._world.jobs if job.chunk_id is not None and job.id not in self._known]
        riddles = [job for job in unknown if not self._provable(job)]  # a written off one may be of this chunk too
        for chunk_id, resends, accepted in self._held:
            made = any(job.chunk_id == chunk_id and not job.written_off for job in self._world.jobs)
            proof = (
                (self._world.echoes_truly and not self._contested(chunk_id))
                if made
                else resends < MAX_RESENDS
                and not accepted
                and self._known
                and (self._world.echoes_truly or not self._shared_with(chunk_id, unknown))
            )
            # A listing without jobs that were there may be another project's, and one that is not there the chunk's.
            if (
                not riddles
                and proof
                and not self._is_shared_out(chunk_id, unknown)
                and not self._world.denied
                and not (self._world.misled_keys or self._world.made_up)
            ):
                self._world.violated(f"chunk {chunk_id} is held although it could be settled")
        return {row.id for row in self._held}

    def _shared_with(self, chunk_id: int, unknown: list[SimJob]) -> bool:
        """Whether another chunk's unknown job has one of this one's files, as under other rules."""
        ours = {file for (file, _), rows in self._rows.items() if any(row.chunk_id == chunk_id for row in rows)}
        return any(not ours.isdisjoint(job.files) for job in unknown)

    def _is_shared_out(self, chunk_id: int, unknown: list[SimJob]) -> bool:
        """Whether several jobs are the chunk's, and none of them has all the good answers that they have together."""
        api = self._world.api
        good = [
            {file_id for file_id in job.files if job.expected(file_id, api)[0] in GOOD}
            for job in unknown
            if job.chunk_id == chunk_id
        ]
        return bool(good) and set().union(*good) not in good

    def _contested(self, chunk_id: int) -> bool:
        """Whether another held chunk has one of its files under other rules, and no known job tells the echo."""
        held = {row.id for row in self._held}
        of_held = [file for (file, _), rows in self._rows.items() if any(row.chunk_id in held for row in rows)]
        ours = {file for (file, _), rows in self._rows.items() if any(row.chunk_id == chunk_id for row in rows)}
        return not self._known and any(of_held.count(file) > 1 for file in ours)

    def _provable(self, job: SimJob) -> bool:
        """Whether its rows tell whose it is."""
        named, own = {file for file, _ in job.rows if file is not None}, set(job.files)
        return bool(named) and (named <= own or named >= own)

    def _judge_rows(self, rows: list[Row[tuple[object, ...]]], held: set[int]) -> None:
        """All generations of one file under one config."""
        file_id = rows[0].file_id
        standing = None
        for row in rows:
            if row.outcome is None:
                if row.chunk_id not in held:
                    self._world.violated(f"{file_id} of chunk {row.chunk_id} has no outcome")
                standing = standing or row
                continue
            self._judge_outcome(row)
            if standing is None or self._prevails(row, standing):
                standing = row
        if [row for row in rows if row.standing] != [standing]:
            self._world.violated(f"of {file_id} another generation stands than {standing}")

    def _prevails(self, new: Row[tuple[object, ...]], old: Row[tuple[object, ...]]) -> bool:
        """Whether a later result takes an earlier one's place: not a bad one a good one's, nor a less sure opinion."""
        job = self._jobs.get(new.job_id)
        if job is not None and job.mode == "MULTIMODAL" and (new.confidence or 0) < (old.confidence or 0):
            return False
        return new.outcome in GOOD or old.outcome not in GOOD

    def _judge_outcome(self, row: Row[tuple[object, ...]]) -> None:
        world, file_id, told = self._world, row.file_id, (row.outcome, row.type)
        rules = json.loads(row.canonical)["rules"]
        job = self._jobs.get(row.job_id)
        if row.job_id is None:
            refused = {(file, generation) for file, _, generation in self._purchases.refused}
            if (file_id, row.generation) not in refused:
                world.violated(f"{file_id} is {row.outcome} and no job or refusal says so")
        elif job is None or [[rule["type"], rule["description"]] for rule in json.loads(job.rules)] != rules:
            world.violated(f"chunk {row.chunk_id} has job {row.job_id}, which is not of its rules")
        elif job.chunk_id != row.chunk_id and not job.written_off and not self._alike(job, row.chunk_id):
            # A written-off job of the same files and rules, found at last, is as good for a later retry as its own.
            world.violated(f"chunk {row.chunk_id} has job {row.job_id}, which is of chunk {job.chunk_id}")
        elif world.is_gone(job) and told == ("missing", None):
            pass
        elif (expected := job.expected(file_id, world.api)) != told:
            world.violated(f"{file_id} is recorded as {told}; job {row.job_id} says {expected}")

    def _alike(self, job: SimJob, chunk_id: int) -> bool:
        """Whether *job* and the chunk's own both failed and have no rows: nobody can tell which is whose."""
        own = [other for other in self._world.jobs if other.chunk_id == chunk_id and other.rules == job.rules]
        return all(not one.rows and one.word in BAD_WORDS[self._world.api] for one in (job, *own)) and bool(own)

    def _judge_file(self, file_id: str, rows: list[Row[tuple[object, ...]]]) -> None:
        """What a file of the manifest must have come to under the rules that count."""
        world, manifest = self._world, self._manifest
        standing = next((row for row in rows if row.standing), None)
        if standing is None:
            world.violated(f"{file_id} has no outcome")
            return
        good = standing.outcome in GOOD
        if standing.status == "failed" and not good and standing.size > 1 and not self._outage:
            blamed = [
                other
                for (_, config_id), others in self._rows.items()
                if config_id == self._config_id
                for other in others
                if other.chunk_id == standing.chunk_id and other.outcome not in GOOD
            ]
            if len(blamed) > 1:
                world.violated(f"{file_id} failed with others in chunk {standing.chunk_id}, which was not halved")
        most, escalate = manifest.limits.max_generations, manifest.escalate
        if escalate is not None and good and (standing.confidence or 0) < escalate.below_confidence:
            capped = most is not None and rows[-1].generation + 1 >= most
            if not capped and not any(row.escalation for row in rows):
                world.violated(f"{file_id} is unsure and got no second opinion")
