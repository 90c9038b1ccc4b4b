"""Whole runs in virtual time against a simulated API, with faults and crashes chosen by a seed, judged from outside."""
