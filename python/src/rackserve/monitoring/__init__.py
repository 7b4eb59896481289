"""What configures Alertmanager and Prometheus: receivers of alerts and of samples, and their secrets by file."""

from rackserve.monitoring._alert_routes import alertmanager_config, receiver_secrets
from rackserve.monitoring._remote_write import remote_write_entries, remote_write_files

__all__ = ["alertmanager_config", "receiver_secrets", "remote_write_entries", "remote_write_files"]
