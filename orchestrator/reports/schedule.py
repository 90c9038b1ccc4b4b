"""The entry that has this machine call ``orchestrator nightly``: for cron, systemd or launchd, with its own paths."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

KINDS = ("cron", "systemd", "launchd")

#: Clear of the hours that summer time repeats or skips.
HOUR = 4


@dataclass(frozen=True, slots=True)
class Night:
    """The command of each night, its user, and where it writes."""

    program: Sequence[str]
    manifest: Path
    name: str  #: the manifest's
    user: str
    writes: Sequence[Path]  #: the folders of the ledger and the logs
    options: Sequence[str] = ()

    @property
    def command(self) -> list[str]:
        return [*self.program, "nightly", str(self.manifest), *self.options]

    @property
    def minute(self) -> int:
        """The minute of the hour: different for each manifest, the same every night."""
        return hashlib.sha256(str(self.manifest).encode()).digest()[0] % 60


def entry(kind: str, night: Night) -> str:
    """The text to install, with how to do so in its comments."""
    return {"cron": cron, "systemd": systemd, "launchd": launchd}[kind](night)


def cron(night: Night) -> str:
    """A crontab line. It mails only what ``nightly`` prints, which is nothing after a good night."""
    command = shlex.join(night.command).replace("%", "\\%")  # cron would end the command there
    return f"""\
# {night.name}: `crontab -e` as {night.user}, and add these two lines. Mail comes only when something is wrong.
MAILTO={night.user}
{night.minute} {HOUR} * * * {command}
"""


def systemd(night: Night) -> str:
    """A service, its timer, and what to do when a night fails; each part names the file it goes into."""
    unit = f"orchestrator-{night.name}"
    command = " ".join(_quoted(word) for word in night.command)
    writes = " ".join(_quoted(str(folder)) for folder in dict.fromkeys(night.writes))
    return f"""\
# Write the three parts to the files they name, then:
#   systemctl daemon-reload && systemctl enable --now {unit}.timer
# journalctl -u {unit} has what cron would mail.

# /etc/systemd/system/{unit}.service
[Unit]
Description=Classify the files of {night.name}
Wants=network-online.target
After=network-online.target
OnFailure={unit}-failed.service

[Service]
Type=oneshot
User={night.user}
ExecStart={command}
{hardening(writes)}
# /etc/systemd/system/{unit}.timer
[Unit]
Description=Every night: {unit}.service

[Timer]
OnCalendar=*-*-* {HOUR:02}:{night.minute:02}:00
RandomizedDelaySec=10min
# A night that the machine slept through is made up for when it wakes.
Persistent=true

[Install]
WantedBy=timers.target

{_failed(unit, night)}"""


def _failed(unit: str, night: Night) -> str:
    """The part of ``systemd`` that a failed night starts."""
    return f"""\
# /etc/systemd/system/{unit}-failed.service
[Unit]
Description=Report a failed night of {night.name}

[Service]
Type=oneshot
# Anything that reaches you: here a mail with the end of the journal.
ExecStart=/bin/sh -c 'journalctl -u {unit} -n 40 --no-pager | mail -s "{night.name}: a night failed" {night.user}'
"""


def hardening(writes: str) -> str:
    """Return what the service may do: read the project, write to the folders *writes*, and call the API."""
    return f"""\
# One SIGTERM, to the program, which passes it on: the run ends in order and the next one goes on where it stopped.
KillMode=mixed
TimeoutStopSec=120

# It needs to read the project, to write beside the manifest, and to call the API; nothing else.
ReadWritePaths={writes}
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
DevicePolicy=closed
KeyringMode=private
"""


def launchd(night: Night) -> str:
    """A LaunchAgent for macOS."""
    label = f"orchestrator.{night.name}"
    words = "\n".join(f"    <string>{escape(word)}</string>" for word in night.command)
    log = escape(str(Path(night.writes[-1]) / f"{night.name}-launchd.txt"))
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<!-- Save as ~/Library/LaunchAgents/{label}.plist, then:
     launchctl bootstrap gui/$UID ~/Library/LaunchAgents/{label}.plist -->
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key><string>{label}</string>
  <key>ProgramArguments</key>
  <array>
{words}
  </array>
  <key>StartCalendarInterval</key>
  <dict><key>Hour</key><integer>{HOUR}</integer><key>Minute</key><integer>{night.minute}</integer></dict>
  <key>StandardOutPath</key><string>{log}</string>
  <key>StandardErrorPath</key><string>{log}</string>
</dict>
</plist>
"""


def _quoted(word: str) -> str:
    """*word* as systemd reads it back: its specifiers and variables are doubled, blanks are inside quotes."""
    word = word.replace("%", "%%").replace("$", "$$")
    plain = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"' if any(c in plain for c in " \t'\"\\;") else plain
