"""Alerts that are causes, and alerts that are only symptoms."""

from __future__ import annotations

from typing import Final

# Alert: weight of 100, cause, fix. Every other alert is a symptom, reported when no cause explains it.
CAUSES: Final[dict[str, tuple[int, str, str]]] = {
    "HostDown": (99, "the host is off or cut from the network", "power, console, link of the host"),
    "GpuLost": (97, "a GPU has fallen off the bus, or its driver does not answer", "boot the host; then the hardware"),
    "GpuXid": (96, "the driver reports a fault of the GPU", "look up the Xid; reset or replace the GPU"),
    "GpuEccErrors": (95, "the GPU's memory fails", "close its instances, reset the GPU, replace it if it goes on"),
    "EdgeDown": (95, "nginx does not answer", "systemctl status nginx; nginx -t; rackserve apply"),
    "DiskFull": (92, "a disk is full", "journalctl --vacuum-size=500M; unused snapshots and old releases"),
    "InstanceCorrupt": (90, "the weights answer differently than before", "rackserve apply compares every file"),
    "NotServingModel": (90, "the engine runs with other arguments than the inventory's", "rackserve apply"),
    "CertificateExpiresNow": (88, "the edge's certificate ends", "have it renewed; rackserve apply"),
    "GpuThrottled": (80, "the GPU is slowed down by heat or lack of power", "fans, inlet temperature, power supply"),
    "KvPressure": (75, "the requests do not fit the KV cache", "lower max_num_seqs or max_model_len"),
    "PrefixHitsCollapsed": (72, "prefixes are no longer found", "put what changes at the end of the prompt"),
    "InstanceHung": (70, "the engine's process is stuck", "its probe restarts it; journalctl -u vllm-probe@NAME"),
    "VllmHung": (69, "the engine's process is stuck", "its probe restarts it; journalctl -u vllm-probe@NAME"),
    "ReleaseDrift": (65, "the host runs another release than the inventory's", "rackserve apply"),
    "BundleAltered": (65, "a file of the bundle was altered on the host", "journalctl -u rackserve-bundle-verify"),
    "ClockSkew": (60, "the host's clock is off", "timedatectl; a time source inside of the rack"),
    "Drift": (45, "somebody changed the host since the last complete run", "rackserve drift --limit HOST"),
    "DiskFilling": (50, "a disk fills", "journalctl --disk-usage; unused snapshots and old releases"),
}
# A symptom has many causes: reported only where no cause was found on the same host.
SYMPTOM_WEIGHT: Final = 20
IGNORED: Final = {"Watchdog"}
