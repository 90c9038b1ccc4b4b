"""The preview is what happens: ``plan``, ``retry --dry-run`` and ``run`` say the same of the same ledger."""

from __future__ import annotations

import json
import os

from support.commands import OUTAGE, Cli, Serve, refusing
from support.moody import Moody

from orchestrator.models import Json


def planned(cli: Cli, *options: str) -> dict[str, Json]:
    """The plan, without the times at which it was asked for."""
    found: dict[str, Json] = json.loads(cli("plan", "m.yaml", "--json", *options).stdout)
    return {name: value for name, value in found.items() if name not in ("started_at", "finished_at")}


def test_after_an_outage_plan_tells_what_the_next_run_sends(cli: Cli, serve: Serve) -> None:
    """What was planned and never sent is planned again: it is new, and it costs."""
    cli.use(serve(refusing(503)))
    before = planned(cli)
    assert cli("run", "m.yaml", **OUTAGE).returncode == 7
    after = planned(cli)
    assert (after["new"], after["create_calls"], after["credits_ceiling"], after["in_flight"]) == (3, 1, 15, 0)
    assert before == after
    api = Moody()
    cli.use(serve(api))
    done = json.loads(cli("run", "m.yaml", "--json").stdout)
    assert (api.bought.total(), done["jobs_created"], done["credits_ceiling"]) == (3, 1, 15)


def test_after_an_outage_plan_says_that_the_next_run_refuses(cli: Cli, serve: Serve) -> None:
    """With the very words of exit 6."""
    cli.use(serve(refusing(503)))
    cli("run", "m.yaml", **OUTAGE)
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("limits: {max_credits: 14}\n")
    told = planned(cli)["over_limits"]
    done = cli("run", "m.yaml")
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (6, f"orchestrator: {told}; nothing was sent")


def test_an_interrupted_rehearsal_is_planned_as_new(cli: Cli) -> None:
    """The sandbox that had its jobs is gone, so nothing of it is in flight."""
    cli.manifest("182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26e")
    assert cli("run", "m.yaml", "--sandbox", "--fault", "job-stick=1", "--deadline", "1s").returncode == 3
    assert (planned(cli, "--sandbox")["new"], planned(cli, "--sandbox")["in_flight"]) == (1, 0)


def test_retry_shows_what_is_left_after_an_outage(cli: Cli, serve: Serve) -> None:
    """A plan that an outage cut off keeps no file from being retried, neither dry nor in earnest."""
    api = Moody()
    api.bad = "^b$"
    cli.use(serve(api))
    cli("run", "m.yaml")
    path = cli.folder / "m.yaml"
    path.write_text(path.read_text().replace("line items", "the line items"))
    cli.use(serve(refusing(503)))
    assert cli("run", "m.yaml", **OUTAGE).returncode == 7
    assert json.loads(cli("retry", "m.yaml", "--dry-run", "--json").stdout)["file_ids"] == ["b"]
    api.bad = "^$"
    cli.use(serve(api))
    cli("retry", "m.yaml")
    assert api.bought == {"a": 1, "b": 2, "c": 1}


def test_a_manifest_whose_path_is_not_text_is_registered_by_adopt_too(cli: Cli, serve: Serve) -> None:
    """By the same call as ``run`` makes."""
    cli.use(serve(Moody()))
    name = os.fsdecode(b"caf\xe9.yaml")
    (cli.folder / "m.yaml").rename(cli.folder / name).chmod(0o600)
    assert cli("run", name, "--ledger", "one.db").returncode == 0
    done = cli("adopt", name, "--ledger", "two.db")
    assert (done.returncode, done.stderr.count("bug")) == (0, 0)
