"""What unit tests and scenarios share: stand-ins, clients and cases. pyproject.toml has pytest and mypy find it."""
