"""The fleet's dashboards: Grafana's JSON, generated from typed Python with grafana-foundation-sdk.

`boards` describes them, `_parts` says what a panel of ours looks like, `grafana` writes the JSON that is committed in
roles/grafana/files/dashboards, and `panels` reads it back: what each panel asks Prometheus for. Only the generator
needs the SDK, which is in the checks' part of the controller's lock; a host and a run need the JSON alone.
"""
