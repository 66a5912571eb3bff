"""What a method's own head transcribes of held-out samples, frame by frame."""

import itertools
from typing import Any

import numpy as np

from jaxssl import metrics
from jaxssl.config.errors import ConfigError
from jaxssl.evals import outputs
from jaxssl.evals.subject import Subject
from jaxssl.method import Info

PROTOCOL: dict[str, Any] = {"output": "frames", "of": "tokens", "frames": "", "space": ""}
BETTER = {"*": "lower"}
NEEDS_LABELS = False
BLANK = 0


def examine(
    subject: Subject,
    *,
    output: str = "frames",
    of: str = "tokens",
    frames: str = "",
    space: str = "",
) -> dict[str, float]:
    """Error rates of the likeliest path, repeats merged and blanks left out.

    Nothing is fitted, and raw input has no head. Symbol 0 is the blank.

    Args:
      subject: its encoder gives scores [B, T, K] of the symbols.
      output: their name: that of a head.
      of: a field of the samples, integers [L], padded; `<of>_length` says how many there are.
      frames: a field, integers: how many of the T count; "" is all.
      space: a word of the field's `vocabulary` that separates words; "" knows no words.

    Returns:
      {"token_error_rate": edits over the tokens that were meant, and "word_error_rate" where there
      are words}; lower is better.

    Raises:
      FloatingPointError: scores are not finite.
    """
    if subject.state is None:
        return {}
    said, rows = outputs.predictions(subject, output)
    counts = rows[frames] if frames else np.full(len(said), said.shape[1])
    read = metrics.ctc_greedy(said, counts, blank=BLANK)
    meant = [row[:n].tolist() for row, n in zip(rows[of], rows[f"{of}_length"])]
    found = {"token_error_rate": metrics.error_rate(read, meant)}
    if space:
        words = subject.test_source.fields[of].facts["vocabulary"]
        gap = tuple(words).index(space)
        found["word_error_rate"] = metrics.error_rate(_words(read, gap), _words(meant, gap))
    return found


def _words(rows: list[list[int]], gap: int) -> list[list[tuple[int, ...]]]:
    """Of each row its words, the symbols between gaps."""
    split = []
    for row in rows:
        cuts = [-1, *(i for i, symbol in enumerate(row) if symbol == gap), len(row)]
        words = [tuple(row[a + 1 : b]) for a, b in itertools.pairwise(cuts)]
        split.append([word for word in words if word])
    return split


def check_outputs(
    shapes: outputs.Shapes,
    info: Info,
    *,
    output: str = "frames",
    of: str = "tokens",
    frames: str = "",
    space: str = "",
) -> None:
    """Refuses an output that has no scores of symbols for each frame.

    Raises:
      ConfigError: no such output or field, or a space that is not in the vocabulary.
    """
    shape = outputs.shape_of("ctc", output, shapes)
    field = outputs.field_of("ctc", of, info, ("tokens",))
    outputs.field_of("ctc", f"{of}_length", info)
    if frames:
        outputs.field_of("ctc", frames, info)
    words = tuple(field.facts.get("vocabulary", ()))
    if space and space not in words:
        raise ConfigError(
            f"evals.ctc.space: found {space!r}, expected a word of the vocabulary of {of!r}"
        )
    outputs.check_shape("ctc", output, shape, ("B", "T", len(words) or "K"))
