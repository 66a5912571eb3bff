"""How many edits predicted sequences are from the true ones."""

from collections.abc import Hashable, Sequence

import chex
import numpy as np
from numpy.typing import ArrayLike


def ctc_greedy(logits: ArrayLike, lengths: ArrayLike, *, blank: int = 0) -> list[list[int]]:
    """The likeliest symbol of each frame, repeats merged, blanks left out.

    Graves, Fernández, Gomez, Schmidhuber (2006), Connectionist temporal classification, best path
    decoding.

    Args:
      logits: [N, T, K].
      lengths: int [N], frames of each that count.
      blank: the symbol of no symbol.

    >>> ctc_greedy(np.eye(3)[[[0, 1, 1, 0, 1, 2]]], [6])
    [[1, 1, 2]]
    """
    best = np.asarray(logits).argmax(-1)
    chex.assert_rank(best, 2)
    decoded = []
    for row, length in zip(best, np.asarray(lengths)):
        row = row[:length]
        first = np.append(True, row[1:] != row[:-1])[: len(row)]
        decoded.append(row[first & (row != blank)].tolist())
    return decoded


def edit_distance(said: Sequence[Hashable], meant: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions that make one of the other.

    Levenshtein (1966).

    >>> edit_distance([1, 2, 3], [2, 3, 3, 4])
    3
    """
    row = np.arange(len(meant) + 1)
    for i, symbol in enumerate(said, start=1):
        # Substitutions and deletions at once; an insertion costs one more than what is to its left.
        straight = row[:-1] + np.array([other != symbol for other in meant], int)
        row = np.append(i, np.minimum(straight, row[1:] + 1))
        row = np.minimum.accumulate(row - np.arange(len(row))) + np.arange(len(row))
    return int(row[-1])


def error_rate(said: Sequence[Sequence[Hashable]], meant: Sequence[Sequence[Hashable]]) -> float:
    """Edits over the symbols that were meant, of the whole set: 0 is best, and 1 is not the worst.

        sum_n edits(said_n, meant_n) / sum_n |meant_n|

    Of words it is the word error rate, of characters that of characters.

    >>> error_rate([[1, 2], [3]], [[1, 2], [4, 3]])
    0.25
    """
    symbols = sum(len(one) for one in meant)
    edits = sum(edit_distance(a, b) for a, b in zip(said, meant, strict=True))
    return edits / max(symbols, 1)
