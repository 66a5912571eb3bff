"""A network of point clouds: neighbourhoods of a few points, then what they say together."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.losses.points import farthest_points, knn_groups


class PointNet(nn.Module):
    """[B, P, 3] -> {"pooled": [B, 2 D], "tokens": [B, G, D]}; pooled is the mean and the maximum.

    G centres, the farthest points from point 0 on; of each its K nearest points, seen from it, pass
    dense layers and their maximum is taken; with the centre beside it passes further layers. Qi,
    Yi, Su, Guibas, 2017, "PointNet++", arXiv 1706.02413, with one level of groups.
    """

    groups: int
    neighbors: int
    local_widths: tuple[int, ...]
    widths: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        keep: jax.Array | None = None,
        capture: tuple[str, ...] = (),
    ) -> dict[str, jax.Array]:
        """See the class; there is nothing to capture, and no drop path."""
        if x.ndim != 3 or x.shape[1] < max(self.groups, self.neighbors):
            least = max(self.groups, self.neighbors)
            found = f"points of shape {x.shape}"
            raise ConfigError(f"encoder: found {found}, expected [B, P, 3] with P >= {least}")
        if keep is not None or capture:
            raise ConfigError("encoder: 'pointnet' has no drop path and captures nothing")
        chosen = farthest_points(x, k=self.groups)
        centers = jax.vmap(lambda cloud, i: cloud[i])(x, chosen)
        near, _ = knn_groups(x, centers, k=self.neighbors)
        # In units of the widest neighbourhood of the cloud.
        reach = jnp.sqrt(jnp.square(near).sum(-1).max((-2, -1)))[:, None, None, None]
        near = near / jnp.maximum(reach, 1e-6)
        y = self._layers(near.astype(self.dtype), self.local_widths, train, "local").max(2)
        y = jnp.concatenate([y, centers.astype(self.dtype)], -1)
        y = self._layers(y, self.widths, train, "joined")
        pooled = jnp.concatenate([y.mean(1, dtype=jnp.float32), y.max(1)], -1)
        return {"pooled": pooled.astype(self.dtype), "tokens": y}

    def _layers(self, x: jax.Array, widths: tuple[int, ...], train: bool, name: str) -> jax.Array:
        for i, width in enumerate(widths):
            x = nn.Dense(width, use_bias=False, dtype=self.dtype, name=f"{name}{i}")(x)
            norm = nn.BatchNorm(not train, momentum=0.9, dtype=self.dtype, name=f"{name}_norm{i}")
            x = nn.relu(norm(x))
        return x


def build(
    *,
    groups: int = 32,
    neighbors: int = 16,
    local_widths: tuple[int, ...] = (32, 64),
    widths: tuple[int, ...] = (128, 128),
    dtype: Any = jnp.float32,
) -> PointNet:
    """A PointNet of one level of neighbourhoods.

    Args:
      groups: G, how many centres.
      neighbors: K, points of a neighbourhood.
      local_widths: of the layers on its points.
      widths: of those on what comes of it; twice the last is the width of the pooled output.
      dtype: what it computes in; parameters are float32.

    >>> net, x = build(groups=4, neighbors=3), jnp.zeros((2, 10, 3))
    >>> out, _ = net.init_with_output(jax.random.key(0), x, train=False)
    >>> out["pooled"].shape, out["tokens"].shape
    ((2, 256), (2, 4, 128))
    """
    for field, value in (("groups", (groups,)), ("neighbors", (neighbors,))):
        check_positive(field, value)
    check_positive("local_widths", local_widths)
    check_positive("widths", widths)
    return PointNet(groups, neighbors, tuple(local_widths), tuple(widths), dtype)
