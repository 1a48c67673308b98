"""Decisions: which zones a ping is in, how sure that is, and which rules are broken.

No I/O beyond loading zone and rule files, no clock, no logging: the same input gives the same output on
every machine.
"""
