"""What a run tells others at its end never changes how it ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.commands.announcing import end as announcing
from orchestrator.commands.announcing import metrics, notify, traces


@pytest.mark.parametrize("broken", ["page", "metrics", "notify", "traces"])
def test_whatever_breaks_in_one_report_the_others_are_made(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Each of the four on its own, and the run goes on to its end."""
    told: list[str] = []

    def tell(name: str, *_: object) -> None:
        told.append(name)
        if name == broken:
            raise RuntimeError("a bug")

    for name, module, function in (
        ("page", announcing, "_write_page"),
        ("metrics", metrics, "write"),
        ("notify", notify, "of_end"),
        ("traces", announcing, "_trace"),
    ):
        monkeypatch.setattr(module, function, lambda *given, name=name: tell(name, *given))
    monkeypatch.setattr(metrics, "target", lambda *_: "night.prom")
    monkeypatch.setattr(traces, "wanted", lambda _: True)
    nothing: Any = None
    manifest: Any = SimpleNamespace(report="page.html", path="m.yaml", name="night")
    options: Any = SimpleNamespace(sandbox=False, metrics_file=None, wait=True, ledger=None)
    summary: Any = SimpleNamespace(drift=None, exit_code=0)
    announcing.of_end(manifest, nothing, options, nothing, summary, nothing)
    assert told == ["page", "metrics", "notify", "traces"]
