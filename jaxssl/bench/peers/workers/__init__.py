"""What runs in a peer's interpreter, without jaxssl or JAX: `python -m workers NAME`.

Started in the folder above by `jaxssl.bench.peers.process`. A module of this package offers
`make(description, **options) -> step` with

- `step.parameters`: network -> how many numbers it learns,
- `step.facts`: what the numbers depend on, for the report,
- `step.run(k) -> (seconds, loss)`: k training steps on batches that lie in memory,
- `step.peak_bytes`, where the device tells: the most that they took of its memory.
"""


class Unsupported(Exception):
    """What a config asks for and the peer does not offer: a documented skip."""
