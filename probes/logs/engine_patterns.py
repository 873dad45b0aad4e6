"""Lines of the engines that run models: vLLM, TensorRT-LLM, Ollama, llama.cpp, Whisper, and PyTorch."""

from __future__ import annotations

from typing import Final

from probes.logs.pattern import Pattern
from probes.origin import ServerKind

_VLLM, _TRTLLM, _OLLAMA = ServerKind.VLLM, ServerKind.TENSORRT_LLM, ServerKind.OLLAMA

_CUDA_ERRORS: Final = (
    "no CUDA-capable device is detected",
    "CUDA driver version is insufficient for CUDA runtime version",
    "initialization error",
    "unknown error",
    "OS call failed or operation not supported on this OS",
)

ENGINE_PATTERNS: Final = (
    Pattern(
        "llama_cpp.cuda_init_failed",
        "CUDA would not start, so the model runs on the processor (Ollama's runner says the same)",
        "llama.cpp, ggml/src/ggml-cuda/ggml-cuda.cu; cudaGetErrorString",
        "failed to initialize CUDA",
        rf"ggml_cuda_init: failed to initialize CUDA: (?P<why>{'|'.join(_CUDA_ERRORS)}|)",
        words=(("why", _CUDA_ERRORS),),
    ),
    Pattern(
        "llama_cpp.load_failed",
        "the model could not be loaded",
        "llama.cpp, src/llama.cpp",
        "error loading model",
        r"error loading model",
        server=ServerKind.LLAMA_CPP,
    ),
    Pattern(
        "llama_cpp.no_gpu",
        "layers were asked for on a GPU, and there is none",
        "llama.cpp, common/arg.cpp",
        "no usable GPU found",
        r"no usable GPU found, --gpu-layers option will be ignored",
        server=ServerKind.LLAMA_CPP,
    ),
    Pattern(
        "llama_cpp.offloaded",
        "how many layers of the model are on the GPU (Ollama's runner says the same)",
        "llama.cpp, src/llama-model.cpp",
        "layers to GPU",
        r"offloaded\s{1,4}(?P<layers>[0-9]{1,5})/(?P<of>[0-9]{1,5})\s{1,4}layers to GPU",
    ),
    Pattern(
        "ollama.compute_on_cpu",
        "no GPU was found for inference",
        "Ollama, discover/types.go",
        "inference compute",
        r'msg="inference compute" id=(?:cpu|0) library=cpu',
        server=_OLLAMA,
    ),
    Pattern(
        "ollama.cuda_init_failed",
        "the CUDA driver would not start; its code",
        "Ollama, discover/native_probe_linux.go (where it logs at debug level); before, gpu_info_nvcuda.c",
        "nit fail",
        r"(?:cuda driver library init failure|cuInit failed): (?P<code>[0-9]{1,6})",
        server=_OLLAMA,
    ),
    Pattern(
        "ollama.prompt_truncated",
        "a prompt was cut to the context, silently for its sender; sizes in tokens",
        "Ollama, llm/llama_server.go",
        "truncating input prompt",
        r"truncating input prompt.{0,8} limit=(?P<limit>[0-9]{1,9}) prompt=(?P<prompt>[0-9]{1,9})",
        server=_OLLAMA,
    ),
    Pattern(
        "ollama.runner_ended",
        "the process that runs the model has ended",
        "Ollama, llm/server.go and llm/llama_server.go",
        "process has terminated",
        r"(?:llama-server|llama runner) process has terminated"
        r"(?:: (?P<how>exit status|signal)(?:: (?P<signal>[a-z]{1,20})| (?P<status>[0-9]{1,3})))?",
        words=(
            ("how", ("exit status", "signal")),
            ("signal", ("killed", "aborted", "segmentation", "bus", "illegal", "terminated")),
        ),
        server=_OLLAMA,
    ),
    Pattern(
        "server.address_in_use",
        "a server could not listen: somebody else has its port",
        "asyncio, base_events.py (create_server); Go, net (listen); moby, portallocator; gunicorn, sock.py; "
        "Node.js, net; errno 98",
        " in use",
        r"(?:address \('[0-9A-Fa-f:.]{1,45}', |listen tcp[46]? [^ ]{0,60}:|host port (?:for )?[0-9.]{7,15}:|"
        r":)(?P<port>[0-9]{1,5})(?:, 0, [0-9]{1,10})?(?::[0-9.]{7,15}:[0-9]{1,5})?(?:/tcp)?(?:\)|: bind)?:? "
        r"(?:\[errno [0-9]{1,3}\] )?[Aa]ddress already in use"
        r"|\[Errno [0-9]{1,3}\] Address already in use|EADDRINUSE: address already in use"
        r"|Connection in use: \('",
    ),
    Pattern(
        "torch.cuda_out_of_memory",
        "an allocation on the GPU was refused",
        "PyTorch, c10/cuda/CUDACachingAllocator.cpp",
        "CUDA out of memory",
        r"CUDA out of memory\. Tried to allocate (?P<amount>[0-9.]{1,12}) (?P<unit>GiB|MiB|KiB|bytes)",
        words=(("unit", ("GiB", "MiB", "KiB", "bytes")),),
    ),
    Pattern(
        "trtllm.hang",
        "a rank has not got on for longer than the hang detector allows",
        "TensorRT-LLM, _torch/pyexecutor/py_executor.py",
        "Hang detected on rank",
        r"Hang detected on rank (?P<rank>[0-9]{1,5}) in PyExecutor",
        server=_TRTLLM,
    ),
    Pattern(
        "trtllm.mpi_abort",
        "a rank ended all ranks",
        "Open MPI, ompi/mca/rte (MPI_ABORT)",
        "MPI_ABORT was invoked on rank",
        r"MPI_ABORT was invoked on rank (?P<rank>[0-9]{1,5})",
        server=_TRTLLM,
    ),
    Pattern(
        "vllm.broadcast_blocked",
        "the engine waits for its workers to take a message; also while they compile or load",
        "vLLM, distributed/device_communicators/shm_broadcast.py",
        "block found in",
        r"No available (?:shared memory broadcast )?block found in (?P<seconds>[0-9]{1,6}) second",
        server=_VLLM,
    ),
    Pattern(
        "vllm.engine_dead",
        "the engine's core has died; requests fail from here on",
        "vLLM, v1/engine/exceptions.py and v1/engine/core.py",
        "EngineCore encountered",
        r"EngineCore encountered (?:an issue|a fatal error)",
        server=_VLLM,
    ),
    Pattern(
        "vllm.memory_refused",
        "the start was refused for want of free GPU memory; sizes in GiB",
        "vLLM, v1/worker/utils.py",
        "is less than desired GPU memory utilization",
        r"Free memory on device (?:cuda:[0-9]{1,3} )?\((?P<free>[0-9.]{1,10})/(?P<total>[0-9.]{1,10}) GiB\) "
        r"on startup is less than desired GPU memory utilization \((?P<share>[0-9.]{1,8}), "
        r"(?P<wanted>[0-9.]{1,10}) GiB\)",
        server=_VLLM,
    ),
    Pattern(
        "vllm.no_device",
        "no device was found to run on",
        "vLLM, config/device.py",
        "Failed to infer device type",
        r"Failed to infer device type",
        server=_VLLM,
    ),
    Pattern(
        "vllm.nofile_low",
        "the limit of open files is low and could not be raised",
        "vLLM, utils/system_utils.py",
        "failed to automatically increase",
        r"Found ulimit of (?P<limit>[0-9]{1,12}) and failed to automatically increase",
        server=_VLLM,
    ),
    Pattern(
        "vllm.rpc_timeout",
        "a worker did not answer the engine in time",
        "vLLM, v1/executor/multiproc_executor.py",
        "timed out",
        r"RPC call to (?P<call>[a-z_]{1,40}) timed out",
        words=(("call", ("execute_model", "sample_tokens", "collective_rpc", "load_model")),),
        server=_VLLM,
    ),
    Pattern(
        "vllm.stalled_prompt",
        "what the engine had scheduled when it died: tokens of a prompt",
        "vLLM, logging_utils/dump_input.py",
        "Dumping scheduler output",
        r"Dumping scheduler output.{0,400}prompt_token_ids_len=(?P<tokens>[0-9]{1,9})",
        server=_VLLM,
    ),
    Pattern(
        "vllm.throughput_zero",
        "requests are running and not one token came in ten seconds",
        "vLLM, v1/metrics/loggers.py",
        "Avg generation throughput: 0.0 tokens/s",
        r"Avg prompt throughput: 0\.0 tokens/s, Avg generation throughput: 0\.0 tokens/s, "
        r"Running: (?P<running>[1-9][0-9]{0,5}) reqs, Waiting: (?P<waiting>[0-9]{1,6}) reqs",
        server=_VLLM,
    ),
    Pattern(
        "whisper.cudnn_missing",
        "a library of cuDNN is missing, so the GPU cannot be used",
        "CTranslate2, src/cuda/utils.cc; cuDNN's loader",
        "cud",
        r"(?:Could not load library |Unable to load any of \{)libcudnn|requires the cuDNN library which",
        server=ServerKind.WHISPER,
    ),
    Pattern(
        "whisper.fp16_on_cpu",
        "the model runs on the processor",
        "openai-whisper, transcribe.py",
        "FP16 is not supported on CPU",
        r"FP16 is not supported on CPU",
        server=ServerKind.WHISPER,
    ),
)
"""Sorted by id."""
