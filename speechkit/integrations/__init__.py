"""Checkpoints of other toolkits: everything that knows a foreign file format, key table or configuration.

Readers return a `Foreign` (foreign.py): a configuration, weights under SpeechKit's names and what became of
every entry. Writers take the same things back. Nothing here imports another toolkit or runs code from a file.
"""
