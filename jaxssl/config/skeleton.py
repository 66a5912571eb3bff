"""Every field that the loop reads, with its default, and what holds of fields by their names."""

from ml_collections import ConfigDict

from jaxssl import optim
from jaxssl.evals import protocol
from jaxssl.watch import alarms, nonfinite

# Sections whose entries are named by the config itself; the family that reads them checks them.
OPEN = (
    "encoder",
    "student",
    "teachers",
    "losses",
    "views",
    "masks",
    "targets",
    "method_options",
    "weights",
    "streams",
)
# How deep the fields lie in them: those of the named entries are one level further down.
FIELDS_FROM = {name: 1 if name in ("encoder", "method_options", "weights") else 2 for name in OPEN}
# Sections whose readers check every field themselves.
CHECKED_BY_READER = ("optimizer", "evals", "data.labels", "data.noise", "data.tasks")
# (section, field, least value) of whole numbers.
LEAST = (
    ("train", "global_batch", 1),
    ("train", "microbatches", 1),
    ("train", "seed", 0),
    ("evals", "every_steps", 0),
    ("evals", "calibration_batches", 0),
    ("alarms", "every_steps", 0),
    ("alarms", "samples", 8),
    ("alarms", "patience", 1),
    ("alarms", "limit", 0),
    ("nonfinite", "limit", 0),
    ("checkpoint", "every_steps", 0),
    ("checkpoint", "keep", 1),
    ("report", "every_steps", 1),
    ("report", "samples", 0),
)
# What a resumed run may change: none of it moves a parameter.
FREE_ON_RESUME = (
    *("mesh.", "evals.", "alarms.", "nonfinite.", "checkpoint.", "report."),
    *("data.path", "data.cache", "data.on_bad_record"),
)


def skeleton() -> ConfigDict:
    """Every field that the loop reads, with its default.

    A *number* may be a schedule: a tuple that `jaxssl.config.schedules.make` understands.
    """
    config = ConfigDict(type_safe=False)
    config.name = ""  # of the experiment: the config file's, unless it sets one
    config.method = ""  # the family: jaxssl/methods/<method>.py
    config.preset = ""  # the scale this config was made for
    config.train = dict(
        steps=0,  # exactly one of steps, epochs, examples
        epochs=0.0,
        examples=0,
        global_batch=128,  # B, over all devices and processes; never changed by itself
        microbatches=1,  # k: the same loss with 1/k of the activations
        seed=0,
        precision="float32",  # or "bfloat16": compute only; params, losses, teachers are float32
    )
    config.data = dict(
        source="digits",  # digits, npz, packed_jpeg, image_folder, array_record, tfds:<name>
        path="",
        size=0,  # storage size in pixels; 0 is as stored
        channels=0,
        frames=0,  # of a clip, or slices of a volume; 0 is as stored, or the source's own number
        train_split="",  # "": the usual names, train and test or val
        test_split="",
        ranges=(),  # ((first, last), ...): train on these stored positions only; () is all
        labels=dict(per_class=0, fraction=0.0, seed=0),  # train on a subset: jaxssl.data.labelled
        noise=dict(rate=0.0, kind="symmetric", seed=0),  # train on wrong labels; or "pairs"
        tasks=dict(count=0, steps=0, replay=0.0),  # classes one after another: jaxssl.data.tasks
        mixture=(),  # of source="mixture", ({"weight": 3.0, **data}, ...): jaxssl.data.mixture
        part="",  # a table of an earlier stage: train on its samples only, e.g. those selected
        join=(),  # tables of earlier stages, whose columns batches have as "<table>.<column>"
        cache="memory",  # decoded images are kept, or "none"
        on_bad_record="error",  # that cannot be decoded: ends the run; or "skip": takes another
        mean=(0.5,),  # per channel, of images in [0, 1]
        std=(0.5,),
    )
    config.streams = dict()  # sources side by side in a batch: jaxssl.data.streams
    config.encoder = dict(name="")
    config.student = dict()  # heads by name; "projector" reads "pooled", "predictor" "projection"
    config.teachers = dict()
    config.losses = dict()
    config.views = dict()
    config.masks = dict()  # what is hidden of the student's views: jaxssl.masks
    config.targets = dict()  # what is read off the clean views, as "input/...": jaxssl.targets
    config.method_options = dict()  # what only one family reads
    config.optimizer = dict(optim.DEFAULTS)  # its fields: jaxssl.optim
    config.evals = dict(
        every_steps=0,  # 0: only at the end
        encoder="",  # which of the method's encoders; "" is the first
        output="pooled",
        size=0,  # pixels of the evaluation view; 0 is the storage size
        batch_size=256,
        bank=0,  # training samples used, 0 is all
        test=0,
        calibration_batches=20,  # batches that settle the random init's batch statistics
        **{name: protocol.resolve(name, {}) for name in ("knn", "linear", "fewshot", "pretext")},
    )
    config.alarms = dict(alarms.DEFAULTS)  # its fields: jaxssl.watch.alarms
    config.nonfinite = dict(nonfinite.DEFAULTS)  # its fields: jaxssl.watch.nonfinite
    config.checkpoint = dict(
        every_steps=0,  # 0: only at the end and when stopped
        keep=2,
        on_failure="stop",  # of a save, as on a full disk; or "warn": go on without
        strict=False,  # True: a damaged checkpoint ends the run; else an older one is gone on from
    )
    config.mesh = dict(
        data=-1,  # devices per axis; -1 is all that are left
        fsdp=1,
        model=1,
        rules=((".*", "fsdp"),),  # (regex over state paths, "replicate" | "fsdp" | axes)
        min_shard_elements=16384,  # smaller leaves are replicated
    )
    config.report = dict(every_steps=10, samples=512)
    config.weights = dict()  # name="FILE" of other libraries, to start from: jaxssl.run.stages
    config.stages = ()  # e.g. ({"name": "first", "train.steps": 10}, ...): jaxssl.run.stages
    return config.lock()
