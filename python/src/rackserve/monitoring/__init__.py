"""Configuration of Alertmanager and Prometheus: receivers, scrape jobs, rule files, and their secrets by file."""

from rackserve.monitoring._alert_routes import alertmanager_config, receiver_secrets
from rackserve.monitoring._remote_write import remote_write_entries, remote_write_files
from rackserve.monitoring._rule_files import rule_files
from rackserve.monitoring._scrape_plan import ScrapePlan, scrape_plan, unsettled_targets
from rackserve.monitoring._targets import targets_of

__all__ = [
    "ScrapePlan",
    "alertmanager_config",
    "receiver_secrets",
    "remote_write_entries",
    "remote_write_files",
    "rule_files",
    "scrape_plan",
    "targets_of",
    "unsettled_targets",
]
