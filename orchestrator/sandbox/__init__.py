"""The embedded LlamaCloud classify API: both versions over real HTTP, with every fault that a network has.

``Sandbox`` serves it; ``SandboxOptions`` holds its switches. Nothing leaves the machine and nothing is billed. The room
knows nothing of its client: import only the names below.
"""

from orchestrator.sandbox.options import SandboxOptions, parse_faults
from orchestrator.sandbox.server import Sandbox, serve

__all__ = ["Sandbox", "SandboxOptions", "parse_faults", "serve"]
