"""State dicts in files."""

import argparse

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxssl.config.errors import ConfigError
from jaxssl.run.files import replacing
from jaxssl.weights import files

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b.c": np.ones(2, np.float32)}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_written_and_read(tmp_path, suffix):
    path = tmp_path / "deep" / f"w{suffix}"
    files.write(path, ARRAYS, {"step": "3"} if suffix == ".safetensors" else None)
    found = files.read(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_half_precision_is_read(tmp_path):
    from safetensors.flax import save_file

    save_file({"a": jnp.full(2, 0.5, jnp.bfloat16)}, tmp_path / "w.safetensors")
    found = files.read(tmp_path / "w.safetensors")["a"]
    assert found.dtype == ml_dtypes.bfloat16 and found[0] == 0.5


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.npz"
    files.write(path, ARRAYS)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), replacing(path) as beside:
        beside.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_names_of_wrappers_are_taken_off(tmp_path):
    files.write(tmp_path / "w.npz", {"module.backbone.norm.bias": np.ones(1), "module.head.x": 1})
    assert files.read(tmp_path / "w.npz").keys() == {"norm.bias", "head.x"}


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"found '\.txt', expected \.safetensors or \.npz"):
        files.read(tmp_path / "w.txt")
    with pytest.raises(ConfigError, match=r"w\.npz: no such file"):
        files.read(tmp_path / "w.npz")
    (tmp_path / "w.safetensors").write_bytes(b"not one")
    with pytest.raises(ConfigError, match="no safetensors file"):
        files.read(tmp_path / "w.safetensors")
    files.write(tmp_path / "w.npz", ARRAYS)
    with pytest.raises(ConfigError, match="found part 'teacher'"):
        files.read(tmp_path / "w.npz", "teacher")
    with pytest.raises(ConfigError, match=r"expected \.safetensors or \.npz"):
        files.write(tmp_path / "w.bin", ARRAYS)


def test_pytorchs_files(tmp_path):
    torch = pytest.importorskip("torch", reason="reading .pth files needs PyTorch")
    tensors = {"backbone.a": torch.ones(2, dtype=torch.bfloat16), "head.w": torch.zeros(3)}
    path = tmp_path / "w.pth"
    torch.save({"teacher": tensors, "student": {"a": torch.zeros(2)}, "epoch": 3}, path)
    found = files.read(path, "teacher")
    assert found.keys() == {"a", "head.w"} and found["a"].tolist() == [1, 1]
    with pytest.raises(ConfigError, match="found part '', expected another; known: student, teach"):
        files.read(path)
    with pytest.raises(ConfigError, match="did you mean 'teacher'"):
        files.read(path, "teachr")
    torch.save({"model": {"a": torch.zeros(2)}, "epoch": 3}, path)
    assert files.read(path).keys() == {"a"}
    torch.save(tensors, path)
    assert files.read(path).keys() == {"a", "head.w"}
    # What would run code on loading is refused.
    torch.save({"model": {}, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(ConfigError, match="holds more than arrays"):
        files.read(path)
