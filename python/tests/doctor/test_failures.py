"""Which exception of a start is the root, in which phase, and what of it is shown."""

from __future__ import annotations

import pytest

from rackserve.doctor._failures import Ended, ended_of
from rackserve.doctor._journal import starts_of
from rackserve.doctor._lines import Line, line_of

CORE = "(EngineCore pid=7) ERROR 11-30 10:00:00 [core.py:1161] "
WORKER = "(Worker_TP{} pid=1{}) ERROR 11-30 10:00:00 [multiproc_executor.py:857] "
API = "(APIServer pid=1) "
POINTS = f"{API}RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}"


def traceback(prefix: str, exception: str, *frames: str) -> list[str]:
    lines = ["Traceback (most recent call last):", *(f'  File "{frame}' for frame in frames), exception]
    return [f"{prefix}{line}" for line in lines]


def ended(*lines: str) -> Ended:
    found = ended_of([line_of(line) for line in lines])
    assert found is not None
    return found


def shown(*lines: str) -> str:
    return ended(*lines).failures[0].root().shown()


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ("(EngineCore_0 pid=7) INFO 11-30 10:00:00 [core.py:1] x", Line("EngineCore_0", "INFO", "core.py:1", "x")),
        ("ERROR 11-30 10:00:00 engine.py:366]   File", Line("", "ERROR", "engine.py:366", "  File")),
        ("(Worker_TP0 pid=12)   File", Line("Worker_TP0", "", "", "  File")),
        ("[rank0]: ValueError: x", Line("", "", "", "ValueError: x")),
        ("[rank0]:[W409 11:42:27.77 a.cpp:1] Warning: x", Line("", "WARNING", "a.cpp:1", "Warning: x")),
        ("Nov 30 10:00:00 gpu1 vllm[123]: (APIServer pid=1) x", Line("APIServer", "", "", "x")),
        ("2025-06-19T11:30:11.1Z ERROR 11-30 10:00:00 [a.py:1] x", Line("", "ERROR", "a.py:1", "x")),
        ("\x1b[0;36m(APIServer pid=1)\x1b[0;0m INFO:     up", Line("APIServer", "INFO", "", "up")),
        ("Fetching:   0%\rFetching: 100%", Line("", "", "", "Fetching: 100%")),
        ("/a/b.py:12: FutureWarning: Error: x", Line("", "WARNING", "", "/a/b.py:12: FutureWarning: Error: x")),
        ("│ ERROR 11-30 10:00:00 a.py:1] x      │", Line("", "ERROR", "a.py:1", "x")),
        ("a user's ERROR 11-30 in a text", Line("", "", "", "a user's ERROR 11-30 in a text")),
    ],
)
def test_a_line_is_what_stands_behind_its_prefixes(raw: str, line: Line) -> None:
    assert line_of(raw) == line


def test_the_root_stands_before_the_exception_that_points_to_it() -> None:
    root = traceback(CORE, "KeyError: 'router'", '/s/vllm/models/x.py", line 3, in __init__')
    after = traceback(API, "RuntimeError: a consequence nobody knows", '/s/vllm/a.py", line 1, in close')
    assert shown(*root, POINTS, *after) == "KeyError: 'router'"


def test_workers_that_lose_a_neighbour_are_not_the_root() -> None:
    gone = "torch.distributed.DistBackendError: NCCL error: remote process exited"
    lines = [
        *traceback(
            WORKER.format(0, 0), "RuntimeError: something new", '/s/vllm/v1/gpu_worker.py", line 3, in load_model'
        ),
        *traceback(WORKER.format(1, 1), gone, '/s/vllm/v1/gpu_worker.py", line 3, in load_model'),
        *traceback(CORE, "Exception: WorkerProc initialization failed. See stack trace for root cause."),
        POINTS,
    ]
    assert shown(*lines) == "RuntimeError: something new"
    assert ended(*lines).phase == "loading the weights"


def test_tracebacks_of_workers_that_mix_are_kept_apart() -> None:
    one, two = (traceback(WORKER.format(n, n), f"ValueError: {n}", f'/s/{n}.py", line 1, in f{n}') for n in (0, 1))
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]
    first, second = sorted(ended(*mixed).failures, key=lambda one: one.at)
    assert (first.frames, second.frames) == (["/s/0.py in f0"], ["/s/1.py in f1"])


@pytest.mark.parametrize(
    ("link", "root"),
    [
        ("The above exception was the direct cause of the following exception:", "KeyError: 'inner'"),
        ("During handling of the above exception, another exception occurred:", "OSError: outer"),
    ],
)
def test_the_direct_cause_is_the_root_and_what_was_handled_is_not(link: str, root: str) -> None:
    inner, outer = traceback("", "KeyError: 'inner'"), traceback("", "OSError: outer")
    assert shown(*inner, "", link, "", *outer) == root


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ("pydantic_core.ValidationError: 1 validation error for ModelConfig", "  Value error, a reason [type=x]"),
            "pydantic_core.ValidationError: 1 validation error for ModelConfig Value error, a reason [type=x]",
        ),
        (
            ("RuntimeError: Ninja build failed. Ninja output:", "[1/2] c++ x", "FAILED: x", "x.cu: no"),
            "output: x.cu: no",
        ),
        (('  File "/s/vllm/x.py", line 3, in check', "    assert a", "AssertionError"), "(/s/vllm/x.py in check)"),
    ],
    ids=["a validation error", "an output", "an assertion without words"],
)
def test_an_exception_that_says_little_is_shown_with_what_follows(lines: tuple[str, ...], expected: str) -> None:
    assert shown(*lines).endswith(expected)


@pytest.mark.parametrize(
    ("frame", "phase"),
    [
        ('/s/vllm/engine/arg_utils.py", line 1, in create_engine_config', "reading its arguments"),
        ('/s/vllm/distributed/device_communicators/pynccl.py", line 1, in __init__', "setting up NCCL"),
        ('/s/vllm/model_executor/model_loader/default_loader.py", line 1, in x', "loading the weights"),
        ('/s/torch/_inductor/codecache.py", line 1, in load', "compiling"),
        ('/s/vllm/v1/worker/gpu_worker.py", line 1, in determine_available_memory', "measuring the memory"),
        ('/s/vllm/v1/worker/gpu_model_runner.py", line 1, in capture_model', "capturing CUDA graphs"),
        ('/s/vllm/v1/engine/core.py", line 1, in run_busy_loop', "serving"),
        ('/s/vllm/__init__.py", line 1, in <module>', "importing its packages"),
    ],
)
def test_frames_name_the_phase(frame: str, phase: str) -> None:
    assert str(ended(*traceback(CORE, "RuntimeError: new", frame)).phase).startswith(phase)


def test_lines_before_name_the_phase_where_no_frame_does() -> None:
    before = "(EngineCore pid=7) INFO 11-30 09:00:00 [gpu_worker.py:1] Available KV cache memory: 3 GiB"
    assert ended(before, f"{CORE}RuntimeError: new").phase == "measuring the memory for the KV cache"
    assert ended(*traceback(CORE, "RuntimeError: new", '/s/vllm/new.py", line 1, in new')).phase is None


def test_an_exception_after_which_the_start_went_on_is_none() -> None:
    handled = traceback(API, "ModuleNotFoundError: No module named 'flash_attn'")
    later = f"{API}INFO 11-30 10:00:01 [model.py:1] Resolved architecture: X"
    assert ended_of([line_of(line) for line in (*handled, later)]) is None


def test_what_python_ignores_at_its_end_is_not_the_root() -> None:
    ignored = ["Exception ignored in: <function X.__del__ at 0x7f>", *traceback("", "AttributeError: 'X' has no y")]
    assert shown(*traceback("", "RuntimeError: new"), *ignored) == "RuntimeError: new"


@pytest.mark.parametrize("aside", ["Exception in thread Thread-5 (_report):", "Task exception was never retrieved"])
def test_what_fails_beside_the_engine_is_not_the_root(aside: str) -> None:
    usage = traceback("", "requests.exceptions.ConnectionError: Max retries exceeded with url: /api (host='stats')")
    assert shown(*traceback("", "RuntimeError: new"), aside, *usage) == "RuntimeError: new"


def test_last_words_of_a_library_are_read_with_what_follows() -> None:
    said = ("terminate called after throwing an instance of 'c10::Error'", "  what():  CUDA error: misaligned address")
    assert "misaligned address" in ended(*said).failures[0].text


def test_a_crash_is_read_behind_a_traceback_that_breaks_off() -> None:
    broken = ["Traceback (most recent call last):", '  File "/s/x.py", line 1, in f', "    f()"]
    assert shown(*broken, "vllm@a.service: Main process exited, code=killed, status=9/KILL").endswith("9/KILL")


def test_a_start_is_counted_by_systemds_lines_and_by_its_invocations() -> None:
    lines = [
        "old",
        "Starting vllm@a.service - vLLM instance a...",
        "one",
        "Started vllm@a.service - vLLM instance a.",
        "two",
    ]
    assert [[line.text for line in start.lines] for start in starts_of(lines)] == [["old"], ["one", "two"]]
    assert [len(start.lines) for start in starts_of(["a", "b", "c"], begins=(0, 2))] == [2, 1]
    assert [len(start.lines) for start in starts_of(["a", "Started vllm@a.service - x.", "b"])] == [1, 1]
