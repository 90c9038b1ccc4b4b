"""How fast calls may leave, learnt from the API's own refusals: the decisions, without waiting.

The limit is not known beforehand: the documented one is only the ceiling, and a free account has 20 calls a minute
where a paid one has 40 a second. How it is learnt:

* A refusal says that the API's window is full just now, so the calls it accepted within that window *are* the limit.
  The window is taken to be a second; when a lone trial call is refused long after such a window must have emptied, it
  is taken to be the next longer one that APIs use (``window.WINDOWS_S``).
* A refusal close to the documented limit is mostly a call that the network let catch up with the one before: a short
  pause, no trial, and a slightly lower pace only when such refusals are not rare.
* A refusal that no count explains (a token bucket that has run dry) makes the pace fall by a factor.
* Refusals that go on at a pace well below what was accepted have nothing to do with it (an API in trouble, a proxy):
  the pace goes back to what it was, and while they become no more frequent they change nothing.
* The pace creeps up only while callers wait for it: quickly to just below what was last refused, then, after a long
  calm, carefully past it. Each attempt that fails doubles the calm before the next.

``window`` counts the calls, ``gate`` says when one may leave after a refusal, ``pace`` chooses how many a second,
``noise`` finds the refusals that have nothing to do with the pace, and ``pacer`` puts the four together. The rest of
the program uses ``pacer.Pacer``. All times are monotonic seconds handed in by the caller.
"""
