"""Small models of every kind, their decoders, and their weights as other programs name them."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from msgspec.structs import replace
from torch import Tensor

from engine.decoding import Model
from engine.models import shapes
from engine.models.decoder import Decoder
from engine.models.weights import Weights, random_weights
from kernels.contract.workload import DType

TINY = next(model for model in shapes.load() if model.id == "tiny")  # rotary, RMSNorm, SwiGLU: a Llama
GPT = replace(TINY, id="small-gpt", title="Small GPT", kv_heads=4, positions="learned", norm="layer", activation="gelu",
              bias=True, tied=True)
QWEN = replace(TINY, id="small-qwen", title="Small Qwen", head_dim=48, qk_norm=True, tied=True)  # wider than hidden
MODELS = (TINY, GPT, QWEN)


@functools.cache
def weights(model: Model, kv_heads: int, dtype: DType = "float32") -> Weights:
    return random_weights(model, kv_heads, dtype, "cpu", seed=0)


def decoder(model: Model, kv_heads: int, dtype: DType = "float32") -> Decoder:
    return Decoder(model, kv_heads, weights(model, kv_heads, dtype), dtype, "cpu")


def tokens(model: Model, batch: int, count: int) -> Tensor:
    """Random ones."""
    return torch.randint(0, model.vocab, (batch, count), generator=torch.Generator().manual_seed(count))


def as_gpt2(model: Model, given: Weights, prefix: str = "transformer.") -> dict[str, Tensor]:
    """The tensors as GPT-2's files name and lay them out."""
    names = {"norm1": "ln_1", "norm2": "ln_2", "qkv": "attn.c_attn", "out": "attn.c_proj", "up": "mlp.c_fc",
             "down": "mlp.c_proj"}
    found = {"wte.weight": given["embedding"], "wpe.weight": given["positions"],
             "ln_f.weight": given["norm.weight"], "ln_f.bias": given["norm.bias"]}
    for layer in range(model.layers):
        for ours, theirs in names.items():
            for kind in ("weight", "bias"):
                tensor = given[f"layers.{layer}.{ours}.{kind}"]
                found[f"h.{layer}.{theirs}.{kind}"] = tensor.mT.contiguous() if tensor.dim() == 2 else tensor
    return {prefix + name: tensor.clone() for name, tensor in found.items()}


def as_llama(model: Model, kv_heads: int, given: Weights) -> dict[str, Tensor]:
    """The tensors as Llama's files name them, and Qwen3's."""
    found = {"model.embed_tokens.weight": given["embedding"], "model.norm.weight": given["norm.weight"]}
    if not model.tied:
        found["lm_head.weight"] = given["head"]
    q, kv = model.heads * model.head_dim, kv_heads * model.head_dim
    for layer in range(model.layers):
        ours, theirs = f"layers.{layer}.", f"model.layers.{layer}."
        parts = dict(zip(("q_proj", "k_proj", "v_proj"), torch.split(given[ours + "qkv.weight"], [q, kv, kv]), strict=True))
        parts["o_proj"] = given[ours + "out.weight"]
        if model.qk_norm:
            parts |= {"q_norm": given[ours + "q_norm"], "k_norm": given[ours + "k_norm"]}
        gate, up = given[ours + "up.weight"].chunk(2)
        mlp = {"gate_proj": gate, "up_proj": up, "down_proj": given[ours + "down.weight"]}
        norms = {"input_layernorm": "norm1", "post_attention_layernorm": "norm2"}
        found |= {f"{theirs}self_attn.{name}.weight": tensor for name, tensor in parts.items()}
        found |= {f"{theirs}mlp.{name}.weight": tensor for name, tensor in mlp.items()}
        found |= {f"{theirs}{name}.weight": given[f"{ours}{norm}.weight"] for name, norm in norms.items()}
    return {name: tensor.clone() for name, tensor in found.items()}


def save(folder: Path, tensors: dict[str, Tensor], name: str = "model.safetensors") -> Path:
    """Writes a file into a folder, which it makes."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / name)
    return folder
