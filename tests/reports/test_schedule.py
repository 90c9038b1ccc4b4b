"""The entry of a schedule: whole paths, nothing that cron or systemd would read otherwise, and few rights."""

from __future__ import annotations

import plistlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.reports.schedule import Night, entry

CONFIGS = Path(__file__).parents[2] / "configs"

NIGHT = Night(
    program=["/opt/my program/bin/orchestrator"],
    manifest=Path("/srv/100%/m.yaml"),
    name="letters",
    user="classify",
    writes=[Path("/srv/100%")],
    options=["--deadline", "6h"],
)


def test_a_cron_line_is_read_back_as_the_command() -> None:
    """Cron ends a command at a bare percent sign; the line is the mail's subject, so nothing else is in it."""
    line = entry("cron", NIGHT).splitlines()[-1]
    minute, hour, *stars, command = line.split(maxsplit=5)
    assert (hour, stars, 0 <= int(minute) < 60) == ("4", ["*", "*", "*"], True)
    assert not re.search(r"(?<!\\)%", command)
    assert shlex.split(command.replace("\\%", "%")) == NIGHT.command


def test_a_service_is_read_back_as_the_command() -> None:
    """Blanks are quoted, percent signs doubled; a failed night starts the unit that tells of it."""
    text = entry("systemd", NIGHT)
    assert '\nExecStart="/opt/my program/bin/orchestrator" nightly /srv/100%%/m.yaml --deadline 6h\n' in text
    assert "\nReadWritePaths=/srv/100%%\n" in text
    assert "\nOnFailure=orchestrator-letters-failed.service\n" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("which", ["printed", "example"])
def test_a_service_has_few_rights(tmp_path: Path, which: str) -> None:
    """An exposure of 3.0 at most, as systemd counts it."""
    printed = "# " + entry("systemd", NIGHT).split("# /etc/systemd/system/")[1]
    example = (CONFIGS / "orchestrator-nightly.service").read_text()
    unit = tmp_path / "orchestrator-letters.service"
    unit.write_text(printed if which == "printed" else example)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True, check=False
    )
    found = re.search(r"exposure level for .*: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= 3.0


def test_a_launch_agent_is_a_property_list() -> None:
    """With the command word by word."""
    found = plistlib.loads(entry("launchd", NIGHT).encode())
    assert found["ProgramArguments"] == NIGHT.command
    assert found["StartCalendarInterval"]["Hour"] == 4
