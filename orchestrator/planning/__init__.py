"""The files to send and their cost, decided once: ``plan`` works it out, ``run`` writes it into the ledger.

May be imported by stages, reports, commands and cli. Imports the ledger and the manifest, and knows no HTTP.
"""
