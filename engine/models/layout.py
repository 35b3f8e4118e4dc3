"""The tensors of a decoder and their shapes, as the kernels want them. Free of torch.

Q, K and V are one matrix [(H_q + 2 H_kv) D, hidden] a layer, and SwiGLU's gate and up are one [2 mlp, hidden], the gate first:
each is read in one launch.
"""

from __future__ import annotations

from engine.decoding import Model

Shape = tuple[int, ...]


class WeightsError(ValueError):
    """A folder's weights cannot be used; the text is one sentence that names the folder, file or tensor."""


def qkv_rows(model: Model, kv_heads: int) -> int:
    """Outputs of the one matrix that makes Q, K and V."""
    return (model.heads + 2 * kv_heads) * model.head_dim


def up_rows(model: Model) -> int:
    """Outputs of the MLP's first matrix."""
    return model.mlp * (2 if model.activation == "swiglu" else 1)


def shapes(model: Model, kv_heads: int) -> dict[str, Shape]:
    """Every tensor's name and shape; together `model.parameters(kv_heads)` elements."""
    found: dict[str, Shape] = {"embedding": (model.vocab, model.hidden)}
    if model.positions == "learned":
        found["positions"] = (model.context, model.hidden)
    for layer in range(model.layers):
        found |= {f"layers.{layer}.{name}": shape for name, shape in _layer(model, kv_heads).items()}
    found |= _norm("norm", model)
    if not model.tied:
        found["head"] = (model.vocab, model.hidden)
    return found


def _layer(model: Model, kv_heads: int) -> dict[str, Shape]:
    width = model.heads * model.head_dim
    matrices = {"qkv": (qkv_rows(model, kv_heads), model.hidden), "out": (model.hidden, width),
                "up": (up_rows(model), model.hidden), "down": (model.hidden, model.mlp)}
    found: dict[str, Shape] = _norm("norm1", model) | _norm("norm2", model)
    for name, shape in matrices.items():
        found[f"{name}.weight"] = shape
        if model.bias:
            found[f"{name}.bias"] = shape[:1]
    if model.qk_norm:
        found |= {"q_norm": (model.head_dim,), "k_norm": (model.head_dim,)}
    return found


def _norm(name: str, model: Model) -> dict[str, Shape]:
    kinds = ("weight", "bias") if model.norm == "layer" else ("weight",)
    return {f"{name}.{kind}": (model.hidden,) for kind in kinds}
