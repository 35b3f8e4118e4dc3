"""`python -m engine decode`: a model's decoding without a window. Without torch until it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from engine.console import as_json, converse, device_of, on_device, print_json, print_rich, spec_of
from engine.decoding import CACHES, CacheKind, Decoding, Lane, Model
from engine.options import BadInput
from engine.protocol import ConfigureDecoding, Fault, Start
from kernels.contract import Device

if TYPE_CHECKING:
    from engine.models.results import Result

ATTENTIONS = ("mha", "gqa", "mqa")


@click.command()
@click.option("--model", "name", default="gpt2", show_default=True, metavar="ID", help="Of assets/models.")
@click.option("--cache", "caches", default="dense", show_default=True, metavar="KIND[,KIND...]",
              help=f"How K and V are kept: {', '.join(CACHES)}.")
@click.option("--attention", type=click.Choice(ATTENTIONS), help="Left out: the model's own.")
@click.option("--kv-heads", type=click.IntRange(1, 1024), help="In place of --attention: any ratio that divides the heads.")
@click.option("--batch", default=1, show_default=True, type=int, help="Sequences at once.")
@click.option("--prompt", default=32, show_default=True, type=int, help="Tokens of the prompt, random ones.")
@click.option("--new", default=200, show_default=True, type=int, help="Tokens to make.")
@click.option("--dtype", type=click.Choice(("float16", "bfloat16", "float32")),
              help="Left out: float16, bfloat16 for models of 8 GB or more, float32 on a CPU.")
@click.option("--weights", default="", metavar="DIR", help="A folder with the model's safetensors; left out: random ones.")
@click.option("--temperature", default=0.0, show_default=True, type=float, help="0: the likeliest token.")
@click.option("--top-k", default=0, show_default=True, type=int, help="Draw from so many; 0: from all.")
@click.option("--seed", default=0, show_default=True, type=int, help="Of random weights, prompts and draws.")
@on_device
@as_json
def decode(
    name: str, caches: str, attention: str | None, kv_heads: int | None, batch: int, prompt: int, new: int, dtype: str | None,
    weights: str, temperature: float, top_k: int, seed: int, device: str | None, as_json: bool,
) -> int:
    """Decode with a whole model, token by token, each way of caching in turn, and print what was measured.

    On a simulated GPU (sim:ID of engine devices, sim:FILE.toml) nothing is computed: times are predicted.
    """
    from engine import devices
    from engine.models import shapes

    found = devices.find()
    where, model = device_of(device, found, simulated=True), _model(name, shapes.load())
    if where.kind == "sim" and weights:
        raise BadInput(f"nothing is computed on {where.name}: leave out --weights")
    heads = heads_of(model, attention, kv_heads)
    lanes = tuple(Lane(cache=kind, kv_heads=heads) for kind in _caches(caches))
    try:
        decoding = Decoding(
            model=model, lanes=lanes, batch=batch, prompt=prompt, new=new, weights=weights, temperature=temperature,
            top_k=top_k, seed=seed, dtype=dtype or default_dtype(model, where))  # type: ignore[arg-type]
    except ValueError as error:
        raise BadInput(str(error)) from error
    results, faults = (predicted(decoding, where), []) if where.kind == "sim" else run(decoding, where, found)
    for fault in faults:
        click.echo(f"{fault.message}. {fault.remedy}", err=True)
    if as_json:
        print_json(results[0] if len(results) == 1 else results)
    else:
        from engine.models.results import table

        print_rich(table(results))
    return 1 if faults or any(result.refused for result in results) else 0


def _model(name: str, known: tuple[Model, ...]) -> Model:
    for model in known:
        if model.id == name:
            return model
    raise BadInput(f"there is no model {name!r}: choose from {', '.join(model.id for model in known)}")


def _caches(named: str) -> tuple[CacheKind, ...]:
    kinds = [kind.strip() for kind in named.split(",")]
    for kind in kinds:
        if kind not in CACHES:
            raise BadInput(f"there is no cache {kind!r}: choose from {', '.join(CACHES)}")
    return tuple(dict.fromkeys(kinds))  # type: ignore[arg-type]


def heads_of(model: Model, attention: str | None, kv_heads: int | None) -> int:
    """KV heads of a kind of attention: the model's own where it is of that kind, else a quarter of the heads for GQA."""
    if kv_heads is not None:
        return kv_heads
    quarter = max(n for n in range(1, model.heads + 1) if model.heads % n == 0 and n <= max(1, model.heads // 4))
    own = model.kv_heads if 1 < model.kv_heads < model.heads else quarter
    return {None: model.kv_heads, "mha": model.heads, "gqa": own, "mqa": 1}[attention]


def default_dtype(model: Model, device: Device) -> str:
    """float32 on a CPU; of 8 GB or more of weights models are published in bfloat16."""
    if device.kind == "cpu":
        return "float32"
    large = 2 * model.parameters(model.kv_heads) >= 8e9
    return "bfloat16" if large and (device.capability or (9, 0)) >= (8, 0) else "float16"


def run(decoding: Decoding, device: Device, found: tuple[Device, ...]) -> tuple[list[Result], list[Fault]]:
    """Each lane alone, in a session of its own. Raises: BadInput where the session refuses."""
    from msgspec.structs import replace

    results, faults = [], list[Fault]()
    for lane in decoding.lanes:
        made, broken = _run(replace(decoding, lanes=(lane,)), device, found)
        results += made
        faults += broken
        if any(fault.fatal for fault in broken):
            break
    return results, faults


def predicted(decoding: Decoding, device: Device) -> list[Result]:
    """Each lane alone, as the simulator says it would go on that simulated GPU. Raises: BadInput where its spec is gone."""
    from msgspec.structs import replace

    from engine.models.results import Collector
    from engine.models.simulated import events

    results, spec = [], spec_of(device.id)
    for lane in decoding.lanes:
        collector = Collector()
        for event in events(replace(decoding, lanes=(lane,)), spec):
            collector.add(event)
        results += collector.results(device)
    return results


def _run(decoding: Decoding, device: Device, found: tuple[Device, ...]) -> tuple[list[Result], list[Fault]]:
    from engine.models.results import Collector
    from engine.session import Session

    collector = Collector()
    commands = (ConfigureDecoding(generation=1, device=device.id, decoding=decoding), Start())
    faults = converse(
        lambda emit: Session(emit, devices=found, catalog={}, models=(), telemetry_s=None, foresees=False),
        commands, collector.add)
    return collector.results(device), faults
