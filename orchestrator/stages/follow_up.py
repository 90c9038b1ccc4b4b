"""Work that is known only when everything else has ended: halving failed chunks, and second opinions."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.ledger import Transaction
from orchestrator.stages.work import Work


class FollowUp:
    """Looks, each time the other stages have nothing left to do, for more to send; idle when there is none."""

    def __init__(
        self,
        work: Work,
        *,
        others_idle: Callable[[], bool],
        plan_more: Callable[[Transaction], int],
        send_again: Callable[[], None],
    ) -> None:
        """*plan_more* makes pending chunks in its transaction and says how many; *send_again* has them sent."""
        self._work = work
        self._others_idle = others_idle
        self._plan_more = plan_more
        self._send_again = send_again
        self._looked_at = (-1, -1)  #: how many chunks had been taken up and jobs had ended when it last looked

    @property
    def idle(self) -> bool:
        return self._looked_at == (self._work.taken_up, self._work.ended) and self._others_idle()

    async def run(self) -> None:
        work = self._work
        while True:
            seen = work.stop.version
            if self._others_idle() and not self.idle:
                now = (work.taken_up, work.ended)
                more = await work.writer.write(self._plan_more) if work.stop.sending else 0
                if more:
                    self._send_again()
                self._looked_at = now  # not before: while it looks it is not idle, or the run would end
                work.stop.tell()
            await work.stop.news(seen)
