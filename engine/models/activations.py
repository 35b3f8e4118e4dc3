"""The tensors that a lane's passes make beside its weights and cache, in order: taken from a heap, and given back to it.

It reads as decoder.py and generate.py do, with sizes for tensors. Layers, chunks of rows and groups of sequences that are alike
repeat with the same blocks: two of each are played. Indices of a few bytes are left out.
tests/engine/models/test_activations.py holds it against torch on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from engine.models.layout import up_rows
from engine.models.operations import Operations

ROWS = 4096  # tokens of prompts that are computed at once, where one sequence is not longer


def sequences_at_once(tokens: int) -> int:
    """Whose prompts of so many tokens are computed together."""
    return max(1, ROWS // tokens)


def rows_at_once(batch: int, tokens: int) -> int:
    """Tokens of prompts of so many each that are computed together."""
    return min(batch, sequences_at_once(tokens)) * tokens


def groups(batch: int, tokens: int) -> list[int]:
    """Sequences of so many tokens each, as many together as are computed at once."""
    each = sequences_at_once(tokens)
    return [each] * (batch // each) + [batch % each] * (batch % each > 0)


def padded(tokens: int, most: int) -> int:
    """The length that sequences of so many tokens are filled up to where passes are captured: a multiple of 64, and of a
    sixteenth of the power of two above: an eighth more at most, or 63. `most` is not exceeded."""
    grain = max(64, (1 << (tokens - 1).bit_length()) // 16)
    return min(most, -(-tokens // grain) * grain)


def recordings(batch: int, first: int, capacity: int) -> list[tuple[int, int]]:
    """The passes that are captured for sequences that grow from `first` tokens to one less than `capacity`: how many at once,
    and their length; those of most rows first."""
    lengths = [padded(first, capacity)]
    while lengths[-1] < capacity - 1:
        lengths.append(padded(lengths[-1] + 1, capacity))
    found = {(some, length) for length in lengths for some in groups(batch, length)}
    return sorted(found, key=lambda pair: (pair[0] * pair[1], pair), reverse=True)


def warmed(passes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that run once before any is captured: the first and the last of each number of sequences."""
    ends: dict[int, list[tuple[int, int]]] = {}
    for some, length in passes:
        ends.setdefault(some, []).append((some, length))
    return list(dict.fromkeys(each for some in ends.values() for each in (some[0], some[-1])))


def largest(batch: int, first: int, last: int) -> list[int]:
    """Of sequences that grow from `first` to `last` tokens and are computed whole each time, the lengths whose blocks hold
    those of all others: where most rows are computed at once, and the longest."""
    fullest = [tokens for sequences in range(1, min(batch, sequences_at_once(first)) + 1)
               if first <= (tokens := ROWS // sequences) <= last]
    return list(dict.fromkeys([max([last, *fullest], key=lambda tokens: rows_at_once(batch, tokens)), last]))


class Passes(Operations):
    """Of one lane; each pass gives back all that it takes, but what our kernels keep from their first step on."""

    def prompts(self, tokens: int) -> Any:
        """`Decoder.forward` of so many tokens of each sequence; the logits."""
        model, batch, take, give = self.decoding.model, self.decoding.batch, self.heap.take, self.heap.give
        logits = take(batch * model.vocab * self._e)
        for sequences in _pieces(batch, sequences_at_once(tokens)):
            give(self._prompt(sequences, tokens))
        return logits

    def group(self, sequences: int, tokens: int) -> Any:
        """The same of sequences that are computed at once, as they are captured."""
        logits = self.heap.take(sequences * self.decoding.model.vocab * self._e)
        self.heap.give(self._prompt(sequences, tokens))
        return logits

    def step(self) -> Any:
        """`Decoder.forward` of a token of each sequence with the cache at its longest; the logits."""
        model, batch, take, give = self.decoding.model, self.decoding.batch, self.heap.take, self.heap.give
        last = take(8 * batch)
        x = self._embedded(batch)
        angles = self._angles(batch)
        qkv = None
        for _ in range(min(2, model.layers)):
            new = self._linear(batch, model.hidden, self._qkv, norm=True)
            self._append_one()
            give(qkv)
            qkv = new
            o = self._attend()
            kept, y = self._rest(batch)
            give(o, *kept)
            if y is not None:
                give(x)
                x = y
        logits = self._linear(batch, model.hidden, model.vocab, norm=True)
        give(x, *angles, qkv, last)
        return logits

    def choose(self, logits: Any) -> None:
        """`Generation._choose`; sampling among the likeliest."""
        take, give, scores = self.heap.take, self.heap.give, self.decoding.batch * self.decoding.model.vocab
        drawn = None
        if self._sampling:
            wide = take(4 * scores if self._e < 4 else 0)
            all_ = take(4 * scores)
            give(wide)
            mask = take(scores)
            drawn = take(4 * scores)
            give(mask, all_)
            give(take(4 * scores))  # noise
        give(take(8 * self.decoding.batch), logits, drawn)

    def _prompt(self, sequences: int, tokens: int) -> Any:
        """`Decoder._prompt`: its logits."""
        model, take, give, rows = self.decoding.model, self.heap.take, self.heap.give, sequences * tokens
        one = take(8 * tokens)
        positions = take(8 * rows)
        give(one)
        flat = take(8 * rows)
        x = self._embedded(rows)
        give(flat)
        angles = self._angles(rows)
        for _ in range(min(2, model.layers)):
            o = self._attention(sequences, tokens)
            for some in _pieces(rows, ROWS):
                kept, y = self._rest(some)
                give(*kept, y)
            give(o)
        logits = self._linear(sequences, model.hidden, model.vocab, norm=True)
        give(positions, *angles, x)
        return logits

    def _embedded(self, rows: int) -> Any:
        model = self.decoding.model
        x = self.heap.take(rows * model.hidden * self._e)
        if model.positions == "learned":
            self.heap.give(self.heap.take(rows * model.hidden * self._e))
        return x

    def _attention(self, sequences: int, tokens: int) -> Any:
        """`Decoder._attention`: O."""
        model, take, give, rows = self.decoding.model, self.heap.take, self.heap.give, sequences * tokens
        qkv = take(rows * self._qkv * self._e)
        for some in _pieces(rows, ROWS):
            part = self._linear(some, model.hidden, self._qkv, norm=True)
            self._prepare(some)
            give(part)
        if self.lane.cache != "none":
            self._append(rows)
        wide = rows * self._width * self._e if self.lane.kv_heads < model.heads else 0
        k, v = take(wide), take(wide)
        o = take(rows * self._width * self._e)
        if self._fused and self._e == 4:  # the memory efficient back end, without lse where nothing is differentiated
            give(qkv, k, v)
            return o
        lse = take(rows * model.heads * 4)
        splits = self._splits(sequences, tokens) if self._fused else 1
        if splits > 1:
            lanes = splits * rows * model.heads * 4
            give(take(lanes), take(lanes * (-(-model.head_dim // 32) * 32)))
        give(lse, qkv, k, v)
        return o

    def _rest(self, rows: int) -> tuple[tuple[Any, ...], Any]:
        """`Decoder._rest`: what ends with it, and what it returns where that is not x itself."""
        model = self.decoding.model
        x = self._linear(rows, self._width, model.hidden, residual=True)
        inner = self._linear(rows, model.hidden, up_rows(model), norm=True, activated=True)
        y = self._linear(rows, model.mlp, model.hidden, residual=True)
        return (x, inner), y

def _pieces(whole: int, most: int) -> Iterator[int]:
    """Sizes of what is cut into pieces of at most so many: of whole ones two, and the rest."""
    full, rest = divmod(whole, most)
    yield from islice((most, most), full)
    if rest:
        yield rest
