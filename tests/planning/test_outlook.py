"""The outlook of a run: which files it would send, in which batches, at what cost at most, and why it may not."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection
from support.ledgers import AT, answer, bring, classify, cut, plan
from support.planning import BETTER, NOW, OLD, ONE_PAGE, many

from orchestrator.clock import timestamp
from orchestrator.errors import InputError
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import cutting
from orchestrator.ledger.chunks import plan as planning
from orchestrator.ledger.chunks.plan import Counts, OpenChunks
from orchestrator.ledger.chunks.retry import Changes, Selection
from orchestrator.manifest.loading import Manifest
from orchestrator.models import Config, FileResult, JobStatus, Limits, Mode, Outcome
from orchestrator.planning.options import Options
from orchestrator.planning.plan import Batch, Outlook, Sample, work_out

RUN = Options()  #: an ordinary run
LATER = timestamp(NOW)  #: than whatever is in the ledger

ON_SERVER = Config((), configuration_id="cfg")

BAD = Outcome.FAILED
ANY = tuple(Outcome)


def listing(manifest: Manifest, *file_ids: str, api: str = "v1", **limits: int) -> Manifest:
    return replace(
        manifest, ids=file_ids, api=api, limits=Limits(**limits), limit_lines=dict.fromkeys(limits, 6), path="m.yaml"
    )


def look(
    connection: Connection, manifest: Manifest, options: Options = RUN, *, now: datetime = NOW
) -> tuple[Outlook, list[list[str]]]:
    """What a run with *options* would send: in figures, and the files of each batch."""
    batches: list[Batch] = []
    files: list[list[str]] = []

    def take(batch: Batch) -> None:
        batches.append(batch)
        files.append(cutting.chosen(connection, 9999))

    staged = planning.stage(connection, manifest.file_ids())
    scope = ledger_scope.find_scope(connection, manifest.name, rehearsal=False, config=manifest.config)
    found = work_out(connection, scope, manifest, options, staged=staged, now=now, take=take)
    assert batches == found.batches
    return found, files


def parse(connection: Connection, config: Config, file_id: str, to: JobStatus = JobStatus.SUCCEEDED) -> None:
    """Classify one file in a job that leaves its parse."""
    plan(connection, config, [file_id], size=1)
    result = FileResult(file_id, Outcome.CLASSIFIED, "invoice")
    answer(connection, cutting.last_chunk(connection), result, to, parse_job_id=f"pjb-{file_id}")


@pytest.mark.parametrize(("files", "chunks"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_new_files_go_into_full_chunks_and_one_for_the_rest(
    manifest: Manifest, connection: Connection, files: int, chunks: int
) -> None:
    """A manifest that the ledger does not know has only new files; without any there is no batch."""
    names = many("f", files)
    found, taken = look(connection, listing(manifest, *names))
    assert found == Outlook(
        counts=Counts(files, files, 0, 0, 0, files, 0),
        batches=[Batch(manifest.config, files, 0)] if files else [],
        chunk_size=2,
        earlier=0,
        changes=Changes(),
        reclassified=Changes(),
        over_limits=None,
        sample=None,
    )
    assert (found.files, found.free, found.chunks, found.credits_ceiling) == (files, 0, chunks, files)
    assert taken == ([names] if files else [])


def test_each_batch_has_chunks_of_its_own(manifest: Manifest, connection: Connection) -> None:
    """A new file and one of a retry are two calls, though one would hold both."""
    classify(connection, manifest.config, ["a"], BAD)
    found, taken = look(connection, listing(manifest, "a", "b"), Options(again=Selection()))
    assert (taken, found.files, found.chunks) == ([["b"], ["a"]], 2, 2)


class TestParses:
    """v2 takes one file a call, and none of it is billed where an earlier parse is there still."""

    @pytest.mark.parametrize(
        ("api", "age", "free"),
        [
            ("v2", timedelta(hours=47), 2),
            ("v2", timedelta(hours=47, milliseconds=1), 0),
            ("v1", timedelta(hours=1), 0),
        ],
    )
    def test_what_is_on_a_parse_is_free(
        self, manifest: Manifest, connection: Connection, api: str, age: timedelta, free: int
    ) -> None:
        """For as long as the vendor keeps parses, and in v2 alone; a new file and a failed job have none."""
        for file_id in ("a", "b"):
            parse(connection, OLD, file_id)
        parse(connection, OLD, "c", JobStatus.FAILED)
        changed = listing(manifest, "a", "b", "c", "d", api=api)
        found, _ = look(connection, changed, now=datetime.fromisoformat(AT) + age)
        assert found.batches == [Batch(manifest.config, 4, free)]
        assert (found.files, found.free, found.credits_ceiling) == (4, free, 4 - free)
        assert (found.chunk_size, found.chunks) == ((1, 4) if api == "v2" else (2, 2))

    def test_a_parse_of_other_pages_is_of_no_use(self, manifest: Manifest, connection: Connection) -> None:
        """Nor does a retry in another language find one, while one with the manifest's own does."""
        parse(connection, manifest.config, "a")
        german = replace(manifest.config, parsing_configuration=replace(ONE_PAGE, lang="de"))
        again = Options(again=Selection(ANY))
        v2 = listing(manifest, "a", api="v2")
        assert look(connection, v2, again)[0].free == 1
        assert look(connection, v2, replace(again, config=german))[0].free == 0

    def test_the_limit_counts_what_is_free(self, manifest: Manifest, connection: Connection) -> None:
        """That a parse is still there is known only once it was used."""
        for file_id in ("a", "b"):
            parse(connection, OLD, file_id)
        found, _ = look(connection, listing(manifest, "a", "b", api="v2", max_credits=1))
        assert found.credits_ceiling == 0
        assert found.over_limits == "up to 2 credits, over limits.max_credits: 1; to go on raise it in m.yaml:6"
        assert look(connection, listing(manifest, "a", "b", api="v2", max_credits=2))[0].over_limits is None


class TestUnknownCost:
    """The server keeps a configuration's pages and mode."""

    def test_the_cost_of_a_configuration_on_the_server_is_not_known(
        self, manifest: Manifest, connection: Connection
    ) -> None:
        """Unless nothing is sent."""
        kept = replace(manifest, config=ON_SERVER)
        assert look(connection, listing(kept, "a"))[0].credits_ceiling is None
        assert look(connection, listing(kept))[0].credits_ceiling == 0

    def test_one_batch_of_unknown_cost_makes_the_sum_unknown(self, manifest: Manifest, connection: Connection) -> None:
        """Whatever the other one costs."""
        classify(connection, manifest.config, ["a"])
        found, _ = look(connection, listing(manifest, "a", "b"), Options(again=Selection(ANY), config=ON_SERVER))
        assert [batch.config.credits_ceiling(batch.files) for batch in found.batches] == [1, None]
        assert found.credits_ceiling is None


class TestSample:
    """Only some of the new files, drawn at random."""

    @pytest.mark.parametrize(("size", "files", "chunks"), [(1, 1, 1), (4, 4, 2), (5, 5, 3), (6, 5, 3)])
    def test_a_sample_is_no_larger_than_what_is_new(
        self, manifest: Manifest, connection: Connection, size: int, files: int, chunks: int
    ) -> None:
        """The price of all is told with it; the files keep the list's order."""
        names = many("f", 5)
        found, [taken] = look(connection, listing(manifest, *names), Options(sample=size, seed=7))
        assert found.sample == Sample(files, 5, 7, 5)
        assert (found.files, found.chunks, found.credits_ceiling, found.counts.new) == (files, chunks, files, 5)
        assert len(taken) == files
        assert taken == sorted(taken)

    def test_the_seed_draws_the_sample(self, manifest: Manifest, connection: Connection) -> None:
        """The same one the same files, another one others."""
        listed = listing(manifest, *many("f", 50))
        one, again, other = (look(connection, listed, Options(sample=5, seed=seed))[1] for seed in (1, 1, 2))
        assert one == again != other

    def test_only_new_files_are_sampled(self, manifest: Manifest, connection: Connection) -> None:
        """A retry beside them is whole; without new files there is no sample."""
        classify(connection, manifest.config, ["a", "b"], BAD)
        options = Options(sample=1, again=Selection())
        found, taken = look(connection, listing(manifest, "a", "b", "c", "d"), options)
        assert (found.sample, found.files, taken[1]) == (Sample(1, 2, 0, 2), 3, ["a", "b"])
        assert look(connection, listing(manifest, "a", "b"), options)[0].sample is None

    def test_limits_are_for_the_sample_alone(self, manifest: Manifest, connection: Connection) -> None:
        """Of many changed files a few are tried out first."""
        names = many("f", 3)
        classify(connection, OLD, names)
        limited = listing(manifest, *names, "new", max_files=2, max_credits=2, max_reclassify=2)
        found, [taken] = look(connection, limited, Options(sample=2))
        assert found.over_limits is None
        assert found.reclassified == Changes(len({*taken} - {"new"}), ("rules",))
        whole, _ = look(connection, limited, Options(sample=4))
        assert (whole.reclassified.files, whole.sample) == (3, Sample(4, 4, 0, 4))
        assert whole.over_limits == "4 files to send, over limits.max_files: 2; to go on raise it in m.yaml:6"

    @pytest.mark.parametrize(
        ("sample", "words"),
        [
            (Sample(1, 1, 0, None), "a sample of 1 of 1 new file; credits for all of them: unknown"),
            (Sample(2, 30, 5, 1), "a sample of 2 of 30 new files; credits for all of them: up to 1"),
            (
                Sample(1000, 20_000, 5, 12_345),
                "a sample of 1,000 of 20,000 new files; credits for all of them: up to 12,345",
            ),
        ],
    )
    def test_a_sample_in_words(self, sample: Sample, words: str) -> None:
        """For the summary's line."""
        assert sample.words == words


class TestLimits:
    """What the manifest's limits are held against."""

    def test_max_files_counts_all_batches(self, manifest: Manifest, connection: Connection) -> None:
        """New files and those of a retry."""
        classify(connection, manifest.config, ["a", "b"], BAD)
        options = Options(again=Selection())
        assert look(connection, listing(manifest, "a", "b", "c", max_files=3), options)[0].over_limits is None
        found, _ = look(connection, listing(manifest, "a", "b", "c", max_files=2), options)
        assert found.over_limits == "3 files to send, over limits.max_files: 2; to go on raise it in m.yaml:6"

    def test_max_credits_counts_each_batch_at_its_own_price(self, manifest: Manifest, connection: Connection) -> None:
        """A new file for 1 credit, and two more for 2 each."""
        classify(connection, manifest.config, ["a", "b"], BAD)
        options = Options(again=Selection(), config=BETTER)
        assert look(connection, listing(manifest, "a", "b", "c", max_credits=5), options)[0].over_limits is None
        found, _ = look(connection, listing(manifest, "a", "b", "c", max_credits=4), options)
        assert found.over_limits == "up to 5 credits, over limits.max_credits: 4; to go on raise it in m.yaml:6"

    @pytest.mark.parametrize(
        ("status", "earlier"),
        [
            (JobStatus.PENDING, 2),
            (JobStatus.SUBMITTING, 2),
            (JobStatus.SUBMITTED, 0),
            (JobStatus.RUNNING, 0),
            (JobStatus.FAILED, 0),
        ],
    )
    def test_what_an_earlier_run_left_to_be_sent_counts(
        self, manifest: Manifest, connection: Connection, status: JobStatus, earlier: int
    ) -> None:
        """Planned, or sent without an answer: it may be paid for in this run. What the API has is paid for."""
        plan(connection, manifest.config, ["a", "b"])
        bring(connection, 1, status)
        found, _ = look(connection, listing(manifest, "a", "b", "c", max_credits=2))
        assert (found.files, found.earlier) == (1, earlier)
        assert found.over_limits == (
            "up to 1 credit and 2 for what earlier runs planned or got no answer about, over limits.max_credits: 2; "
            "to go on raise it in m.yaml:6"
            if earlier
            else None
        )

    def test_what_was_left_is_asked_before_more_is_planned(self, manifest: Manifest, connection: Connection) -> None:
        """A run's own chunks are none of an earlier one."""
        limited = listing(manifest, "a", "b", max_credits=2)
        staged = planning.stage(connection, limited.file_ids())
        scope = plan(connection, manifest.config, [])
        planning.stage(connection, limited.file_ids())

        def cut_it(_: Batch) -> None:
            cut(connection, scope)

        found = work_out(connection, scope, limited, Options(), staged=staged, now=NOW, take=cut_it)
        assert (found.earlier, found.over_limits) == (0, None)
        assert planning.open_chunks(connection, scope) == [OpenChunks(JobStatus.PENDING, manifest.config, 2, 1)]

    def test_nothing_left_is_counted_without_a_limit(self, manifest: Manifest, connection: Connection) -> None:
        """And what is left at a price that nobody knows leaves the sum unknown."""
        plan(connection, ON_SERVER, ["a"])
        bring(connection, 1, JobStatus.SUBMITTING)
        assert look(connection, listing(manifest, "b"))[0].earlier == 0
        found, _ = look(connection, listing(manifest, "b", max_credits=1))
        assert (found.earlier, found.over_limits) == (None, None)

    def test_max_reclassify_counts_files_with_an_outcome_under_other_rules(
        self, manifest: Manifest, connection: Connection
    ) -> None:
        """Not those that are new altogether; --reclassify and a rehearsal lift it."""
        classify(connection, OLD, ["a", "b"])
        changed = listing(manifest, "a", "b", "c", max_reclassify=1)
        found, _ = look(connection, changed)
        assert (found.counts.new, found.counts.changed, found.reclassified) == (3, 2, Changes(2, ("rules",)))
        assert found.over_limits == (
            "2 files would be classified again because of rules, over limits.max_reclassify: 1; "
            "allow it once with --reclassify, or raise the limit in m.yaml:6"
        )
        for options in (Options(reclassify=True), Options(sandbox=True), Options(new=False)):
            assert look(connection, changed, options)[0].over_limits is None
        assert look(connection, listing(manifest, "a", "b", "c", max_reclassify=2))[0].over_limits is None

    def test_a_tenth_of_all_that_have_an_outcome_may_be_classified_again(
        self, manifest: Manifest, connection: Connection
    ) -> None:
        """Of those that are done, that failed, and that are done under other rules: of 1,010 files 101."""
        classify(connection, manifest.config, many("good", 600))
        classify(connection, manifest.config, many("bad", 300), BAD)
        classify(connection, OLD, many("changed", 110))
        listed = listing(manifest, *many("good", 600), *many("bad", 300), *many("changed", 110), "new")
        found, _ = look(connection, listed)
        assert found.counts == Counts(1011, 1011, 600, 300, 0, 111, 110)
        assert found.over_limits == (
            "110 files would be classified again because of rules, over limits.max_reclassify: 101; "
            "allow it once with --reclassify, or raise the limit"
        )


class TestChoice:
    """One file is done, one failed, one is in a job that does not end, one is new: which are sent?"""

    FILES = ("done", "failed", "stuck", "new")

    @pytest.fixture
    def listed(self, manifest: Manifest, connection: Connection) -> Manifest:
        classify(connection, manifest.config, ["done"])
        classify(connection, manifest.config, ["failed"], BAD)
        plan(connection, manifest.config, ["stuck"])
        bring(connection, 3, JobStatus.SUBMITTED)
        return listing(manifest, *self.FILES)

    @pytest.mark.parametrize(
        ("options", "files"),
        [
            (Options(), [["new"]]),
            (Options(new=False), []),
            (Options(again=Selection()), [["new"], ["failed"]]),
            (Options(new=False, again=Selection()), [["failed"]]),
            (Options(new=False, again=Selection(ANY)), [["done", "failed"]]),
            (Options(new=False, again=Selection(ANY), good_before=AT), [["failed"]]),
            (Options(new=False, again=Selection(ANY), good_before=LATER), [["done", "failed"]]),
            (Options(new=False, again=Selection((Outcome.MISSING,))), [[]]),
            (Options(new=False, stale_since=LATER), [["stuck"]]),
            (Options(new=False, stale_since=AT), [[]]),
            (Options(stale_since=LATER, again=Selection()), [["new"], ["stuck"], ["failed"]]),
            (Options(stale_since=LATER, again=Selection(ANY, file_ids=("done",))), [["new"], [], ["done"]]),
            (Options(stale_since=LATER, again=Selection(ANY, file_ids=("stuck",))), [["new"], ["stuck"], []]),
        ],
    )
    def test_options_choose_the_files(
        self, connection: Connection, listed: Manifest, options: Options, files: list[list[str]]
    ) -> None:
        """First what is new, then what is in jobs that do not end, a retry's own last; each in the list's order."""
        found, taken = look(connection, listed, options)
        assert taken == files
        assert found.batches == [Batch(listed.config, len(batch), 0) for batch in files]
        assert found.counts == Counts(4, 4, 1, 1, 1, 1, 0)

    def test_another_config_is_for_what_is_sent_again(self, connection: Connection, listed: Manifest) -> None:
        """A new file is sent as the manifest says."""
        found, _ = look(connection, listed, Options(stale_since=LATER, again=Selection(), config=BETTER))
        assert found.batches == [Batch(listed.config, 1, 0), Batch(BETTER, 1, 0), Batch(BETTER, 1, 0)]
        assert found.credits_ceiling == 5

    def test_a_file_that_failed_too_often_is_sent_when_it_is_named(
        self, connection: Connection, listed: Manifest
    ) -> None:
        """``limits.max_generations`` is for what nobody names."""
        often = replace(listed, limits=Limits(max_generations=1))
        assert look(connection, often, Options(new=False, again=Selection()))[1] == [[]]
        assert look(connection, often, Options(new=False, again=Selection(file_ids=("failed",))))[1] == [["failed"]]
        twice = replace(listed, limits=Limits(max_generations=2))
        assert look(connection, twice, Options(new=False, again=Selection()))[1] == [["failed"]]

    def test_a_file_that_the_manifest_does_not_list_cannot_be_sent_again(
        self, connection: Connection, listed: Manifest
    ) -> None:
        """It is named."""
        with pytest.raises(InputError, match=r"^file 'strange' is not in the manifest; name files that it lists$"):
            look(connection, listed, Options(again=Selection(file_ids=("done", "strange"))))

    def test_a_retry_says_what_the_manifest_changed(self, manifest: Manifest, connection: Connection) -> None:
        """Of files that have an outcome under the rules of before alone; a run that takes them as new says so too."""
        classify(connection, replace(OLD, mode=Mode.MULTIMODAL), ["a", "b"], BAD)
        classify(connection, manifest.config, ["c"], BAD)
        listed = listing(manifest, "a", "b", "c")
        again = Options(new=False, again=Selection(other_rules=True))
        found, taken = look(connection, listed, again)
        assert (taken, found.changes, found.reclassified) == (
            [["a", "b", "c"]],
            Changes(2, ("rules", "mode")),
            Changes(),
        )
        found, taken = look(connection, listed)
        assert (taken, found.changes, found.reclassified) == (
            [["a", "b"]],
            Changes(),
            Changes(2, ("rules", "mode")),
        )
