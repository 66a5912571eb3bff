"""The general wiring: views, networks, teachers, masks, targets and terms, named in the config.

Named entries carry the method: groups of views (`config.views`), what is hidden of them
(`config.masks`), networks (`config.encoder`, `config.student`), teachers (`config.teachers`),
targets read off the views (`config.targets`) and terms (`config.losses`). A teacher sees the groups
named by its field `views` (default "global" where there is such a group), whole, with batch
statistics of its own. Where something is hidden, heads (a decoder, a predictor) read where patches
were left out, and terms compare what they give with a target of the whole view ("input/pixels") or
with a teacher's features ("ema/tokens"). A term may remember things across steps
(`jaxssl.memories`), and read the labels of its stream or the columns of a table.

A step (`wiring`): views, teachers and targets, masks (some of which read a teacher), the student,
terms.
"""

from jaxssl.methods.composed.wiring import READS_STREAMS, Wiring, build

__all__ = ["READS_STREAMS", "Wiring", "build"]
