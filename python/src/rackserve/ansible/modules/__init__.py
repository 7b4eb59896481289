"""Modules: what runs on hosts; standard library and Python 3.9 only."""
