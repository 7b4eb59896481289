"""STAND-IN of the probe of one instance: writes every ten seconds that it has looked and found it ready."""

import pathlib
import sys
import time

TARGET = pathlib.Path("/var/lib/prometheus/node-exporter/rackserve_instance_stand-in.prom")
LABELS = f'vllm_instance="{sys.argv[1]}",model="m"'
while True:
    draft = TARGET.with_suffix(".new")
    draft.write_text(
        f'rackserve_instance_state{{{LABELS},state="ready"}} 1\n'
        f"rackserve_instance_probe_time_seconds{{{LABELS}}} {time.time()}\n",
        encoding="utf-8",
    )
    draft.replace(TARGET)
    time.sleep(10)
