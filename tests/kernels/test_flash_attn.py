"""FlashAttention-2, -3 and -4 through modules that stand in for them: layout, arguments, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from kernels.attention.flash_attn import LIBRARIES
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, Refusal
from kernels.contract.workload import Pass
from tests.kernels.shapes import CPU, H200, error, name, shape, tensors_for

ALL = list(LIBRARIES)
MISSING = {
    "flash_attn_2": "FlashAttention-2 is not installed: install it with pip",
    "flash_attn_3": "FlashAttention-3 is not installed: build it", "flash_attn_4": "not installed: install it with pip",
}
Call = dict[str, Any]


def bf16(seq: int, kv_heads: int = 4, **more: Any) -> AttentionWorkload:
    return shape(seq, kv_heads, dtype="bfloat16", **more)


def stand_in(calls: list[Call], *, with_lse: bool) -> Callable[..., Any]:
    """A flash_attn_func by its documentation: [B, N, H, D], query i sees the keys from i + N_kv - N_q - left to + right."""

    def flash_attn_func(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False, window_size: tuple[int, int] = (-1, -1),
    ) -> Any:
        if not calls:
            warnings.warn("of what it compiles", stacklevel=2)
        calls.append({"q": q, "k": k, "v": v, "causal": causal, "window_size": window_size})
        own = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
        keys, (left, right) = torch.arange(k.shape[1])[None], window_size
        seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool)
        if causal:
            right = 0
        if left >= 0:
            seen &= keys >= own - left
        if right >= 0:
            seen &= keys <= own + right
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True).transpose(1, 2)
        return (out, None) if with_lse else out

    return flash_attn_func


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], None]:
    """Puts a function in the place of a library's."""

    def put(kernel: str, function: object) -> None:
        module = ModuleType(LIBRARIES[kernel].module)
        module.flash_attn_func = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


@pytest.mark.parametrize("kernel", ALL)
def test_one_that_is_not_installed_is_refused_with_a_remedy(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, w = catalog()[kernel], bf16(64)
    tensors = tensors_for(spec, w)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, LIBRARIES[kernel].module, raising=False)
        patch.setattr(sys, "meta_path", [])
        (sentence,) = spec.constraints(w, Config(), H200)
        assert MISSING[kernel] in sentence
        with pytest.raises(Refusal, match="not installed"):
            spec.launch(w, Config(), tensors)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("kernel", ALL)
@pytest.mark.parametrize("workload", [
    bf16(63, 2), bf16(40, seq_kv=63), bf16(40, 1, causal=False), bf16(70, 2, window=20), bf16(30, 2, seq_kv=70, window=20),
], ids=name)
def test_an_installed_one_is_handed_views_and_gives_the_reference(
    kernel: str, workload: AttentionWorkload, direction: Pass, install: Callable[[str, object], None],
) -> None:
    w, spec, calls = replace(workload, pass_=direction), catalog()[kernel], list[Call]()
    install(kernel, stand_in(calls, with_lse=kernel == "flash_attn_4"))
    tensors = tensors_for(spec, w)
    got, wanted = spec.launch(w, Config(), tensors)(), spec.reference(w, tensors, None)
    assert set(got) == ({"O"} if direction == "forward" else {"dQ", "dK", "dV"})
    assert all(got[n].shape == wanted[n].shape and error(got[n], wanted[n]) <= 2 * spec.tolerance(w) for n in got)
    for call in calls:
        assert call["q"].shape == (w.batch, w.seq, w.heads, w.head_dim)
        assert call["k"].shape == call["v"].shape == (w.batch, w.keys, w.kv_heads, w.head_dim)
        assert [call[x].data_ptr() for x in "qkv"] == [tensors[x].data_ptr() for x in "QKV"]
        assert (call["causal"], call["window_size"]) == (w.causal, (w.window - 1, 0) if w.window else (-1, -1))


@pytest.mark.parametrize("kernel", ALL)
def test_what_it_would_copy_is_refused(kernel: str, install: Callable[[str, object], None]) -> None:
    spec, w = catalog()[kernel], bf16(16, direction="backward")
    install(kernel, stand_in([], with_lse=False))
    for operand in ("Q", "K", "V", "dO"):
        tensors = tensors_for(spec, w)
        x = tensors[operand]
        across = x.mT.contiguous().mT
        shifted = x.new_empty(x.numel() + 1)[1:].view_as(x).copy_(x)
        uneven = x.new_empty(*x.shape[:-1], w.head_dim + 4)[..., :w.head_dim].copy_(x)
        for laid in (across, shifted, uneven):
            with pytest.raises(Refusal, match=f"would copy {operand} before each launch"):
                spec.launch(w, Config(), {**tensors, operand: laid})


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_what_the_library_says_is_the_reason(direction: Pass, install: Callable[[str, object], None]) -> None:
    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
            assert direction == "backward", "this head dim is not supported\nand more"
            return q.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> None:
            raise NotImplementedError("this head dim is not supported")

    spec, w = catalog()["flash_attn_4"], bf16(16, direction=direction)
    install("flash_attn_4", lambda q, k, v, **_: Attention.apply(q, k, v))  # type: ignore[no-untyped-call]
    with pytest.raises(Refusal, match=r"^FlashAttention-4 refuses this shape here: this head dim is not supported$"):
        spec.launch(w, Config(), tensors_for(spec, w))


def test_one_whose_import_fails_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flash_attn" / "cute").mkdir(parents=True)
    (tmp_path / "flash_attn" / "cute" / "__init__.py").write_text("import a_dependency_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec, w = catalog()["flash_attn_4"], bf16(16)
    assert not spec.constraints(w, Config(), H200)
    assert "flash_attn" not in sys.modules
    with pytest.raises(Refusal, match="installed and cannot be imported: No module named 'a_dependency_that_is_missing'"):
        spec.launch(w, Config(), tensors_for(spec, w))


@pytest.mark.parametrize("kernel", ALL)
def test_what_it_does_not_take_is_said_before_a_launch(kernel: str, install: Callable[[str, object], None]) -> None:
    install(kernel, stand_in([], with_lse=False))
    spec = catalog()[kernel]

    def says(w: AttentionWorkload, capability: tuple[int, int] | None = (9, 0)) -> str:
        return "; ".join(spec.constraints(w, Config(), replace(H200, capability=capability)))

    assert not says(bf16(64)) + says(bf16(64, seq_kv=40)) + says(bf16(64, head_dim=256, window=16))
    assert "float16 and bfloat16" in says(shape(64))
    assert ("this device has 8.9" in says(bf16(64), (8, 9))) == (kernel != "flash_attn_2")
    assert "this device has 7.5" in says(bf16(64), (7, 5))
    assert "an unknown one" in says(bf16(64), None)
    assert ("no head dim 192" in says(bf16(64, head_dim=192), (10, 0))) == (kernel == "flash_attn_4")
    assert "NVIDIA GPU" in spec.constraints(bf16(64), Config(), CPU)[0]


def test_looking_for_them_imports_neither_them_nor_torch() -> None:
    code = """
import sys
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, Device
for kernel in ("flash_attn_2", "flash_attn_3", "flash_attn_4"):
    catalog()[kernel].constraints(AttentionWorkload(), Config(), Device(id="cuda:0", kind="cuda", name="x", capability=(9, 0)))
assert not {"torch", "flash_attn", "flash_attn_interface"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
