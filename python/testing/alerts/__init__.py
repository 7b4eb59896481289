"""The cases of the alerts, and which series there are."""
