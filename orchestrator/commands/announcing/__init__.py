"""The reports that a run sends out: ``end`` makes those of its end, and ``pings`` calls the monitor of a schedule."""
