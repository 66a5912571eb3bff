"""The order of the samples: a keyed permutation for every epoch, computed where it is read.

A Feistel network is a bijection of the numbers of b bits whatever its round function is (Luby and
Rackoff, How to construct pseudorandom permutations, 1988). Walking along its cycle until the value
is below N restricts it to [0, N) (Black and Rogaway, Ciphers with arbitrary finite domains, 2002).
It takes no memory for any N, and is written here in fixed integer arithmetic, so that a run can be
resumed under other versions of the libraries. Batches of 128 to 4,096 ids cost a sixth to a
hundredth of what `grain`'s shuffle takes, which goes sample by sample through Python. Few samples
are sorted by a hash instead.
"""

import hashlib

import numpy as np

ROUNDS = 8
SORTED = 4096  # up to here sorting all keys is as fast, and a network on few bits would mix badly


def permute(positions: np.ndarray, num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """Sample ids at the given positions [B] of the epoch's order of `num_samples` samples.

    >>> sorted(permute(np.arange(5), 5, seed=0, epoch=3).tolist())
    [0, 1, 2, 3, 4]
    """
    digest = hashlib.blake2b(f"order {seed} {epoch}".encode(), digest_size=8 * ROUNDS).digest()
    keys = np.frombuffer(digest, "<u8").astype(np.uint64)
    if num_samples <= SORTED:
        ranks = mix(np.arange(num_samples, dtype=np.uint64) + keys[0])
        return np.argsort(ranks, kind="stable")[positions]
    bits = (num_samples - 1).bit_length()
    ids = _feistel(np.asarray(positions, np.uint64), bits, keys)
    while len(out := np.flatnonzero(ids >= num_samples)):
        ids[out] = _feistel(ids[out], bits, keys)
    return ids.astype(np.int64)


def fold_seed(seed: int, name: str) -> int:
    """The seed of an order that has a name, of those of one seed.

    >>> fold_seed(0, "stream labelled") == fold_seed(0, "stream unlabelled")
    False
    """
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class Order:
    """The endless plan of a run as a sequence: element s is the sample ids [B] of step s."""

    def __init__(self, num_samples: int, global_batch: int, seed: int):
        self.num_samples, self.global_batch, self.seed = num_samples, global_batch, seed

    def __len__(self) -> int:
        return 2**62

    def stand_in(self, step: int, place: int, turn: int) -> int | None:
        """The sample that takes `place` in the batch of `step` if `turn` others before it cannot.

        It has the same place in a later batch of the epoch, or in the earliest after the latest:
        samples at two places of a batch never have a stand-in in common. None after the last.
        """
        epoch, first = divmod(int(step), self.num_samples // self.global_batch)
        column = np.arange(place, self.num_samples, self.global_batch)
        if turn >= len(column):
            return None
        position = column[[(first + turn) % len(column)]]
        return int(permute(position, self.num_samples, self.seed, epoch)[0])

    def __getitem__(self, step: int) -> np.ndarray:
        epoch, place = divmod(int(step), self.num_samples // self.global_batch)
        positions = place * self.global_batch + np.arange(self.global_batch)
        return permute(positions, self.num_samples, self.seed, epoch)


def _feistel(values: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    low = np.uint64(bits // 2)
    mask = np.uint64((1 << (bits // 2)) - 1), np.uint64((1 << (bits - bits // 2)) - 1)
    right, left = values & mask[0], values >> low
    for left_key, right_key in keys.reshape(-1, 2):
        left = left ^ (mix(right + left_key) & mask[1])
        right = right ^ (mix(left + right_key) & mask[0])
    return left << low | right


def mix(z: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64, uint64 to uint64: every input bit reaches every output bit.

    Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014. Products wrap
    around, as they must.

    >>> mix(np.array([1], np.uint64)).tolist()
    [6238072747940578789]
    """
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
