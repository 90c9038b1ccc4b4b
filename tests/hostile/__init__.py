"""A second opinion on the API: a server written from its contract alone, which leaves out, bends and breaks by seed.

It shares no line with the sandbox, the simulation or the other fakes, so that it does not share their assumptions.
``scripts/soak hostile`` drives the real program through it; ``temper`` lists what the server may do.
"""
