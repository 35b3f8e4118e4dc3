"""Our decoders agree with those of transformers on the same random weights, which it wrote. Skipped without it.

Our package `kernels` shadows another of that name that transformers looks for: it runs in a process that sees nothing of ours.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.decoding import CACHES, Model
from engine.models.decoder import Decoder
from engine.models.generate import Generation
from engine.models.kv_cache import make_cache
from engine.models.weights import load_weights
from tests.engine.models.small import GPT, QWEN, TINY

pytestmark = [pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed"),
              pytest.mark.slow]

NEW = 60
BOUND = 1e-5  # of the largest logit, float32
SCRIPT = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import json, torch, transformers
from safetensors.torch import save_file
name, config, folder = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
torch.manual_seed(0)
torch.set_num_threads(1)
model = getattr(transformers, name + ("LMHeadModel" if name == "GPT2" else "ForCausalLM"))(
    getattr(transformers, name + "Config")(**config)).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter += 0.02 * torch.randn_like(parameter)  # gains and biases too
    model.save_pretrained(folder)
    prompt = torch.randint(0, config["vocab_size"], (2, 40))
    tokens = prompt
    for _ in range({NEW}):
        logits = model(tokens, use_cache=False).logits
        tokens = torch.cat((tokens, logits[:, -1:].argmax(-1)), 1)
save_file({{"prompt": prompt, "tokens": tokens, "logits": logits.contiguous()}}, folder + "/found")
"""


def llama_config(model: Model) -> dict[str, Any]:
    return {
        "vocab_size": model.vocab, "hidden_size": model.hidden, "intermediate_size": model.mlp,
        "num_hidden_layers": model.layers, "num_attention_heads": model.heads, "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "max_position_embeddings": model.context, "rms_norm_eps": model.eps, "rope_theta": model.theta,
        "tie_word_embeddings": model.tied, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }


GPT2_CONFIG = {"vocab_size": GPT.vocab, "n_embd": GPT.hidden, "n_inner": GPT.mlp, "n_layer": GPT.layers, "n_head": GPT.heads,
               "n_positions": GPT.context, "layer_norm_epsilon": GPT.eps, "bos_token_id": 0, "eos_token_id": 0}
CASES = {"GPT2": (GPT, GPT2_CONFIG), "Llama": (TINY, llama_config(TINY)), "Qwen3": (QWEN, llama_config(QWEN))}


@pytest.mark.parametrize("name", CASES)
def test_logits_and_greedy_tokens_are_its(name: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model, config = CASES[name]
    done = subprocess.run([sys.executable, "-c", SCRIPT, name, json.dumps(config), str(tmp_path)], cwd=tmp_path,
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    theirs = load_file(tmp_path / "found")
    run = Decoder(model, model.kv_heads, load_weights(tmp_path, model, model.kv_heads, "float32", "cpu"), "float32", "cpu")
    cache = make_cache("dense", model, model.kv_heads, 2, model.context, "float32", "cpu")
    largest = theirs["logits"].abs().max()
    for count in range(40, 40 + NEW):
        given, wanted = theirs["tokens"][:, :count], theirs["logits"][:, count - 1]
        cached = run.forward(given if count == 40 else given[:, -1:], cache)
        for found in (run.forward(given), cached):
            assert (found - wanted).abs().max() < BOUND * largest
    for kind in CACHES[:3]:
        generation = Generation(run, kind, 2, 40 + NEW)
        generation.prefill(theirs["prompt"])
        for _ in range(NEW - 1):
            generation.step()
        assert torch.equal(generation.tokens(), theirs["tokens"][:, 40:])
