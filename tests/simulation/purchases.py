"""What was bought, judged call by call from the API's side: nothing without somebody who asked for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.manifest.loading import Manifest
from simulation.world import BAD_WORDS, SimJob, World

GOOD = ("classified", "unmatched")


@dataclass(frozen=True, slots=True)
class Intent:
    """What the ledger says, when a create call leaves, of why it does."""

    chunk_id: int
    generations: dict[str, int]  #: of each file
    half: bool  #: of a chunk that failed
    second_opinion: bool
    run_id: str  #: the run that planned it


@dataclass(slots=True)
class Purchases:
    """Who asked for what. Each deliberate submission of a file is to have a reason, and a reason buys once.

    The reasons: the manifest names the file, and it was never bought under these rules; ``retry`` was called when all
    that was bought for it had ended badly; a job of several files failed, and this is the file's half; its good answer
    was less sure than ``escalate`` asks.
    """

    world: World
    manifest: Manifest
    rules_of_run: dict[str, str] = field(default_factory=dict)  #: run id -> the rules of the manifest then
    #: (file, rules, generation) of creates that were refused for good: no job will ever have them.
    refused: set[tuple[str, str, int]] = field(default_factory=set)
    retries: int = 0  #: jobs bought because somebody called for a retry
    halves: int = 0
    second_opinions: int = 0
    _wanted_again: set[tuple[str, str]] = field(default_factory=set)
    _wanted_surer: set[tuple[str, str]] = field(default_factory=set)  #: of these, those that have a good answer
    _reasoned: set[tuple[str, str, int]] = field(default_factory=set)
    _submissions: Counter[tuple[str, str]] = field(default_factory=Counter)  #: halves are one with what they are of
    _seconds: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, file_id: str, rules: str) -> list[SimJob]:
        """What was bought for *file_id* under *rules* and not written off, in order."""
        return [
            job
            for job in self.world.jobs
            if job.chunk_id is not None and not job.written_off and file_id in job.files and job.rules == rules
        ]

    def retry(self, file_ids: Iterable[str], rules: str, below_confidence: float | None) -> None:
        """A retry is called for, of what failed or is less sure: a reason for each such file without an open job."""
        for file_id in file_ids:
            bought = self.of(file_id, rules)
            good = [job for job in bought if self._good(job, file_id)]
            if any(self.world.now < job.ends_at for job in bought):
                continue
            if below_confidence is None and not good:
                self._wanted_again.add((file_id, rules))
            if below_confidence is not None and any(job.confidence(file_id) < below_confidence for job in good):
                self._wanted_again.add((file_id, rules))
                self._wanted_surer.add((file_id, rules))

    def retry_named(self, file_ids: Iterable[str], rules: str) -> None:
        """A person chose just these files to be sent again, whatever was bought for them."""
        chosen = {(file_id, rules) for file_id in file_ids}
        self._wanted_again |= chosen
        self._wanted_surer |= chosen

    def write_off(self, chunk_ids: Iterable[int]) -> None:
        """A person has the chunks sent again, whatever their earlier calls came to."""
        gone = set(chunk_ids)
        for job in self.world.jobs:
            job.written_off |= job.chunk_id in gone

    def refuse(self, file_ids: Sequence[str], rules: str, intent: Intent | None) -> None:
        """A create call was refused for good: a reason for halving, and whoever asked for it got his answer."""
        if intent is None:
            return
        self.refused.update((file_id, rules, generation) for file_id, generation in intent.generations.items())
        if not intent.half:
            self._wanted_again.difference_update((file_id, rules) for file_id in file_ids)

    def judge(self, job: SimJob, intent: Intent) -> None:
        """Tell the world of every file in *job*, just made, that should not have been bought."""
        if self.rules_of_run[intent.run_id] != job.rules:
            self.world.violated(f"{job.id} was planned under rules that nobody asked for any more")
        if (job.mode == "MULTIMODAL") != intent.second_opinion:
            self.world.violated(f"{job.id} is {job.mode}; a second opinion: {intent.second_opinion}")
        bought_before = False
        for file_id in job.files:
            earlier = [other for other in self.of(file_id, job.rules) if other is not job]
            bought_before |= bool(earlier)
            if why_not := self._why_not(file_id, job, intent, earlier):
                self.world.violated(why_not)
        self.halves += intent.half
        self.second_opinions += intent.second_opinion and not intent.half
        self.retries += bought_before and not (intent.half or intent.second_opinion)

    def _why_not(self, file_id: str, job: SimJob, intent: Intent, earlier: list[SimJob]) -> str | None:
        """Why *job* should not have been bought for *file_id*; None when it should."""
        world, key, generation = self.world, (file_id, job.rules), job.generations[file_id]
        if same := [other.id for other in earlier if other.generations[file_id] == generation]:
            return f"paid twice: {job.id} and {same[0]} are both of {file_id}, generation {generation}"
        if open_ := [other.id for other in earlier if world.now < other.ends_at]:
            return f"paid twice: {job.id} of {file_id} was bought before {open_[0]} had ended"
        good = [other for other in earlier if self._good(other, file_id)]
        again = (*key, generation) in self._reasoned  # the purchase before it was written off
        self._reasoned.add((*key, generation))
        if intent.half:
            return (
                None if again or self._is_half(file_id, job, earlier) else f"{job.id} of {file_id} is half of nothing"
            )
        most = self.manifest.limits.max_generations
        self._submissions[key] += not again
        if most is not None and earlier and self._submissions[key] > most:
            return f"{job.id} of {file_id} is its submission no. {self._submissions[key]}, of at most {most}"
        if intent.second_opinion:
            return self._why_no_second(file_id, job)
        if good and not again and key not in self._wanted_surer:
            return f"paid twice: {job.id} of {file_id}, for which {good[0].id} has a good answer"
        if earlier and not again and key not in self._wanted_again:
            return f"paid twice: {job.id} of {file_id} was bought again and nobody asked for it"
        self._wanted_again.discard(key)
        self._wanted_surer.discard(key)
        return None

    def _is_half(self, file_id: str, job: SimJob, earlier: list[SimJob]) -> bool:
        """Whether *job* is of at most half of what failed with *file_id*, in the generation before."""
        generation = job.generations[file_id]
        if (file_id, job.rules, generation - 1) in self.refused:
            return True
        whole = next((other for other in reversed(earlier) if other.generations[file_id] == generation - 1), None)
        if whole is None or whole.word != BAD_WORDS[self.world.api][0] or whole.mode != job.mode:
            return False
        failed = [file for file in whole.files if not self._good(whole, file)]
        return file_id in failed and len(failed) > 1 and 2 * len(job.files) <= len(failed) + 1

    def _why_no_second(self, file_id: str, job: SimJob) -> str | None:
        """As ``_why_not``. A first opinion counts though a person has written its job off: it may be found later."""
        generation = job.generations[file_id]
        firsts = [other for other in self.world.jobs if file_id in other.files and other.rules == job.rules]
        good = [
            other for other in firsts if other is not job and other.chunk_id is not None and self._good(other, file_id)
        ]
        escalate, first = self.manifest.escalate, (file_id, job.rules)
        if escalate is None or not any(other.confidence(file_id) < escalate.below_confidence for other in good):
            return f"{job.id} is a second opinion on {file_id} that nobody asked for"
        if self._seconds.setdefault(first, generation) != generation:
            return f"paid twice: {job.id} is one more second opinion on {file_id}"
        return None

    def _good(self, job: SimJob, file_id: str) -> bool:
        return job.expected(file_id, self.world.api)[0] in GOOD and not self.world.is_gone(job)
