import io
import json
import re
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import experiments
from jaxssl import losses
from jaxssl.bench import __main__ as bench
from jaxssl.bench import against
from jaxssl.bench.peers import environment, install, interpreter
from jaxssl.bench.peers.describe import describe
from jaxssl.bench.peers.process import Peer, Skipped
from jaxssl.config.errors import ConfigError
from jaxssl.modalities.image import geometry
from jaxssl.program import Program

CONFIG = f"--config={experiments.FOLDER / 'lejepa.py'}:digits"
TINY = [
    "--config.encoder.widths=(8,)",
    "--config.encoder.strides=(1,)",
    "--config.student.projector.widths=(8, 4)",
    "--config.losses.sigreg.num_slices=8",
    "--config.train.global_batch=32",
]
VIT = dict(name="vit", size="Ti", patch=4, image_size=16)
RESNET = dict(name="resnet", depth=18, stem="cifar")

FAKE = """
import json, sys
print("a library says something", file=sys.stderr)
for line in sys.stdin:
    request = json.loads(line)
    if "make" in request:
        reply = {"parameters": {"encoder": request["make"]["size"]}, "facts": {"name": sys.argv[1]}}
        reply["seconds"] = 0.5
    else:
        reply = {"seconds": request["run"] / 4, "cpu_seconds": request["run"] / 2, "loss": 1.5}
    print(json.dumps(reply), flush=True)
"""


def peer(tmp_path, text):
    script = tmp_path / "fake.py"
    script.write_text(text)
    return Peer("fake", sys.executable, (str(script),))


def described(name, encoder=None):
    """The program of a small run, with another encoder where one is given, and its description."""
    config = experiments.load(name, "digits", "--config.train.global_batch=32")
    with config.unlocked():
        config.encoder = ConfigDict(encoder or config.encoder)
    made = Program(config)
    return made, json.loads(json.dumps(describe(config, made.info, "batches.npy")))


def test_a_peer_is_made_and_asked_for_rounds(tmp_path):
    with peer(tmp_path, FAKE) as found:
        found.make({"size": 7})
        assert (found.parameters, found.facts) == ({"encoder": 7}, {"name": "fake"})
        assert [found.run(4), found.run(8)] == [1.0, 2.0]
        assert (found.cpu_seconds, found.loss) == ([2.0, 4.0], 1.5)
    assert found._process.returncode == 0


@pytest.mark.parametrize(
    "text, message",
    [
        ("import sys; sys.exit('out of memory')", "peer fake: out of memory"),
        ("print('hello')", "peer fake: found 'hello"),
        ('print(\'{"error": "ValueError: bad shape"}\')', "peer fake: ValueError: bad shape"),
    ],
)
def test_a_peer_that_fails_is_one_line(tmp_path, text, message):
    with peer(tmp_path, text) as found, pytest.raises(ConfigError) as error:
        found.make({})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_a_peer_does_not_offer_is_no_error(tmp_path):
    text = 'print(\'{"unsupported": "no elastic"}\')'
    with peer(tmp_path, text) as found, pytest.raises(Skipped, match="no elastic"):
        found.make({})


def test_a_peer_that_is_not_installed_is_skipped_with_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "results.json"
    assert bench.main([CONFIG, "--against=lightly", f"--json={path}"]) == 0
    skipped = json.loads(path.read_text())["skipped"]
    assert skipped == {"lightly": "not installed; python -m jaxssl.bench.peers.install lightly"}
    assert "not installed" in capsys.readouterr().out


def test_a_peer_that_fails_leaves_the_others(tmp_path, capsys, monkeypatch):
    works = FAKE.replace('request["make"]["size"]', "7")
    why = "RuntimeError: no kernel (x.py:3)"
    fails = works.replace('{"seconds"', f'{{"error": "{why}", "seconds"')
    for name, text in (("torch", fails), ("stable_pretraining", works)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(against, "EQUAL", ())
    monkeypatch.setattr(
        against, "Peer", lambda name, where: Peer(name, where, (str(tmp_path / f"{name}.py"),))
    )
    path = tmp_path / "results.json"
    flags = [f"--peer-python={sys.executable}", f"--json={path}", "--steps=2", "--repeats=1"]
    assert bench.main([CONFIG, *TINY, "--against=torch,stable_pretraining", *flags]) == 0
    results = json.loads(path.read_text())
    assert results["skipped"] == {"torch": f"peer torch: {why}"}
    assert results["against"]["stable_pretraining steps/s"]["median"] == 4.0
    assert "RuntimeError" in capsys.readouterr().out


def test_an_error_of_a_peer_says_where_it_came_from(monkeypatch):
    from jaxssl.bench.peers.process import FOLDER

    monkeypatch.syspath_prepend(str(FOLDER))
    from workers import __main__

    try:
        try:
            assert not CONFIG
        except AssertionError as error:
            raise RuntimeError("") from error
    except RuntimeError as error:
        line = __main__.told(error)
    assert re.fullmatch(r"RuntimeError \(test_bench_peers\.py:\d+\)", line)


def test_the_environments_of_peers(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environment("torch_compile") == environment("torch") != environment("lightly")
    assert interpreter("torch").is_relative_to(tmp_path)
    assert install.main(["torc"]) == 2
    assert "did you mean 'torch'" in capsys.readouterr().err
    assert not install.ready("torch")
    environment("torch").mkdir(parents=True)
    (environment("torch") / install.DONE).touch()
    assert install.main(["torch"]) == 0
    assert "already" in capsys.readouterr().out


def test_a_description_has_every_default_and_no_schedule():
    _, found = described("byol")
    assert found["encoder"]["norm"] == "batch" and found["heads"]["projector"]["last_bias"] is True
    assert list(found["heads"]) == ["projector", "predictor"]
    assert 0.99 < found["teachers"]["ema"]["decay"] < 1
    assert found["teachers"]["ema"]["follows"] == ["encoder", "projector"]
    assert 0 < found["optimizer"]["learning_rate"] < 2e-3
    affine = found["views"]["global"]["transforms"]["affine"]
    assert affine["rotation"] == [-12.0, 12.0] and affine["fill"] == "zero"
    assert found["losses"]["prediction"]["pairs"] == "cross"
    _, found = described("lejepa", VIT)
    assert (found["encoder"]["width"], found["encoder"]["heads"]) == (192, 3)


@pytest.mark.parametrize(
    "name, encoder",
    [
        ("lejepa", None),
        ("lejepa", RESNET),
        ("lejepa", RESNET | dict(depth=50, stem="imagenet")),
        ("simclr", VIT),
        ("lejepa", VIT | dict(depth=2, pool="cls_mean", posemb="sincos2d", qkv_bias=False)),
        ("byol", None),
        ("dino", None),
        ("mae", None),
        ("vicreg", None),
    ],
)
def test_networks_in_pytorch_have_as_many_parameters(name, encoder):
    pytest.importorskip("torch", reason="the peer's networks need PyTorch")
    from jaxssl.bench.peers.workers import torch_networks

    made, found = described(name, encoder)
    nets = torch_networks.build(found)
    theirs = {part: sum(p.numel() for p in net.parameters()) for part, net in nets.items()}
    assert theirs == against.parameters(made)


def test_networks_of_other_sizes_are_refused():
    against.check_equal("torch", {"encoder": 3}, {"encoder": 3, "predictor": 1})
    with pytest.raises(ConfigError, match="encoder has 4 parameters, ours 3"):
        against.check_equal("torch", {"encoder": 3}, {"encoder": 4})


@pytest.mark.parametrize(
    "name, shapes, fields",
    [
        ("lejepa_prediction", [(3, 8, 5)], {"num_global": 2}),
        ("nt_xent", [(8, 5), (8, 5)], {"temperature": 0.3}),
        ("byol", [(8, 5), (8, 5)], {}),
        ("dino", [(3, 8, 5), (2, 8, 5)], {"center": np.linspace(0, 1, 5, dtype=np.float32)}),
        ("mae", [(4, 6, 5), (4, 6, 5)], {"mask": np.tile(np.float32([1, 0, 1, 0, 0, 1]), (4, 1))}),
        ("vicreg", [(8, 5), (8, 5)], {}),
        ("barlow_twins", [(8, 5), (8, 5)], {"off_diagonal_weight": 0.1}),
        ("sigreg", [(8, 5), (5, 6)], {}),
    ],
)
def test_losses_in_pytorch_are_ours(name, shapes, fields):
    torch = pytest.importorskip("torch", reason="the peer's losses need PyTorch")
    from jaxssl.bench.peers.workers import torch_losses

    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    tensors = [torch.from_numpy(x) for x in arrays]
    given = {k: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for k, x in fields.items()}
    theirs = getattr(torch_losses, name)(*tensors, **given)
    ours = getattr(losses, name)(*map(jnp.asarray, arrays), **fields)
    np.testing.assert_allclose(float(theirs), float(ours), rtol=1e-5)


def test_crops_in_pytorch_weigh_the_pixels_as_ours():
    torch = pytest.importorskip("torch", reason="the peer's views need PyTorch")
    from jaxssl.bench.peers.workers import torch_views

    start, extent = torch.tensor([0.0, 3.0]), torch.tensor([16.0, 7.0])
    theirs = torch_views.resize_weights(start, extent, 16, 8)
    for n in range(2):
        ours = geometry.resize_weights(float(start[n]), float(extent[n]), 16, 8)
        np.testing.assert_allclose(theirs[n], ours, atol=1e-6)


def test_views_in_pytorch_have_the_shape_and_differ():
    torch = pytest.importorskip("torch", reason="the peer's views need PyTorch")
    from jaxssl.bench.peers.workers import Unsupported, torch_views

    _, found = described("lejepa")
    group = found["views"]["global"]
    images = torch.randint(0, 256, (5, 1, 16, 16), dtype=torch.uint8)
    views = torch_views.make(images, group, torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    assert views.shape == (4 * 5, 1, 16, 16) and views.min() >= 0 and views.max() <= 1
    assert not torch.equal(views[:5], views[5:10])
    group["transforms"]["pad_crop"] = {"padding": 4}
    with pytest.raises(Unsupported, match=r"views.global.pad_crop"):
        torch_views.check(found["views"])


def test_a_worker_answers_requests_and_says_what_it_cannot_do(monkeypatch):
    pytest.importorskip("torch", reason="the peer's step needs PyTorch")
    from jaxssl.bench.peers.process import FOLDER

    monkeypatch.syspath_prepend(str(FOLDER))
    from workers import Unsupported, __main__

    _, found = described("lejepa")
    found["losses"]["sigreg"]["fn"] = "koleo"
    with pytest.raises(Unsupported, match=r"losses\.sigreg\.fn: the peer has no 'koleo'"):
        __main__.serve("torch", [json.dumps({"make": found})], io.StringIO())


@pytest.mark.parametrize("name", ["lejepa", "byol", "dino", "mae"])
def test_a_step_in_pytorch_learns_from_the_batches(name, tmp_path):
    pytest.importorskip("torch", reason="the peer's step needs PyTorch")
    from jaxssl.bench.peers.workers import torch_step

    _, found = described(name)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 16, 16, 1), dtype=np.uint8)
    np.save(tmp_path / "batches.npy", images)
    found |= {"data": str(tmp_path / "batches.npy"), "threads": 1}
    step = torch_step.make(found)
    before = [p.detach().clone() for p in step.nets.parameters()]
    teachers = [p.clone() for t in step.teachers.values() for p in t.parameters()]
    seconds, loss = step.run(3)
    assert seconds > 0 and np.isfinite(loss)
    assert all((p != old).any() for p, old in zip(step.nets.parameters(), before))
    moved = [p for t in step.teachers.values() for p in t.parameters()]
    assert all((p != old).any() for p, old in zip(moved, teachers))


def test_our_step_against_pytorchs(tmp_path, capsys):
    pytest.importorskip("torch", reason="the peer is PyTorch")
    path = tmp_path / "results.json"
    flags = ["--against=torch", f"--peer-python={sys.executable}", f"--json={path}"]
    assert bench.main([CONFIG, *TINY, *flags, "--steps=3", "--repeats=2"]) == 0
    results = json.loads(path.read_text())
    ratio = results["against"]["jaxssl over torch, in steps/s"]
    assert ratio["repeats"] == 2 and ratio["median"] > 0
    for field in ("jaxssl steps/s", "torch steps/s", "torch CPU seconds a step"):
        assert results["against"][field]["median"] > 0
    assert results["peers"]["torch"]["parameters"].keys() == {"encoder", "projector"}
    assert results["skipped"] == {}
    assert "jaxssl over torch" in capsys.readouterr().out
