"""Steps without a cache as CUDA graphs: they compute whole sequences, and the host could not queue that as fast.

A graph has one length. Sequences are filled up to the next of a few lengths (`activations.padded`), with tokens that no earlier
one sees. Source: the padded batch sizes for which vLLM captures its decoding steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from engine.models.activations import groups, padded, recordings, warmed
from engine.models.decoder import Decoder


class _Graph(NamedTuple):
    """Of so many sequences of one length: their tokens [S, L] and ends [S], which a replay reads."""

    graph: torch.cuda.CUDAGraph
    tokens: Tensor
    ends: Tensor


class Recorded:
    """Steps of sequences that grow from `first` tokens to one less than their room; captured when it is made.

    Where all sequences are computed at once a step is one replay; else one for each group of them.

    Args:
        tokens: int64 [B, capacity], of which any may stand behind a sequence's end. ends: int64 [B], tokens of each.
        choose: makes tokens of logits [B, vocab]. Runs before the capture too: the caller undoes it.
        generator: what it draws from, if it draws.

    Raises:
        torch.OutOfMemoryError: the device is full.
    """

    def __init__(
        self, decoder: Decoder, tokens: Tensor, ends: Tensor, choose: Callable[[Tensor], None], first: int,
        generator: torch.Generator | None,
    ) -> None:
        self.first, self._decoder, self._tokens, self._ends, self._choose = first, decoder, tokens, ends, choose
        self._batch, self._capacity = tokens.shape
        wanted = recordings(self._batch, first, self._capacity)
        size = max((some for some, _ in wanted if some < self._batch), default=0), decoder.model.vocab
        self._logits = torch.empty(size, dtype=getattr(torch, decoder.dtype), device=decoder.place)  # of a group
        self._pool = torch.cuda.MemPool()  # of what all passes compute, since they run one after the other
        self._graphs = {pair: _Graph(torch.cuda.CUDAGraph(), *self._read_by(*pair)) for pair in wanted}
        with capturable():
            with torch.cuda.use_mem_pool(self._pool):
                kept = ends.clone()
                for pair in warmed(wanted):  # so that all is compiled and loaded
                    self._pass(self._graphs[pair])
                    ends.copy_(kept)
            for pair in wanted:
                graph = self._graphs[pair].graph
                if generator is not None:
                    graph.register_generator_state(generator)
                graph.capture_begin(self._pool.id, "thread_local")  # type: ignore[arg-type]  # a handle is such a pair
                try:
                    self._pass(self._graphs[pair])
                finally:
                    graph.capture_end()

    def step(self, longest: int) -> None:
        """One token more of every sequence. `longest`: the host's bound of `ends`."""
        length, start = padded(longest, self._capacity), 0
        if (self._batch, length) in self._graphs:
            self._graphs[self._batch, length].graph.replay()
            return
        logits = self._logits.new_empty((self._batch, self._logits.shape[1]))
        for some in groups(self._batch, length):
            graph, part = self._graphs[some, length], slice(start, start + some)
            graph.tokens.copy_(self._tokens[part, :length])
            graph.ends.copy_(self._ends[part])
            graph.graph.replay()
            logits[part] = self._logits[:some]
            start += some
        self._choose(logits)

    def reset(self) -> None:
        """Lets go of the graphs."""
        for graph in self._graphs.values():
            graph.graph.reset()
        self._graphs = {}

    def _read_by(self, some: int, length: int) -> tuple[Tensor, Tensor]:
        """The sequences themselves, or where a group of them will be copied."""
        if some == self._batch:
            return self._tokens[:, :length], self._ends
        return self._tokens.new_zeros((some, length)), self._ends.new_ones(some)

    def _pass(self, graph: _Graph) -> None:
        logits = self._decoder.forward(graph.tokens, None, graph.ends)
        if graph.ends is self._ends:
            self._choose(logits)
        else:
            self._logits[: len(logits)] = logits


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
