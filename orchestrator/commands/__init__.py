"""One module per command that needs the key, the lock or the clock: it wires the rooms below and prints nothing.

May be imported by cli only.
"""
