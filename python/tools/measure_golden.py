"""How far the golden answers of one unaltered engine lie apart: idle, and with other requests in its batch.

Runs as root on a host that serves, with the probe's own program; the probe's tolerance must lie above what it prints.

    python3 measure_golden.py INSTANCE [--answers 20] [--others 4 16 48]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib
import json
import sys
import threading
from typing import Any

LIBRARY = "/usr/local/lib/rackserve"
_WORDS = "one two three four five six seven eight nine ten"


def spread(first: list[float], answers: list[list[float]]) -> float:
    """Return the largest difference of any value of any answer from the first answer's."""
    return max(abs(one - other) for answer in answers for one, other in zip(first, answer, strict=True))


def main() -> int:
    """Print one JSON object: the largest difference by the number of other requests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("instance")
    parser.add_argument("--answers", type=int, default=20)
    parser.add_argument("--others", type=int, nargs="*", default=[4, 16, 48])
    asked = parser.parse_args()
    sys.path.insert(0, LIBRARY)
    probe: Any = importlib.import_module("vllm_probe")  # lies on the host
    settings = probe.read_settings(asked.instance)

    def golden() -> dict[str, Any]:
        answer: dict[str, Any] | None = probe.ask_golden(settings, 30)
        if not answer or not answer["logprobs"]:
            raise SystemExit("the engine gave no golden answer")
        return answer

    first = golden()
    found = {"values": len(first["logprobs"]), "idle": spread(first["logprobs"], answers(golden, first, asked.answers))}
    for others in asked.others:
        over = threading.Event()

        def keep_busy(seed: int, over: threading.Event = over) -> int:
            sent = 0
            while not over.is_set():
                body = {"prompt": f"{seed} {_WORDS} {sent}", "max_tokens": 64, "temperature": 1.0, "ignore_eos": True}
                probe.ask(settings, "/v1/completions", body, 60)
                sent += 1
            return sent

        with concurrent.futures.ThreadPoolExecutor(others) as pool:
            busy = [pool.submit(keep_busy, seed) for seed in range(others)]
            found[f"with {others} others"] = spread(first["logprobs"], answers(golden, first, asked.answers))
            over.set()
            found[f"requests of {others}"] = sum(task.result() for task in busy)
    print(json.dumps(found))
    return 0


def answers(golden: Any, first: dict[str, Any], count: int) -> list[list[float]]:  # noqa: ANN401
    """Return the log-probabilities of so many answers; all must have the first one's tokens."""
    got = [golden() for _ in range(count)]
    if any(answer["tokens"] != first["tokens"] for answer in got):
        raise SystemExit("the tokens of the golden prompt differ")
    return [answer["logprobs"] for answer in got]


if __name__ == "__main__":
    sys.exit(main())
