"""Known vulnerabilities of the Python packages in a bundle, looked up by pip-audit on the day it is built.

pip-audit has no offline mode, so its result is kept as an attestation beside the manifest, valid for that day.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from rackserve._process import run
from rackserve._schema import Converting
from rackserve.bundle._locks import pins
from rackserve.bundle._waivers import Finding, NotAudited, Waiver
from rackserve.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AUDIT: Final = "audit"  # the attestation's name
Service = Literal["pypi", "osv", "esms"]
_TIMEOUT_S: Final = 900.0
_SHOWN: Final = 5


class Audit(Converting):
    """The audit's query, its findings and its verdict; `ok` is None when it could not decide: it did not pass."""

    tool: str
    version: str
    service: str
    made_at: dt.datetime
    audited: int = Field(ge=0, description="pins of which the service knew")
    findings: tuple[Finding, ...]
    not_audited: tuple[NotAudited, ...]
    ok: bool | None = None
    reason: str = "not judged"
    waived: tuple[Waiver, ...] = ()

    def content(self) -> dict[str, Any]:
        """Return the content for `attest`, which adds the manifest's sha256."""
        return self.model_dump(mode="json")


def skipped(reason: str) -> Audit:
    """Return the record of a skipped audit, with the reason; it did not pass."""
    return Audit(
        tool="pip-audit",
        version=importlib.metadata.version("pip-audit"),
        service="none",
        made_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        audited=0,
        findings=(),
        not_audited=(),
        reason=f"not asked: {reason}",
    )


def audit(locks: Sequence[Path], service: Service = "pypi", osv_url: str | None = None) -> Audit:
    """Query a service for every pin of the locks; a pin without an answer is recorded, and the audit did not pass.

    Args:
        locks: requirements with `name==version` pins.
        service: the vulnerability service that pip-audit queries.
        osv_url: URL of the site's own OSV service, instead of the public one.

    Raises:
        InputError: when a lock has no pins.
    """
    findings: list[Finding] = []
    gaps: list[NotAudited] = []
    total = 0
    for lock in locks:
        wanted = pins(lock.read_text(encoding="utf-8"))
        if not wanted:
            raise InputError(f"{lock} pins no package as `name==version`; make it with python/tools/refresh_locks.sh")
        total += len(wanted)
        try:
            found, missed = parse_report(_ask(wanted, service, osv_url), wanted, lock.name)
        except BundleError as failed:
            found, missed = [], [_gap(item, lock.name, str(failed)) for item in wanted.items()]
        findings += found
        gaps += missed
    made_at = dt.datetime.now(dt.UTC).replace(microsecond=0)
    raw = Audit(
        tool="pip-audit",
        version=importlib.metadata.version("pip-audit"),
        service=service,
        made_at=made_at,
        audited=total - len(gaps),
        findings=tuple(findings),
        not_audited=tuple(gaps),
    )
    return judge(raw, (), made_at.date(), max_age_days=0)


def public_version(version: str) -> str:
    """Return a version without its local part: advisories name 2.13.0, whatever build of it is pinned (2.13.0+cpu)."""
    return version.partition("+")[0]


def _ask(wanted: Mapping[str, str], service: Service, osv_url: str | None) -> str:
    with tempfile.TemporaryDirectory(prefix="rackserve-audit-") as scratch:
        asked, report = Path(scratch, "asked.txt"), Path(scratch, "report.json")
        lines = (f"{name}=={public_version(version)}\n" for name, version in wanted.items())
        asked.write_text("".join(lines), encoding="utf-8")
        try:
            run(
                [
                    *(sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"),
                    *("--aliases", "on", "--desc", "off", "--progress-spinner", "off", "--no-deps", "--disable-pip"),
                    *("--cache-dir", Path(scratch, "cache"), "--requirement", asked, "--output", report),
                    *(("--osv-url", osv_url) if osv_url else ()),
                ],
                error=BundleError,
                what=f"ask {service} for known vulnerabilities",
                timeout_s=_TIMEOUT_S,
            )
        except BundleError as failed:
            # It ends with 1 both for findings and for failures; only a failure leaves no report.
            if not report.exists() or not report.stat().st_size:
                raise BundleError(_in_one_line(str(failed))) from failed
        return report.read_text(encoding="utf-8")


def _in_one_line(failure: str) -> str:
    first, *more = failure.replace(sys.executable, "pip-audit").splitlines()  # no path of this machine is attested
    return f"{first}: {more[-1].strip()}" if more else first


def parse_report(report: str, wanted: Mapping[str, str], lock: str) -> tuple[list[Finding], list[NotAudited]]:
    """Read pip-audit's JSON (its README, "JSON format"); a pin without an answer was not audited.

    pip-audit 2.10 ends with 0 and says "No known vulnerabilities found" when it skipped every package, as it does
    behind a mirror of the index without the JSON interface: only an answer with `vulns` for the very version counts.

    Raises:
        BundleError: when the report does not have that form.
    """
    findings, gaps = [], []
    try:
        answers = {answer["name"]: answer for answer in json.loads(report)["dependencies"]}
        for name, version in wanted.items():
            answer = answers.get(name, {"skip_reason": "pip-audit did not answer for it"})
            if "vulns" not in answer:
                gaps.append(_gap((name, version), lock, answer["skip_reason"]))
            elif answer["version"] != public_version(version):
                gaps.append(_gap((name, version), lock, f"pip-audit answered for {answer['version']}"))
            else:
                findings += [_finding(name, version, lock, vulnerability) for vulnerability in answer["vulns"]]
    except (ValueError, KeyError, TypeError, AttributeError) as bad:
        raise BundleError(f"pip-audit's report is not in the form that its README documents ({bad!r})") from bad
    return findings, gaps


def _finding(name: str, version: str, lock: str, vulnerability: Mapping[str, Any]) -> Finding:
    return Finding(
        package=name,
        version=version,
        id=vulnerability["id"],
        aliases=tuple(sorted(vulnerability["aliases"])),
        fixed_in=tuple(vulnerability["fix_versions"]),
        lock=lock,
    )


def _gap(pin: tuple[str, str], lock: str, reason: str) -> NotAudited:
    return NotAudited(package=pin[0], version=pin[1], lock=lock, reason=reason)


def judge(made: Audit, waivers: Sequence[Waiver], today: dt.date, max_age_days: int) -> Audit:
    """Return the audit with a new verdict; its findings are unchanged.

    A finding without a valid waiver fails the audit, whatever its age. Otherwise it passes only if it is recent enough
    and every pin was audited or its gap is waived.

    Args:
        made: the audit.
        waivers: risks that the operator accepted; an expired waiver has no effect.
        today: the date in UTC.
        max_age_days: age up to which an audit is valid.
    """
    used = [waiver for waiver in waivers if any(waiver.covers(item, today) for item in _items(made))]

    def open_of(items: Sequence[Finding] | Sequence[NotAudited]) -> list[Any]:
        return [item for item in items if not any(waiver.covers(item, today) for waiver in used)]

    bad, gaps = open_of(made.findings), open_of(made.not_audited)
    ok, reason = _judgement(made, bad, gaps, today, max_age_days)
    return made.model_copy(update={"ok": ok, "reason": reason, "waived": tuple(used)})


def _items(made: Audit) -> Iterator[Finding | NotAudited]:
    yield from made.findings
    yield from made.not_audited


def _judgement(
    made: Audit, bad: Sequence[Finding], gaps: Sequence[NotAudited], today: dt.date, max_age_days: int
) -> tuple[bool | None, str]:
    age = (today - made.made_at.date()).days
    if bad:
        named = [f"{item.package} {item.version}: {item.id}{_fix(item)}" for item in bad]
        return False, f"{len(bad)} of {len(made.findings)} findings not waived: {_shorten(named)}"
    if not made.audited:
        return None, f"nothing was audited: {gaps[0].reason if gaps else 'no lock was given, or every gap is waived'}"
    if age < 0:
        return None, f"it was made on {made.made_at:%Y-%m-%d}, and today is {today}; one of the two clocks is wrong"
    if age > max_age_days:
        return None, f"it is {age} days old, and {max_age_days} are allowed; audit again on the connected side"
    if gaps:
        named = [f"{item.package} {item.version} ({item.reason})" for item in gaps]
        return None, f"{len(gaps)} packages were not audited: {_shorten(named)}"
    return True, f"{made.audited} packages audited, no known vulnerability that is not waived"


def _fix(item: Finding) -> str:
    return f" (fixed in {', '.join(item.fixed_in)})" if item.fixed_in else " (no fix)"


def _shorten(names: Sequence[str]) -> str:
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more
