"""The fleet, its inventory, and traffic while it is changed."""

from testing.rollout_fixtures import fleet, site, under_traffic

__all__ = ["fleet", "site", "under_traffic"]
