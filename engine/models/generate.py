"""Generation, token by token: with a cache a step is one token of each sequence, without one it is all of them again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from engine.decoding import CacheKind
from engine.models.decoder import Decoder
from engine.models.kv_cache import Cache, make_cache
from engine.models.recorded import Recorded, capturable


class Sampling(NamedTuple):
    """How a token is drawn: of the `top_k` most likely, or of all, in proportion to exp(logit / temperature)."""

    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0


class Generation:
    """Sequences that grow together. All work is queued on the current stream; only `tokens` waits for it.

    Args:
        capacity: the most tokens of a sequence, prompt included.
        sampling: greedy without it.
        graph: on a GPU a step is a replay of a CUDA graph.

    Raises:
        torch.OutOfMemoryError: the device is full.
    """

    def __init__(
        self, decoder: Decoder, cache_kind: CacheKind, batch: int, capacity: int, *,
        sampling: Sampling | None = None, graph: bool = True,
    ) -> None:
        self._decoder, self.batch, self.capacity, self._sampling = decoder, batch, capacity, sampling
        shape = (decoder.model, decoder.kv_heads, batch, capacity, decoder.dtype, decoder.place)
        self.cache: Cache | None = None if cache_kind == "none" else make_cache(cache_kind, *shape)
        self._capturing = graph and torch.device(decoder.place).type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None   # of a step with a cache
        self._recorded: Recorded | None = None            # of those without
        self._generator = torch.Generator(decoder.place)
        if sampling:
            self._generator.manual_seed(sampling.seed)
        self._all = torch.zeros((batch, capacity), dtype=torch.int64, device=decoder.place)
        self._ends = torch.zeros(batch, dtype=torch.int64, device=decoder.place)  # tokens of each sequence
        self._starts = torch.zeros_like(self._ends)
        self._ragged = self._prepared = False
        self._prompt = self.position = 0

    @property
    def allocated_bytes(self) -> int:
        """Of the cache."""
        return self.cache.allocated_bytes if self.cache else 0

    def prefill(self, tokens: Tensor, lengths: Tensor | None = None) -> None:
        """Takes the prompts, int64 [B, P], and chooses one token of each; to be called once, before all steps.

        Args:
            lengths: int [B], of prompts that end before P.

        Raises:
            ValueError: there is no room for one token more.
        """
        count = tokens.shape[1]
        self._require_room(count)
        self._all[:, :count] = tokens
        if lengths is None:
            self._ends.fill_(count)
        else:
            self._ends.copy_(lengths)
        self._starts.copy_(self._ends)
        self._ragged, self._prompt, self.position = lengths is not None, count, count + 1
        self._advance_whole(count)

    def prepare(self, prompt: int = 1) -> None:
        """What the first step would otherwise do before it, and may be done before the prompt: on a GPU, to capture it.

        Args:
            prompt: tokens of a sequence, which there will be at least.
        """
        if self._prepared:
            return
        self._prepared = True
        if self._capturing and self.cache is not None:
            self._graph = torch.cuda.CUDAGraph()
            self._capture(self._graph, self.cache)
        elif self._capturing and prompt < self.capacity:
            with self._undone():
                generator = self._generator if self._sampling else None
                self._recorded = Recorded(self._decoder, self._all, self._ends, self._choose, prompt, generator)

    def step(self) -> None:
        """One more token of every sequence. Raises: ValueError where there is no room."""
        self._require_room(self.position)
        self.prepare(self.position)
        if self._graph is not None and self.cache is not None:
            self._graph.replay()
            self.cache.longest += 1
        else:
            self._advance()
        self.position += 1

    def rehearse(self) -> None:
        """A step that is undone: what one costs is known before any counts. Raises: ValueError where there is no room."""
        with self._undone():
            self.step()
            self.position -= 1
            if self.cache is not None:
                self.cache.advance(-1)

    def tokens(self) -> Tensor:
        """The new tokens of each sequence, int64 [B, position - P], on the host."""
        new = torch.arange(self.position - self._prompt, device=self._all.device)
        return self._all.gather(1, self._starts[:, None] + new).cpu()

    def reset(self) -> None:
        """Empty again, for another prompt of as many sequences; what was captured stays."""
        if self.cache is not None:
            self.cache.hold(0)
        self._ends.zero_()
        self.position = 0

    def stand_at(self, tokens: int) -> None:
        """As though the cache held so many tokens of each sequence already: what a step costs there can be measured."""
        if self.cache is not None:
            self.cache.hold(tokens)
        self._ends.fill_(tokens + 1)
        self._starts.copy_(self._ends)
        self._prompt, self.position = tokens, tokens + 1

    def close(self) -> None:
        """Lets go of the cache and the graph; nothing more can be asked."""
        for captured in (self._graph, self._recorded):
            if captured is not None:
                captured.reset()
        self._graph = self._recorded = self.cache = None
        self._all = self._all.new_empty((self.batch, 0))

    def _require_room(self, held: int) -> None:
        if held + 1 > self.capacity:
            raise ValueError(f"there is room for {self.capacity} tokens and {held} are there: choose fewer")

    def _advance(self) -> None:
        if self.cache is None:
            self._advance_whole(self.position)
        else:
            last = self._all.gather(1, self._ends[:, None] - 1)
            self._choose(self._decoder.forward(last, self.cache))

    def _advance_whole(self, count: int) -> None:
        """By all tokens of each sequence, `count` at most."""
        if self._recorded is not None and count >= self._recorded.first:
            self._recorded.step(count)
        else:
            self._choose(self._decoder.forward(self._all[:, :count], self.cache, self._ends if self._ragged else None))

    def _choose(self, logits: Tensor) -> None:
        """One token of each sequence from logits [B, vocab], behind its others."""
        chosen = logits if self._sampling is None else self._drawn(logits, self._sampling)
        self._all.scatter_(1, self._ends[:, None], chosen.argmax(-1, keepdim=True))
        self._ends.add_(1)

    def _drawn(self, logits: Tensor, sampling: Sampling) -> Tensor:
        """Scores whose largest is a sample: logits with Gumbel noise. Source: Gumbel 1954; -log of an exponential is one."""
        scores = logits.float() / sampling.temperature
        if sampling.top_k is not None and sampling.top_k < scores.shape[1]:
            least = scores.topk(sampling.top_k).values[:, -1:]
            scores = scores.masked_fill(scores < least, float("-inf"))
        return scores.sub_(torch.empty_like(scores).exponential_(generator=self._generator).log_())

    def _capture(self, graph: torch.cuda.CUDAGraph, cache: Cache) -> None:
        """Records a step. One runs before, so that all is compiled and allocated."""
        cache.whole = True
        with self._undone(), capturable():
            self._advance()
            cache.advance(-1)
            self._ends.sub_(1)
            if self._sampling:
                graph.register_generator_state(self._generator)
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._advance()
            finally:
                graph.capture_end()
            cache.longest -= 1  # which the capture counted

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Steps within leave no more than tokens behind the ends, even before the prompt."""
        ends, noise = self._ends.clone(), self._generator.get_state()
        self._ends.clamp_(min=1)  # a step begins with a last token
        yield
        self._ends.copy_(ends)
        if self._sampling:
            self._generator.set_state(noise)
