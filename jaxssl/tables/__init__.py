"""Tables: what a stage of a run makes of samples or classes, for later stages to read by index.

    config.stages = (
        dict(name="teacher"),
        dict(name="pseudo", make=dict(name="pseudo_labels", of="teacher")),
        dict(name="sure", make=dict(name="select", table="pseudo", threshold=0.9)),
        dict(name="student", changes={
            "data.part": "sure",          # only its samples; some of them several times, maybe
            "data.join": ("pseudo",),     # batches have "pseudo.label", "pseudo.confidence", ...
            "losses.classes.labels": dict(batch="pseudo.label"),
        }),
    )

A maker is a module of this package, or one elsewhere by its dotted name (`jaxssl.config.finder`),
with

    make(subject, source, **fields) -> Table      a pure function
    example(subject, source, **fields) -> Table   its shapes, for the rehearsal before any training:
                                                  checks the fields, and computes nothing

`subject` is the encoder, in evaluation mode, that the stage `of` left (`jaxssl.evals.subject`), and
`source` the training split. A parameter that is a `Table` is given by the name of an earlier stage
that made it, and `seed` is the stage's own. Whoever reads a table reads it by the sample's stored
place, so that no order, part or repetition can give a sample the row of another. Terms may read one
whole: `dict(table="means.mean")`. No table replaces a field, so evaluations see none.
"""

from jaxssl.tables.table import Table, load, placeholder, sample_table, save

__all__ = ["Table", "load", "placeholder", "sample_table", "save"]
