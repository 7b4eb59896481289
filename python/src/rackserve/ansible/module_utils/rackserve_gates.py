# Apache License 2.0 (see LICENSE)
"""Is a new engine as good as the one before? Pure functions: what was asked of both in, one verdict a gate out.

Runs on the hosts: Python 3.9 or newer, standard library only. A gate is a mapping of `name`, `ok` (true, false, or null
where nothing was compared), `line` (one sentence) and `figures`. docs/reference/gates.md describes each.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional, Sequence  # noqa: UP035 - Python 3.9 runs this

Gate = Dict[str, Any]  # noqa: UP006

# The share of failing answers that the gate `errors` is sized for: one in fifty.
FAILING_SHARE = 0.02
# Largest distance of a golden answer: 1 - cosine of a vector, and the difference of a score.
VECTOR_DISTANCE = 0.01
SCORE_DISTANCE = 0.05
# Fewer answers say nothing of how fast an engine is.
MIN_SAMPLES = 6
# Of the answers, those that nothing else of the host slowed down.
FAST_SHARE = 0.03
# Other requests that ran on average; with more, two measurements are of different things.
SAME_LOAD = 0.5
# Milliseconds. Below it a difference is of the host's timers and of Python, not of an engine.
LEAST_DIFFERENCE_MS = 1.0
SPEEDS = (("first_ms", "first token"), ("between_ms", "between tokens"), ("p95_ms", "95th percentile between tokens"))


def gate(name: str, instance: str, ok: Optional[bool], text: str, **figures: Any) -> Gate:  # noqa: ANN401, FBT001, UP045
    """Return a gate; its line names the instance first."""
    return {"name": name, "ok": ok, "line": f"{instance}: {name}: {text}", "figures": figures}


def records_of(instance: str, gates: Sequence[Gate]) -> List[Dict[str, Any]]:  # noqa: UP006
    """Return the gates of an instance as the record of a run has them."""
    return [
        {"kind": "gate", "instance": instance, "gate": one["name"], **{key: one[key] for key in one if key != "name"}}
        for one in gates
    ]


def changed_parts(before: str, now: str) -> List[str]:  # noqa: UP006
    """Return the parts in which two golden identities differ, such as `model`.

    Args:
        before: as rackserve.vllm.golden_identity writes it: `key=value` with spaces between.
        now: that of the new engine.
    """
    old, new = (dict(part.partition("=")[::2] for part in text.split()) for text in (before, now))
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def judge_token(instance: str, detail: str, seconds: float, *, came: bool) -> Gate:
    """A token, a vector or a score came."""
    return gate("token", instance, came, f"{detail} after {seconds:.1f} s", seconds=round(seconds, 3))


def distance(before: Mapping[str, Any], now: Mapping[str, Any], *, compare_tokens: bool) -> float:
    """Return how far two golden answers of one kind are apart; infinite where they cannot be laid side by side."""
    old, new = before["values"], now["values"]
    if len(old) != len(new) or not old or (compare_tokens and before["tokens"] != now["tokens"]):
        return math.inf
    if before["kind"] == "embedding":
        return 1.0 - cosine(old, new)
    return max(abs(float(one) - float(other)) for one, other in zip(old, new))  # noqa: B905 - Python 3.9 has no strict


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of the angle between two vectors; 0 where there is none."""
    if len(one) != len(other):
        return 0.0
    lengths = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(y * y for y in other))
    return sum(x * y for x, y in zip(one, other)) / lengths if lengths else 0.0  # noqa: B905 - the same


def judge_golden(
    instance: str,
    before: Optional[Mapping[str, Any]],  # noqa: UP045
    answers: Sequence[Mapping[str, Any]],
    changed: Sequence[str],
    tolerance: float,
) -> Gate:
    """The golden answer is that of the engine before, where both have the same weights and number formats.

    Args:
        instance: the instance's label.
        before: the answer of the engine before: `kind`, `tokens`, `values`, `stable`; None where there is none.
        answers: the answers of the new engine; the closest one counts.
        changed: parts of the identity that differ; the release alone does not forbid a comparison.
        tolerance: largest difference of a log-probability.
    """
    other = [part for part in changed if part != "vllm"]
    if before is None:
        return gate("golden", instance, None, "not compared: there is no answer of an engine before")
    if other:
        return gate("golden", instance, None, f"not compared: {', '.join(other)} changed, other answers are expected")
    if not before["stable"]:
        return gate("golden", instance, None, "not compared: the engine before gave two different answers itself")
    same_kind = [answer for answer in answers if answer["kind"] == before["kind"]]
    if answers and not same_kind:
        return gate("golden", instance, None, "not compared: the engine before was asked in another way")
    limit = {"embedding": VECTOR_DISTANCE, "score": SCORE_DISTANCE}.get(before["kind"], tolerance)
    # Releases may write the same token differently.
    apart = min((distance(before, one, compare_tokens="vllm" not in changed) for one in same_kind), default=math.inf)
    if not math.isfinite(apart):
        text = "the new engine gives no answer that can be compared: it refused the request or has other tokens"
        return gate("golden", instance, False, text, limit=limit)
    what = {"embedding": "1 - cosine", "score": "the score's difference"}.get(before["kind"], "largest difference")
    text = f"{what} {apart:.4f} in {len(before['values'])} values, limit {limit:g}"
    return gate("golden", instance, apart <= limit, text, difference=round(apart, 4), limit=limit)


def judge_errors(instance: str, sent: int, failed: Sequence[str]) -> Gate:
    """No request failed on the engine's side.

    Args:
        instance: the instance's label.
        sent: requests of all gates, repeated ones too.
        failed: what came instead of an answer, one text for each failed request.
    """
    chance = 1.0 - (1.0 - FAILING_SHARE) ** sent
    figures = {"requests": sent, "failed": len(failed), "chance": round(chance, 4)}
    if not sent:
        return gate("errors", instance, False, "no request could be sent", **figures)
    if failed:
        return gate("errors", instance, False, f"{len(failed)} of {sent} requests failed: {failed[0]}", **figures)
    text = f"0 of {sent} requests failed; one in fifty would have been seen with {100 * chance:.1f} %"
    return gate("errors", instance, True, text, **figures)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of at least one value lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def speed_of(answers: Sequence[Mapping[str, float]]) -> Dict[str, Any]:  # noqa: UP006
    """Return the figures of an engine's speed, in milliseconds: of each, what the fastest answers took.

    Other work of a host makes an answer slower, never faster, so that the fast answers tell two engines apart where
    medians do not (docs/measurements/gates.md).

    Args:
        answers: each with `first_ms`, `between_ms`, `p95_ms` and `load` (other requests of the engine then). Where
            enough of them came without any load, only those count.
    """
    idle = [one for one in answers if one["load"] == 0]
    counted = idle if len(idle) >= MIN_SAMPLES else answers
    found: Dict[str, Any] = {"answers": len(counted)}  # noqa: UP006
    for key in ("first_ms", "between_ms", "p95_ms"):
        values = [one[key] for one in counted if key in one]
        if values:
            found[key] = round(percentile(values, FAST_SHARE), 3)
    found["load"] = round(sum(one["load"] for one in counted) / max(1, len(counted)), 2)
    return found


def judge_speed(
    instance: str,
    before: Optional[Mapping[str, Any]],  # noqa: UP045
    now: Mapping[str, Any],
    slower_percent: float,
) -> Gate:
    """The engine is not slower than the one before, by more than a share.

    Args:
        instance: the instance's label.
        before: as `speed_of`, of the engine before; None where there is none.
        now: as `speed_of`, of the new engine.
        slower_percent: what is allowed, of the figure before.
    """
    if before is None or before["answers"] < MIN_SAMPLES:
        return gate("speed", instance, None, "not compared: there are no figures of an engine before", now=dict(now))
    if now["answers"] < MIN_SAMPLES:
        text = f"the new engine gave {now['answers']} measured answers, and {MIN_SAMPLES} are needed"
        return gate("speed", instance, False, text, now=dict(now))
    allowed = 1.0 + slower_percent / 100.0
    parts, slow = [], []
    for key, label in SPEEDS:
        if key not in before or key not in now:
            continue
        old, new = before[key], now[key]
        more = 100.0 * (new / old - 1.0) if old else 0.0
        parts.append(f"{label} {old:.1f} to {new:.1f} ms ({more:+.0f} %)")
        if new > old * allowed and new - old > LEAST_DIFFERENCE_MS:
            slow.append(label)
    load = f"{before['load']:g} and {now['load']:g} other requests meanwhile"
    text = f"{', '.join(parts)}; limit +{slower_percent:g} %; {load}"
    figures = {"before": dict(before), "now": dict(now), "limit": slower_percent, "slow": slow}
    if slow and now["load"] > before["load"] + SAME_LOAD:
        return gate("speed", instance, None, f"not compared, more load than before: {text}", **figures)
    if not slow and before["load"] > now["load"] + SAME_LOAD:
        return gate("speed", instance, None, f"not compared, less load than before: {text}", **figures)
    return gate("speed", instance, not slow, f"slower: {text}" if slow else text, **figures)
