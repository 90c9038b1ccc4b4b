"""Changes one operator, number or condition of a deciding module at a time: the module's tests have to notice.

Each mutant is put into a fork of a process that has collected the tests, by replacing the code of the module's
functions in place. So it takes no longer than the tests themselves, and nothing is written into the checkout. What
tests start through the ``cli`` fixture is forked from there too. Annotations, decorators, imports and texts are not
mutated. Tests that never enter a function are not asked about its mutants.

Ends in 1 when the tests notice less than ``--least`` per cent of a module's mutants. Mutants whose effect nobody could
see are listed in ``mutation.toml`` with the reason, by the text of their lines, and do not count.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import multiprocessing
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.mutants import Mutant, mutants, transplant

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_suffix(".toml")

#: Module, or function of a module -> its tests.
TARGETS: dict[str, tuple[str, ...]] = {
    "orchestrator.models:canonical_id": ("tests/test_models.py",),
    "orchestrator.api.status_codes": ("tests/api/test_status_codes.py",),
    "orchestrator.stages.unanswered.judging": ("tests/stages/unanswered/test_judging.py",),
    "orchestrator.stages.unanswered.evidence": ("tests/stages/unanswered/test_evidence.py",),
    "orchestrator.stages.unanswered.likeness": ("tests/stages/unanswered/test_likeness.py",),
    "orchestrator.stages.matching": ("tests/stages/test_matching.py",),
    "orchestrator.stages.collector": ("tests/stages/test_collector.py",),
    "orchestrator.planning.plan": ("tests/planning/test_outlook.py", "tests/planning/test_forecast.py"),
    "orchestrator.planning.run": ("tests/planning/test_run.py",),
    "orchestrator.planning.preview": ("tests/planning/test_preview.py",),
    "orchestrator.planning.naming": ("tests/planning/test_naming.py",),
    "orchestrator.planning.documents": ("tests/planning/test_documents.py",),
    "orchestrator.planning.ceiling": ("tests/planning/test_ceiling.py::TestLines",),
    "orchestrator.planning.limits": ("tests/planning/test_limits.py",),
    "orchestrator.planning.retry:selection": ("tests/planning/test_retry_options.py",),
    "orchestrator.planning.retry:listed": ("tests/planning/test_retry_options.py",),
    "orchestrator.planning.retry:overridden": ("tests/planning/test_retry_options.py",),
}


@dataclass
class Result:
    """How the mutants of one module fared."""

    target: str
    mutants: int = 0
    killed: int = 0
    by_time: int = 0  #: of *killed*
    equivalent: int = 0
    survivors: list[Mutant] = field(default_factory=list)
    trouble: str | None = None  #: why nothing was tried
    seconds: float = 0.0

    @property
    def percent(self) -> float:
        counted = self.mutants - self.equivalent
        return 100 * self.killed / counted if counted else 100.0


@dataclass
class Recorded:
    """What the unmutated module's tests do."""

    failed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    entered: dict[str, set[int]] = field(default_factory=dict)  #: test -> first lines of the functions that it enters


class Trial:
    """A plugin of pytest that runs the collected tests once for each mutant, in a fork."""

    def __init__(self, target: str, result: Result, choose: Callable[[list[Mutant]], list[Mutant]]) -> None:
        name, _, function = target.partition(":")
        self.module = importlib.import_module(name)
        self.function = function or None
        self.source = Path(str(self.module.__file__)).read_text()
        self.result = result
        self.choose = choose

    def pytest_configure(self) -> None:
        """Have Hypothesis try the same examples for each mutant, and shrink none."""
        from hypothesis import Phase, settings  # pytest wants to see it first

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutation", deadline=None, database=None, derandomize=True, phases=phases)
        settings.load_profile("mutation")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        started = time.monotonic()
        items = list(session.items)
        recorded = self._record(session, items)
        if recorded.failed:
            self.result.trouble = f"fails unmutated: {', '.join(recorded.failed)}"
            return True
        order = sorted(items, key=lambda item: ("cli" in _fixtures(item), recorded.seconds[item.nodeid]))
        equivalent = {(each["was"], each["mutant"]) for each in _equivalent() if each["module"] == self.result.target}
        functions = _functions(self.source)
        for mutant in self.choose(list(mutants(self.source, self.function))):
            self.result.mutants += 1
            if (mutant.was, mutant.now) in equivalent:
                self.result.equivalent += 1
                continue
            entry = next((first for first, last in functions if first <= mutant.line <= last), None)
            asked = [
                item for item in order
                if entry is None or "cli" in _fixtures(item) or entry in recorded.entered[item.nodeid]
            ]  # fmt: skip
            self._try(session, mutant, asked, recorded, again=entry is None)
        self.result.seconds = time.monotonic() - started
        return True

    def _record(self, session: pytest.Session, items: Sequence[pytest.Item]) -> Recorded:
        """Run all the tests with the module replaced by itself: that must change nothing."""
        recorded = Recorded()
        filename, inside = self.module.__file__, set[int]()

        def enter(frame: FrameType, _event: str, _value: object) -> None:
            if frame.f_code.co_filename == filename:
                inside.add(frame.f_code.co_firstlineno)

        def child() -> bytes:
            transplant(self.module, self.source, self.function)
            threading.settrace(enter)
            for item in items:
                inside.clear()
                began = time.monotonic()
                sys.settrace(enter)
                passed = _passes(session, [item])
                sys.settrace(None)
                recorded.seconds[item.nodeid] = time.monotonic() - began
                recorded.entered[item.nodeid] = set(inside)
                if not passed:
                    recorded.failed.append(item.nodeid)
            return pickle.dumps(recorded)

        _, said = _forked(child, wall_s=1800, cpu_s=900)
        if not said:
            recorded.failed.append("the tests do not come to their end")
            return recorded
        found: Recorded = pickle.loads(said)  # noqa: S301 written by our own fork
        return found

    def _try(
        self, session: pytest.Session, mutant: Mutant, items: Sequence[pytest.Item], recorded: Recorded, *, again: bool
    ) -> None:
        """Run *items* with *mutant*. *again*: load the tests anew, for what they made with defaults and constants."""
        seconds = sum(recorded.seconds[item.nodeid] for item in items)

        def child() -> bytes:
            transplant(self.module, mutant.source, self.function)
            if again:
                for tests in {item.module for item in items if isinstance(item, pytest.Function)}:
                    tests.__spec__.loader.exec_module(tests)
            return b"survived" if _passes(session, items) else b"killed"

        in_time, said = _forked(child, wall_s=60 + 10 * seconds, cpu_s=5 + 3 * seconds)
        if said == b"survived":
            self.result.survivors.append(mutant)
        else:
            self.result.killed += 1
            self.result.by_time += not in_time


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


def _functions(source: str) -> list[tuple[int, int]]:
    """First and last line of each function, the inner ones left to their outer one; decorators are part of it."""
    found: list[tuple[int, int]] = []

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([child.lineno, *(each.lineno for each in child.decorator_list)])
                found.append((first, child.end_lineno or child.lineno))
            else:
                walk(child)

    walk(ast.parse(source))
    return found


def _passes(session: pytest.Session, items: Sequence[pytest.Item]) -> bool:
    """Whether all *items* pass; stops at the first that does not."""
    failed = session.testsfailed
    for item in items:
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        if session.testsfailed > failed:
            return False
    return True


def _forked(work: Callable[[], bytes], *, wall_s: float, cpu_s: float) -> tuple[bool, bytes]:
    """What *work* returns in a fork; nothing when it raises. Whether it ended within its time, and with what."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 1))
            os.write(writing, work())
        os._exit(0)
    os.close(writing)
    alarm = threading.Timer(wall_s, os.killpg, (child, signal.SIGKILL))
    alarm.start()
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    alarm.cancel()
    alarm.join()
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what the tests started
    _, status = os.waitpid(child, 0)
    return bool(said) or os.WIFEXITED(status), said


def _equivalent() -> list[dict[str, str]]:
    found: list[dict[str, str]] = tomllib.loads(EQUIVALENT.read_text())["equivalent"]
    return found


def examine(target: str, sample: int | None, seed: int) -> Result:
    """Try the mutants of *target*, or *sample* of them."""
    result = Result(target)

    def choose(found: list[Mutant]) -> list[Mutant]:
        return found if sample is None else random.Random(seed).sample(found, min(sample, len(found)))

    os.chdir(ROOT)
    forked: Any = importlib.import_module("support.forked")
    forked.FORKS = multiprocessing.get_context("fork")  # so that what a test starts has the mutant
    for name in ("orchestrator.cli", "orchestrator.commands.run"):
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 1)
        arguments = ["-q", "--tb=line", f"--basetemp={folder}/tests"]
        quiet = [
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-W",
            "ignore::DeprecationWarning:multiprocessing.popen_fork",
        ]
        code = pytest.main([*arguments, *quiet, *TARGETS[target]], plugins=[Trial(target, result, choose)])
        if not result.mutants and result.trouble is None:
            result.trouble = f"pytest ended in {code}: {log.read_text()[-2000:]}"
    return result


def tell(result: Result) -> None:
    """Print how the mutants of a module fared."""
    if result.trouble is not None:
        print(f"{result.target}: {result.trouble}")
        return
    print(
        f"{result.target}: {result.mutants} mutants, {result.equivalent} equivalent, {result.killed} killed "
        f"({result.by_time} by time): {result.percent:.1f} % in {result.seconds:.0f} s"
    )
    for mutant in result.survivors:
        print(f"  line {mutant.line} {mutant.operator}\n    - {mutant.was}\n    + {mutant.now}")


def main() -> int:
    """Examine the modules that the arguments name, or all."""
    parser = argparse.ArgumentParser(description="Mutation testing of the modules that decide.")
    parser.add_argument("--module", action="append", choices=list(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--sample", type=int, help="only so many mutants of each module, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="the same seed chooses the same sample")
    parser.add_argument("--workers", type=int, default=1, help="modules at a time (default 1)")
    parser.add_argument("--least", type=float, default=90.0, help="per cent of each module's mutants (default 90)")
    arguments = parser.parse_args()
    results: list[Result] = []
    pool = ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    with pool:
        work = functools.partial(examine, sample=arguments.sample, seed=arguments.seed)
        for result in pool.map(work, arguments.module or TARGETS):
            tell(result)
            sys.stdout.flush()
            results.append(result)
    counted = sum(result.mutants - result.equivalent for result in results)
    killed = sum(result.killed for result in results)
    print(f"in all: {killed} of {counted} noticed, {100 * killed / max(counted, 1):.1f} %")
    return int(any(result.trouble is not None or result.percent < arguments.least for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
