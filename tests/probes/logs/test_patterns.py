"""The table of patterns: every form is found in a line of its own, and only typed captures come out."""

from __future__ import annotations

import json
import re._constants as constants
import re._parser as parser
from typing import Any

import pytest
from hypothesis import given, strategies as st

from probes.logs.pattern import LINE_MAX, LineSource, Matcher, Pattern
from probes.logs.patterns import PATTERNS
from probes.logs.tally import Tally

_NODE = "5dbc6354f03f38bc4d4fda46"

LINES: dict[str, tuple[str, dict[str, float | str]]] = {
    "kernel.buffer_io_error": ("Buffer I/O error on dev loop0, logical block 9, lost async page write", {}),
    "kernel.ext4_error": ("EXT4-fs error (device loop0): ext4_find_entry:1455: inode #2: comm x", {}),
    "kernel.file_max": ("VFS: file-max limit 1024 reached", {"limit": 1024}),
    "kernel.hung_task": (
        "INFO: task kworker/u4:2:77 blocked for more than 120 seconds.",
        {"pid": 77, "seconds": 120},
    ),
    "kernel.io_error": (
        "critical medium error, dev sda, sector 7 op 0x0:(READ)",
        {"what": "critical medium"},
    ),
    "kernel.link_down": ("mlx5_core 0000:01:00.0 enp1s0f0np0: Link down", {}),
    "kernel.nvidia_api_mismatch": (
        "NVRM: API mismatch: the client has the version 595.84, but this kernel module has the version 580.9",
        {"client": 595, "module": 580},
    ),
    "kernel.nvidia_fell_off_bus": ("NVRM: GPU 0000:65:00.0: GPU has fallen off the bus.", {}),
    "kernel.nvidia_init_failed": ("NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x23:0x65:1426)", {}),
    "kernel.nvme_timeout": ("nvme nvme0: I/O 22 QID 3 timeout, reset controller", {}),
    "kernel.oom_cgroup": (
        "Memory cgroup out of memory: Killed process 4711 (python3) total-vm:1kB",
        {"pid": 4711},
    ),
    "kernel.oom_host": ("Out of memory: Killed process 4711 (python3) total-vm:1kB", {"pid": 4711}),
    "kernel.remounted_read_only": ("EXT4-fs (loop0): Remounting filesystem read-only", {}),
    "kernel.segfault": (
        "VLLM::Worker[77]: segfault at 0 ip 00007f01 sp 00007ffd error 4 in libnccl.so.2.27[7f00+1000]",
        {"pid": 77, "error": 4, "library": "libnccl"},
    ),
    "kernel.soft_lockup": (
        "watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [x:1]",
        {"cpu": 3, "seconds": 22},
    ),
    "kernel.xfs_shutdown": ("XFS (sda1): Log I/O Error Detected.  Shutting down filesystem: 0x2", {}),
    "litellm.database_lost": ("Can't reach database server at `db:5432`", {}),
    "litellm.models_lost": ("add_deployment() - Error getting new models from DB - x", {}),
    "litellm.no_deployments": (
        "No deployments available for selected model, Try again in 60 seconds. Passed model=m",
        {"seconds": 60},
    ),
    "litellm.pool_exhausted": (
        "Timed out fetching a new connection from the connection pool. (x, connection limit: 10)",
        {"limit": 10},
    ),
    "llama_cpp.cuda_init_failed": (
        "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
        {"why": "no CUDA-capable device is detected"},
    ),
    "llama_cpp.load_failed": ("llama_model_load: error loading model: x", {}),
    "llama_cpp.no_gpu": ("warning: no usable GPU found, --gpu-layers option will be ignored", {}),
    "llama_cpp.offloaded": ("load_tensors: offloaded 0/33 layers to GPU", {"layers": 0, "of": 33}),
    "nccl.collective_timeout": ("[Rank 1] Watchdog caught collective operation timeout: x", {}),
    "nccl.connection_closed": ("socketProgress: Connection closed by remote peer h<1>", {}),
    "nccl.ib_error": (
        "NET/IB: Got completion from peer h<1> status=IBV_WC_RETRY_EXC_ERR(12) opcode=x(1) vendor_err=129",
        {"status": 12, "vendor": 129},
    ),
    "nccl.no_interface": ("Bootstrap : no socket interface found", {}),
    "nccl.remote_exited": ("ncclRemoteError: remote process exited or there was a network error.", {}),
    "nccl.shm_failed": (
        "Error while creating shared memory segment /dev/shm/n (size 9637888), error: No space (28)",
        {"size": 9637888, "errno": 28},
    ),
    "nccl.system_error": ("unhandled system error (run with NCCL_DEBUG=INFO for details)", {}),
    "nvidia_container.no_device": (
        "failed to inject CDI devices: unresolvable CDI devices nvidia.com/gpu=all: unknown",
        {},
    ),
    "nvidia_container.no_runtime": (
        'could not select device driver "nvidia" with capabilities: [[compute gpu utility]]',
        {},
    ),
    "nvidia_container.not_started": (
        "nvidia-container-cli: initialization error: nvml error: driver/library version mismatch",
        {"step": "initialization error", "nvml": "driver/library version mismatch"},
    ),
    "nvidia_container.nvml_failed": ("Failed to initialize NVML: Unknown Error", {"why": "Unknown Error"}),
    "nvidia_container.nvml_missing": ("pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not Found", {}),
    "ollama.compute_on_cpu": ('level=INFO msg="inference compute" id=cpu library=cpu compute=""', {}),
    "ollama.cuda_init_failed": ("cuda driver library init failure: 999", {"code": 999}),
    "ollama.prompt_truncated": (
        'msg="truncating input prompt" limit=4096 prompt=9000 keep=4 new=4096',
        {"limit": 4096, "prompt": 9000},
    ),
    "ollama.runner_ended": (
        "llama-server process has terminated: signal: killed",
        {"how": "signal", "signal": "killed"},
    ),
    "postgresql.disk_full": (
        'ERROR:  could not extend file "base/1/2": No space left on device',
        {"severity": "ERROR"},
    ),
    "postgresql.panic": ("2026-11-22 UTC [7] PANIC:  could not write", {}),
    "postgresql.ready": ("LOG:  database system is ready to accept connections", {}),
    "postgresql.slots_reserved": (
        "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
        {},
    ),
    "postgresql.too_many_clients": ("FATAL:  sorry, too many clients already", {}),
    "postgresql.too_many_for_one": ('FATAL:  too many connections for role "litellm"', {"what": "role"}),
    "ray.gcs_unreachable": (
        "Failed to connect to GCS at address 10.0.0.1:6379 within 5 seconds.",
        {"address": 0x0A000001},
    ),
    "ray.health_check_failed": (
        f"Health check failed for node {_NODE}, remaining checks 2, status 4, response status 0",
        {"remaining": 2, "status": 4},
    ),
    "ray.marked_dead_itself": (
        (
            "Exiting because this node manager has mistakenly been marked as dead by the GCS: "
            "GCS failed to check the health of this node for 5 times."
        ),
        {"times": 5},
    ),
    "ray.node_dead": (
        (
            f"The node with node id: {_NODE} and address: 10.0.0.2 and node name: spark-2 has been "
            "marked dead because the detector has missed too many heartbeats from it."
        ),
        {"address": 0x0A000002},
    ),
    "ray.node_ended": (
        ", death reason = EXPECTED_TERMINATION, death message = received SIGTERM node_id=5",
        {"reason": "EXPECTED_TERMINATION"},
    ),
    "ray.node_registered": (
        f"Registering new node. node_id={_NODE} node_name=spark-2 node_address=10.0.0.2",
        {"address": 0x0A000002},
    ),
    "ray.raylet_started": (f"Raylet of id, {_NODE} started. Raylet consists of node_manager and x", {}),
    "ray.workers_killed_for_memory": (
        "3 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed",
        {"count": 3},
    ),
    "server.address_in_use": (
        "[Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
        {"port": 8000},
    ),
    "systemd.start_limit": ("vllm.service: Start request repeated too quickly.", {}),
    "torch.cuda_out_of_memory": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has",
        {"amount": 2.5, "unit": "GiB"},
    ),
    "trtllm.hang": ("Hang detected on rank 1 in PyExecutor; hard-killing", {"rank": 1}),
    "trtllm.mpi_abort": ("MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD", {"rank": 1}),
    "vllm.broadcast_blocked": (
        "[shm_broadcast.py:542] No available shared memory broadcast block found in 60 seconds. This",
        {"seconds": 60},
    ),
    "vllm.engine_dead": ("EngineDeadError: EngineCore encountered an issue. See stack trace", {}),
    "vllm.memory_refused": (
        (
            "Free memory on device cuda:0 (2.77/119.7 GiB) on startup is less than desired GPU memory "
            "utilization (0.85, 101.7 GiB). Decrease"
        ),
        {"free": 2.77, "total": 119.7, "share": 0.85, "wanted": 101.7},
    ),
    "vllm.no_device": ("RuntimeError: Failed to infer device type, please set", {}),
    "vllm.nofile_low": ("Found ulimit of 2048 and failed to automatically increase", {"limit": 2048}),
    "vllm.rpc_timeout": ("TimeoutError: RPC call to sample_tokens timed out.", {"call": "sample_tokens"}),
    "vllm.stalled_prompt": (
        "Dumping scheduler output for model execution: S(n=[N(req_id=x,prompt_token_ids_len=75000,y)])",
        {"tokens": 75000},
    ),
    "vllm.throughput_zero": (
        (
            "Engine 000: Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 0.0 tokens/s, "
            "Running: 1 reqs, Waiting: 2 reqs, GPU KV cache usage: 3.0%"
        ),
        {"running": 1, "waiting": 2},
    ),
    "whisper.cudnn_missing": ("Unable to load any of {libcudnn_ops.so.9.1.0, libcudnn_ops.so.9}", {}),
    "whisper.fp16_on_cpu": ("UserWarning: FP16 is not supported on CPU; using FP32 instead", {}),
}
"""Our own shortest lines of each documented form, and what is captured from them."""

FURTHER: tuple[tuple[str, str, dict[str, float | str]], ...] = (
    (
        "kernel.hung_task",
        "INFO: task dd:456 blocked in I/O wait for more than 122 seconds.",
        {"pid": 456, "seconds": 122},
    ),
    (
        "kernel.io_error",
        "device offline error, dev sdb, sector 2048 op 0x0:(READ) flags 0x0",
        {"what": "device offline"},
    ),
    (
        "nccl.ib_error",
        "NET/IB/GIN: Got completion from peer h<1> with status=12 opcode=0 len=0 vendor err 129 (Send) hca",
        {"status": 12, "vendor": 129},
    ),
    (
        "nvidia_container.not_started",
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update",
        {"step": "requirement error"},
    ),
    ("ollama.cuda_init_failed", 'msg="cuInit failed: 999"', {"code": 999}),
    (
        "server.address_in_use",
        "error while attempting to bind on address ('0.0.0.0', 4000): [errno 98] address already in use",
        {"port": 4000},
    ),
    (
        "server.address_in_use",
        "error while attempting to bind on address ('::', 8000, 0, 0): address already in use",
        {"port": 8000},
    ),
    (
        "server.address_in_use",
        "Error: listen tcp 127.0.0.1:11434: bind: address already in use",
        {"port": 11434},
    ),
    (
        "server.address_in_use",
        "failed to bind host port 0.0.0.0:8000/tcp: address already in use",
        {"port": 8000},
    ),
    (
        "server.address_in_use",
        "failed to bind host port for 0.0.0.0:8000:172.17.0.2:80/tcp: address already in use",
        {"port": 8000},
    ),
    ("server.address_in_use", "OSError: [Errno 98] Address already in use", {}),
    ("server.address_in_use", "Error: listen EADDRINUSE: address already in use :::3000", {}),
    ("server.address_in_use", "[ERROR] Connection in use: ('0.0.0.0', 4000)", {}),
)
"""Forms of the same lines in other versions and by other programs."""

QUIET = (
    "Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 0.0 tokens/s, Running: 0 reqs",
    "Avg prompt throughput: 9.1 tokens/s, Avg generation throughput: 0.0 tokens/s, Running: 3 reqs",
    'ERROR:  relation "sorry" does not exist',
    "LOG:  connection received: host=[local]",
    "INFO: 127.0.0.1:5 - POST /v1/chat/completions HTTP/1.1 200 OK",
    'msg="inference compute" id=GPU-0 library=cuda',
    "ray.init() connected to the node",
    "the port 8000 is in use by the address already",
    "",
)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.id)
def test_every_form_is_found_with_its_captures(pattern: Pattern) -> None:
    """A line of the documented form gives the pattern's id and exactly the captures that are written down."""
    line, expected = LINES[pattern.id]
    tally = Tally(Matcher(PATTERNS))

    said = tally.match(f"2026-11-22 00:00:00 x {line}", pattern.source)

    assert said is not None
    assert said.pattern.id == pattern.id  # type: ignore[union-attr]
    captures = said.captures  # type: ignore[union-attr]
    assert {each.name: each.word or each.number for each in captures} == expected


@pytest.mark.parametrize(("name", "line", "expected"), FURTHER, ids=[name for name, _, _ in FURTHER])
def test_other_versions_write_it_otherwise(name: str, line: str, expected: dict[str, float | str]) -> None:
    """A program that is older, newer or another one is understood as well."""
    source = next(pattern.source for pattern in PATTERNS if pattern.id == name)
    said = Matcher(PATTERNS).match(line, source)
    assert said is not None
    assert (said.pattern.id, {each.name: each.word or each.number for each in said.captures}) == (
        name,
        expected,
    )


def test_the_table_is_sorted_and_has_one_line_each() -> None:
    """Ids are unique and sorted, every one has its line here, and none of another table is left."""
    ids = [pattern.id for pattern in PATTERNS]
    assert ids == sorted(set(ids))
    assert set(LINES) == set(ids)


@pytest.mark.parametrize("line", QUIET)
@pytest.mark.parametrize("source", LineSource)
def test_ordinary_lines_say_nothing(line: str, source: LineSource) -> None:
    """What healthy servers write is nobody's business."""
    assert Tally(Matcher(PATTERNS)).match(line, source) is None


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.id)
def test_only_the_kernel_speaks_for_the_kernel(pattern: Pattern) -> None:
    """A line is believed only from where its form is written: a program cannot speak for the kernel."""
    line, _ = LINES[pattern.id]
    tally = Tally(Matcher(PATTERNS))
    for source in set(LineSource) - {pattern.source}:
        said = tally.match(line, source)
        assert said is None or said.pattern.id != pattern.id  # type: ignore[union-attr]


def test_a_word_that_is_on_no_list_is_other() -> None:
    """A closed list stays closed: the text of a line is never passed on."""
    said = Matcher(PATTERNS).match("RPC call to secret_name timed out", LineSource.PROGRAM)
    assert said is not None
    assert [(each.name, each.word) for each in said.captures] == [("call", "other")]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.id)
def test_expressions_are_linear(pattern: Pattern) -> None:
    """Every repetition has a bound, none stands inside another, and no two long ones side by side."""
    _check(parser.parse(pattern.expression), inside=False)


_LONG = 16


def _check(tree: Any, *, inside: bool) -> None:
    behind_a_long_one = False
    for kind, value in tree:
        if kind in (constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT):
            least, most, body = value
            assert most != constants.MAXREPEAT
            assert most == 1 or not inside
            _check(body, inside=inside or most > 1)
            gives_back = kind is not constants.POSSESSIVE_REPEAT and most - least > _LONG
            assert not (gives_back and behind_a_long_one)
            behind_a_long_one = gives_back or (behind_a_long_one and least == 0)
            continue
        behind_a_long_one = False
        if kind is constants.SUBPATTERN:
            _check(value[-1], inside=inside)
        elif kind is constants.BRANCH:
            for branch in value[1]:
                _check(branch, inside=inside)


_HOSTILE = st.one_of(
    st.text(max_size=200),
    st.sampled_from([line for line, _ in LINES.values()]),
    st.sampled_from([pattern.literal for pattern in PATTERNS]).map(lambda literal: literal * 300),
)


@given(
    parts=st.lists(_HOSTILE, max_size=4),
    source=st.sampled_from(LineSource),
    cut=st.integers(min_value=0, max_value=300),
)
def test_no_line_hurts_and_no_text_comes_out(parts: list[str], source: LineSource, cut: int) -> None:
    """Whatever is written: a known id and typed captures, or nothing; and it fits into JSON."""
    said = Tally(Matcher(PATTERNS)).match("".join(parts)[cut:], source)
    if said is None or not hasattr(said, "captures"):
        return
    words = {word for _, listed in said.pattern.words for word in listed} | {"other", ""}
    for capture in said.captures:
        assert capture.word in words
        assert capture.number is None or abs(capture.number) < 1e15
        json.dumps(capture.number, allow_nan=False)


def test_what_is_behind_the_limit_is_not_looked_at() -> None:
    """A line is cut before it is matched."""
    line = "x" * LINE_MAX + "FATAL:  sorry, too many clients already"
    assert Matcher(PATTERNS).match(line, LineSource.PROGRAM) is None
