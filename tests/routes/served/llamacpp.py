"""llama.cpp's own server on a model of random numbers, made here: what it says is nonsense, how is real."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

WIDTH, INNER, HEADS, CONTEXT = 64, 128, 4, 512
WORDS = [
    f"\u2581{first}{second}" for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u", "é", "世")
]
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def write_model(path: Path) -> None:
    """One layer of the Llama architecture with random weights and a vocabulary of bytes and syllables."""
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(str(path), "llama")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(WORDS)]
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.encode() for token in tokens])
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, 0.4, shape).astype(np.float32)

    output = weights(len(tokens), WIDTH)
    output[: len(tokens) - len(WORDS)] = 0  # with temperature 0 it speaks in syllables and never ends
    ones = np.ones(WIDTH, dtype=np.float32)
    for name, values in {
        "token_embd": weights(len(tokens), WIDTH),
        "output_norm": ones,
        "output": output,
        "blk.0.attn_norm": ones,
        "blk.0.attn_q": weights(WIDTH, WIDTH),
        "blk.0.attn_k": weights(WIDTH, WIDTH),
        "blk.0.attn_v": weights(WIDTH, WIDTH),
        "blk.0.attn_output": weights(WIDTH, WIDTH),
        "blk.0.ffn_norm": ones,
        "blk.0.ffn_gate": weights(INNER, WIDTH),
        "blk.0.ffn_up": weights(INNER, WIDTH),
        "blk.0.ffn_down": weights(WIDTH, INNER),
    }.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    path = Path(sys.argv[1])
    write_model(path)
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.model_alias = {"tiny"}
    settings.hostnames = [os.environ["ROUTES_HOST"]]
    settings.port = int(os.environ["ROUTES_PORT"])
    settings.n_ctx = CONTEXT
    settings.n_parallel = 1
    settings.n_predict = 64
    settings.n_gpu_layers = 0
    settings.cpuparams.n_threads = 1
    settings.warmup = False
    settings.offline = True
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)


if __name__ == "__main__":
    main()
