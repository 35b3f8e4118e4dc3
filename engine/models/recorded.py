"""Passes over whole sequences as CUDA graphs: what a step without a cache computes, which the host could not queue as fast.

A graph has one length. Sequences are filled up to the next of a few lengths (`activations.padded`), with tokens that no earlier
one sees. Source: the padded batch sizes for which vLLM captures its decoding steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from engine.models.activations import groups, padded, recordings, warmed
from engine.models.decoder import Decoder


class _Graph(NamedTuple):
    """Of some sequences of one length. tokens [S, L], ends [S]: what is copied there before a replay."""

    graph: torch.cuda.CUDAGraph
    tokens: Tensor
    ends: Tensor


class Recorded:
    """The passes of sequences that grow from `first` tokens to one less than `capacity`, captured when it is made.

    Raises:
        torch.OutOfMemoryError: the device is full.
    """

    def __init__(self, decoder: Decoder, batch: int, first: int, capacity: int) -> None:
        self.first, self._capacity, self._decoder = first, capacity, decoder
        wanted = recordings(batch, first, capacity)
        size = max(some for some, _ in wanted), decoder.model.vocab
        self._logits = torch.empty(size, dtype=getattr(torch, decoder.dtype), device=decoder.place)
        self._pool = torch.cuda.MemPool()  # of what all passes compute, since they run one after the other
        self._graphs = {pair: _Graph(torch.cuda.CUDAGraph(), *_staged(*pair, decoder.place)) for pair in wanted}
        with capturable():
            with torch.cuda.use_mem_pool(self._pool):
                for pair in warmed(wanted):  # so that all is compiled and loaded
                    self._pass(self._graphs[pair])
            for pair in wanted:
                graph = self._graphs[pair].graph
                graph.capture_begin(self._pool.id, "thread_local")  # type: ignore[arg-type]  # a handle is such a pair
                try:
                    self._pass(self._graphs[pair])
                finally:
                    graph.capture_end()

    def logits(self, tokens: Tensor, ends: Tensor, longest: int) -> Tensor:
        """Logits [B, vocab] of what follows each sequence's last token.

        Args:
            tokens: int64 [B, capacity], of which any may stand behind a sequence's end.
            ends: int64 [B], tokens of each sequence. longest: the host's bound of them.
        """
        length, batch, start = padded(longest, self._capacity), len(tokens), 0
        found = self._logits.new_empty((batch, self._logits.shape[1]))
        for some in groups(batch, length):
            graph, part = self._graphs[some, length], slice(start, start + some)
            graph.tokens.copy_(tokens[part, :length])
            graph.ends.copy_(ends[part])
            graph.graph.replay()
            found[part] = self._logits[:some]
            start += some
        return found

    def reset(self) -> None:
        """Lets go of the graphs."""
        for graph in self._graphs.values():
            graph.graph.reset()
        self._graphs = {}

    def _pass(self, graph: _Graph) -> None:
        self._logits[: len(graph.ends)] = self._decoder.forward(graph.tokens, None, graph.ends)


def _staged(some: int, length: int, place: str) -> tuple[Tensor, Tensor]:
    """Tokens [S, L] and ends [S], of sequences of one token."""
    return torch.zeros((some, length), dtype=torch.int64, device=place), torch.ones(some, dtype=torch.int64, device=place)


@contextmanager
def capturable() -> Iterator[None]:
    """Work goes to the current stream, or where that is the default one, which cannot be captured, to one beside it."""
    current = torch.cuda.current_stream()
    stream = _beside(current.device_index) if current == torch.cuda.default_stream() else current
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


@cache
def _beside(index: int) -> torch.cuda.Stream:
    """One for all captures, since a library keeps a workspace for every stream."""
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]  # PyTorch left it untyped
