"""A run's encoder, or its features, as one file for other programs.

    python -m jaxssl.commands.export --workdir=DIR --format=safetensors|stablehlo|npz --output=FILE
                            [--checkpoint=STEP] [--stage=NAME] [--encoder=NAME] [--features=NAME]
                            [--batch=N] [--limit=N] [--config.data.path=DIR ...]

- safetensors: the encoder's params and batch statistics under timm's names (`jaxssl.weights` says
  how to make the model); its metadata hold the config of the encoder, the step, and the size, mean
  and standard deviation of the images.
- stablehlo: `jaxssl.load_encoder`'s function with its params inside, for images as the run's data
  has them and any number of them (or --batch of them), on CPUs, CUDA GPUs and TPUs. Read it with
  `jax.export.deserialize(bytes).call(images)`.
- npz: train_x, train_y, train_index, test_x, test_y, test_index: the features [N, D], labels (-1
  for none) and places of the run's samples, or of --limit of each, chosen at random.
"""

import json
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxssl import data, encoders, modalities, pretrained, weights
from jaxssl.config import command_line as cli
from jaxssl.config.errors import ConfigError, near
from jaxssl.evals.features import extract, to_host
from jaxssl.run import runs
from jaxssl.run.files import replacing
from jaxssl.run.runs import Run

USAGE = (
    "python -m jaxssl.commands.export --workdir=DIR --format=safetensors|stablehlo|npz "
    "--output=FILE [--checkpoint=STEP] [--stage=NAME] [--encoder=NAME] "
    "[--features=NAME] [--batch=N] [--limit=N]"
)
PLATFORMS = ("cpu", "cuda", "tpu")


def safetensors(run: Run, path: pathlib.Path, *, encoder: str = "") -> None:
    """Writes the encoder under timm's names.

    Args:
      run: from `jaxssl.run.runs.load`.
      path: of the file; ".npz" holds the same arrays, without metadata.
      encoder: "student" or a teacher; "" is the run's `evals.encoder`.

    Raises:
      ConfigError: an encoder that timm does not have, or a path of another suffix.
    """
    config, name = run.program.config, pretrained.encoder_name(run, encoder)
    module = encoders.build(config.encoder.to_dict(), dtype=jnp.float32)
    net = ({"student": run.state.params} | pretrained.seen(run)).get(name, {})
    if "encoder" not in net:
        raise ConfigError(
            f"encoder: {name!r} is of a network of its own; expected config.encoder's"
        )
    variables = {"params": net["encoder"]}
    stats = run.state.extra.get("batch_stats", {}).get(name, {})
    if "encoder" in stats:
        variables["batch_stats"] = stats["encoder"]
    arrays = weights.to_state_dict(module, jax.tree.map(to_host, variables))
    shape = modalities.evaluated(config, run.program.source.fields)[1].shape
    size = config.evals.size or (shape[-2] if len(shape) > 1 else shape[0])
    facts = {"step": int(run.state.step), "encoder": config.encoder.to_dict(), "size": size}
    facts |= {"mean": config.data.mean, "std": config.data.std, "name": name}
    weights.write(path, arrays, {k: json.dumps(v) for k, v in facts.items()})


def stablehlo(
    run: Run, path: pathlib.Path, *, encoder: str = "", output: str = "", batch: int = 0
) -> None:
    """Writes images -> features as serialised StableHLO, params included.

    Args:
      run: from `jaxssl.run.runs.load`.
      path: of the file.
      encoder, output: as of `jaxssl.load_encoder`.
      batch: B; 0 leaves it open.

    Raises:
      ConfigError: no such encoder or output.
    """
    encode, params = pretrained.of_run(run, output, encoder)
    size = batch or jax.export.symbolic_shape("B")[0]
    field = modalities.evaluated(run.program.config, run.program.source.fields)[1]
    example = jax.ShapeDtypeStruct((size, *field.shape), field.dtype)
    make = jax.export.export(jax.jit(lambda x: encode(params, x)), platforms=PLATFORMS)
    content = make(example).serialize()
    with replacing(path) as beside:
        beside.write_bytes(content)


def npz(
    run: Run, path: pathlib.Path, *, encoder: str = "", output: str = "", limit: int = 0
) -> None:
    """Writes the features of the run's train and test samples, with their labels.

    Args:
      run: from `jaxssl.run.runs.load`.
      path: of the file.
      encoder, output: as of `jaxssl.load_encoder`; every output is flattened to [N, D].
      limit: how many of either, chosen by `evals.features.subset`; 0 is all.

    Raises:
      ConfigError: no such encoder or output, or no test samples.
    """
    encode, params = pretrained.of_run(run, output, encoder)
    mesh, config = run.program.mesh, run.program.config
    sources = {"train": run.program.source, "test": data.load(config.data, "test")}
    of, _ = modalities.evaluated(config, run.program.source.fields)
    arrays: dict[str, np.ndarray] = {}
    for split, source in sources.items():
        with jax.set_mesh(mesh):
            found = extract(
                lambda rows: jax.vmap(jnp.ravel)(encode(params, rows[of])),
                source,
                batch_size=config.evals.batch_size,
                mesh=mesh,
                limit=limit,
            )
        names = {"x": found.x, "y": found.y, "index": found.index}
        arrays |= {f"{split}_{name}": array for name, array in names.items()}
    weights.write(path, arrays)


FORMATS: dict[str, tuple[Callable[..., None], dict[str, str]]] = {
    "safetensors": (safetensors, {"encoder": "encoder"}),
    "stablehlo": (stablehlo, {"encoder": "encoder", "features": "output", "batch": "batch"}),
    "npz": (npz, {"encoder": "encoder", "features": "output", "limit": "limit"}),
}
"""format -> (what writes it, {flag that it takes: argument})."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input."""
    try:
        parser = cli.Parser(prog="jaxssl.commands.export", usage=USAGE)
        for flag in ("workdir", "format", "output"):
            parser.add_argument(f"--{flag}", required=True)
        parser.add_argument("--checkpoint", type=int)
        parser.add_argument("--stage", default="")
        parser.add_argument("--encoder", default="")
        parser.add_argument("--features", default="")
        parser.add_argument("--batch", type=int, default=0)
        parser.add_argument("--limit", type=int, default=0)
        flags, overrides = parser.parse(argv)
        if flags.format not in FORMATS:
            raise ConfigError(f"--format={flags.format}: unknown{near(flags.format, FORMATS)}")
        write, takes = FORMATS[flags.format]
        for flag in ("features", "batch", "limit"):
            value = getattr(flags, flag)
            if value and flag not in takes:
                raise ConfigError(f"--{flag}={value}: --format={flags.format} takes no --{flag}")
        if min(flags.batch, flags.limit) < 0:
            raise ConfigError(f"--batch={flags.batch} --limit={flags.limit}: expected 0 or more")
        suffix = pathlib.Path(flags.output).suffix
        if flags.format != "stablehlo" and suffix != f".{flags.format}":
            raise ConfigError(f"--output={flags.output}: expected a name that ends .{flags.format}")
        run = runs.load(
            flags.workdir, checkpoint=flags.checkpoint, stage=flags.stage, overrides=overrides
        )
        options = {argument: getattr(flags, flag) for flag, argument in takes.items()}
        write(run, pathlib.Path(flags.output), **options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{flags.output}: step {int(run.state.step)} of {run.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
