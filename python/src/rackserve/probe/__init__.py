"""Healthy means that a token came out: the probe that runs on the hosts."""
