"""The page: what it says, and that it stands alone."""

import html
import io
import re
import xml.etree.ElementTree as xml

import numpy as np
import pytest
from PIL import Image

from jaxssl.config.errors import ConfigError
from jaxssl.evals import Features
from jaxssl.evals.probes import knn
from jaxssl.report import controls, curves, features, page, plots, report, writers
from jaxssl.report.samples import neighbours

CONFIG = {
    "method": "some_family",
    "data": {"source": "digits"},
    "encoder": {"name": "convnet", "widths": [32, 64]},
    "teachers": {"slow": {"rule": "ema", "decay": ["cosine", 0.99, 1.0]}},
    "losses": {"prediction": {"weight": 0.98}, "spread": {"weight": 0.02}},
    "train": {"steps": 40, "note": "a < b & c"},
}
EVALS = {
    "knn/accuracy": {"trained": 0.987, "random_init": 0.948, "raw_input": 0.975},
    "linear/loss": {"trained": 0.3, "random_init": 0.5, "raw_input": 0.2, "better": "lower"},
    "rank": {"trained": 43.8, "random_init": 24.1, "raw_input": None, "better": None},
}


def samples():
    """Two labels whose features are apart, but for bank sample 0, which carries the wrong label."""
    rng = np.random.default_rng(0)
    labels, bank_labels = np.arange(6) % 2, np.arange(20) % 2
    side = np.array([[1.0, 0.1], [0.1, 1.0]])
    bank_features = side[bank_labels] + 0.02 * rng.normal(size=(20, 2))
    bank_labels[0] = 1
    return report.Samples(
        images=rng.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8),
        labels=labels,
        features=side[labels],
        bank_images=rng.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8),
        bank_labels=bank_labels,
        bank_features=bank_features,
        label_names=("cat", "<dog>"),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with writers.MetricsWriter(folder) as writer:
        for step in range(1, 41):
            writer.write(step, {"train/loss": 1 / step, "optimizer/learning_rate": 1e-3})
        writer.write(20, {"eval/knn/accuracy": 0.951})
        writer.write(40, {"eval/knn/accuracy": 0.987, "eval/rank": 43.8})
    summary = writers.write_summary(
        folder, status="finished", step=40, seconds=93.2, examples_per_second=1498.2, evals=EVALS
    )
    writers.write_json(folder / "config.json", CONFIG)
    metrics = writers.read_metrics(folder / "metrics.jsonl")
    report.write(folder, config=CONFIG, metrics=metrics, summary=summary, samples=samples())
    return folder


def shown(folder):
    """The page's words, without tags and style."""
    text = (folder / "report.html").read_text()
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", text)))


@pytest.mark.smoke
def test_page_says_what_happened(run):
    text = shown(run)
    for words in (
        "some_family Better than every control on 1 of 2 evaluations; "
        "not on linear/loss (raw input 0.2).",
        "status finished data digits encoder convnet steps 40 of 40 training time 1 min 33 s "
        "examples / s 1,498",
        "knn/accuracy 0.9870 0.9480 +0.0390 0.9750 +0.0120",
        "linear/loss (less is better) 0.3000 0.5000 -0.2000 0.2000 +0.1000",
        "rank 43.8 24.1 +19.7 none",
        "teachers slow rule = ema, decay = (cosine, 0.99, 1.0)",
        "losses prediction weight = 0.98 spread weight = 0.02",
        "'note': 'a < b & c'",
    ):
        assert words in text
    for section in ["Controls", "Curves", "Nearest neighbours", "Features", "Confusions", "Parts"]:
        assert f"<h2>{section}</h2>" in (run / "report.html").read_text()
    for curve in ("loss", "learning_rate", "knn/accuracy"):
        assert f" {curve} " in text
    curves = text[text.index(" Curves ") : text.index(" Nearest neighbours ")]
    # Evaluated twice, with its controls as lines; and once, which is no curve.
    assert " knn/accuracy " in curves and " random init " in curves
    assert "above has the numbers: rank." in curves and curves.count(" rank") == 1


def test_page_stands_alone(run):
    source = (run / "report.html").read_text()
    markup = re.sub(r"base64,[^\"]*", "", source)
    assert not re.search(r"https?:|file:|//|<script|<link|@import|url\((?!#)", markup)
    addresses = re.findall(r'(?:src|href)="([^"]*)"', source)
    assert addresses
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in addresses)
    assert "prefers-color-scheme: dark" in source and plots.INK not in source


def test_wrong_neighbours_are_marked(run):
    source = (run / "report.html").read_text()
    found, _ = neighbours(samples().features, samples().bank_features, features._NEIGHBOURS)
    same = samples().bank_labels[found] == samples().labels[:, None]
    assert (~same).any()
    assert f"{same.sum()} of {same.size} share the label" in source
    assert len(re.findall(r'<td><div class="bad">', source)) == (~same).sum()
    assert "&lt;dog&gt;" in source and "<dog>" not in source


def test_command_rebuilds_the_same_page(run, capsys):
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert report.main([f"--workdir={run}"]) == 0
    assert (run / "report.html").read_text() == before
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"


def test_missing_and_broken_files_are_one_line(tmp_path, capsys):
    for prepare, expected in (
        (lambda: None, "config.json: no such file"),
        (lambda: writers.write_json(tmp_path / "config.json", {}), "summary.json: no such file"),
        (lambda: (tmp_path / "samples.npz").write_bytes(b"x"), "samples.npz: found "),
    ):
        prepare()
        with pytest.raises(ConfigError, match=re.escape(expected)):
            report.rebuild(tmp_path)
        assert report.main([f"--workdir={tmp_path}"]) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1
    with pytest.raises(ConfigError, match="--workdir: found no folder"):
        report.rebuild(tmp_path / "absent")


def test_a_failed_run_without_evals_or_samples_has_a_page(tmp_path):
    report.write(
        tmp_path / "new",
        config={"method": "m"},
        metrics=[{"step": 1, "train/loss": float("nan")}],
        summary={"status": "failed", "step": 1, "seconds": 2.0, "reason": "nan in <loss>"},
    )
    text = shown(tmp_path / "new")
    assert "cannot say what was learned" in text and "failed: nan in <loss>" in text
    assert "Nearest neighbours" not in text


def test_alarms_are_one_line_for_each_kind_and_metric(tmp_path):
    alarm = dict(step=200, kind="collapse", metric="rank", value=1.5, threshold=3.0, baseline=24.0)
    other = dict(step=90, kind="loss <jump>", metric="loss", value=float("inf"))
    summary = {"status": "finished", "alarms": [alarm, alarm | {"step": 400}, other]}
    report.write(tmp_path, config={"method": "m"}, metrics=[], summary=summary)
    text = shown(tmp_path)
    assert "collapse: rank was 1.5 at step 200 (threshold 3, baseline 24)" in text
    assert text.count("Alarm ") == 2 and "; 2 times, last at step 400" in text
    assert "loss <jump>: loss was inf at step 90 Controls" in text


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"trained": 0.9, "random_init": 0.8, "raw_input": 0.9}, "bad"),  # a draw is no win
        ({"trained": 0.9, "random_init": 0.8, "raw_input": None}, "good"),
        ({"trained": 0.1, "random_init": 0.8, "better": "lower"}, "good"),
        ({"trained": float("nan"), "random_init": 0.8}, "bad"),
        ({"trained": 0.9, "random_init": float("nan")}, "mixed"),  # nothing to compare with
        ({"trained": 0.9, "random_init": 0.8, "better": None}, "mixed"),
    ],
)
def test_verdict(entry, kind):
    assert controls.verdict({"an_eval": entry})[1] == kind


def test_an_interval_is_a_part_of_its_evaluation():
    evals = {
        "fewshot/5_shot": {"trained": 0.7, "random_init": 0.6},
        "fewshot/5_shot_interval": {"trained": 0.0125, "random_init": 0.02, "better": None},
    }
    found = html.unescape("".join(controls.section(evals)))
    assert "0.7000 ±\xa00.0125" in found and "0.6000 ±\xa00.0200" in found
    assert "interval" not in found
    rows = [{"step": n, **{f"eval/{name}": 0.5 for name in evals}} for n in (1, 2)]
    charts = "".join(curves.section(rows, evals))
    assert "5_shot" in charts and "interval" not in charts


def texts(svg):
    return [e.text for e in xml.fromstring(svg).iter() if e.tag.endswith("}text")]


def test_curve_is_svg_with_controls_and_log_axis():
    steps = list(range(1000))
    svg = plots.curve(steps, np.linspace(1, 99, 1000), title="loss")
    assert "loss" in texts(svg) and svg == plots.curve(
        steps, np.linspace(1, 99, 1000), title="loss"
    )
    # The same numbers around 100 do not span a factor of 30, and have another axis.
    assert texts(svg) != texts(plots.curve(steps, np.linspace(101, 199, 1000), title="loss"))
    evals = plots.curve(
        [0, 1], [0.5, float("nan")], title="e", controls={"raw_input": 0.7, "random_init": np.nan}
    )
    assert "raw input" in texts(evals) and "random init" not in texts(evals)
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        plots.curve([1, 2], [1.0], title="loss")


def test_scatter_and_spectrum_are_svg():
    points = np.random.default_rng(0).normal(size=(30, 2))
    few = plots.scatter(points, np.arange(30) % 3, ["a", "b"], title="pca")
    assert {"pca", "a", "b", "2"} <= set(texts(few))
    many = plots.scatter(points, np.arange(30), [], title="pca")
    assert set(texts(many)) == {"pca"}
    assert "x (effective rank 4.0)" in texts(plots.spectrum({"x": np.ones(4)}))


@pytest.mark.parametrize("shape", [(40, 5), (5, 40)])
def test_principal_agrees_with_svd(shape):
    x = np.random.default_rng(0).normal(size=shape) * np.linspace(3, 1, shape[1])
    points, values = plots.principal(x)
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    np.testing.assert_allclose(values, s**2 / (len(x) - 1), atol=1e-9)
    np.testing.assert_allclose((points**2).sum(0), s[:2] ** 2)
    assert np.isfinite(plots.principal(np.full((4, 3), np.nan))[0]).all()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGB")])
def test_thumbnail_is_png(channels, mode):
    image = np.full((200, 100, channels), 7, np.uint8)
    picture = Image.open(io.BytesIO(plots.thumbnail(image)))
    assert (picture.format, picture.mode, picture.size) == ("PNG", mode, (48, 96))
    assert np.unique(np.asarray(picture)).tolist() == [7]
    with pytest.raises(ValueError, match="float32"):
        plots.thumbnail(image.astype(np.float32))


def test_nearest_is_by_angle_and_survives_broken_features():
    bank = np.array([[10.0, 0.0], [0.0, 0.1], [1.0, 1.0]])
    found, cosines = neighbours(np.array([[0.0, 5.0]]), bank, 2)
    assert found.tolist() == [[1, 2]]
    np.testing.assert_allclose(cosines, [[1, np.sqrt(0.5)]], rtol=1e-6)
    assert neighbours(np.full((1, 2), np.nan), bank, 3)[0].shape == (1, 3)


def test_drawing_takes_the_pages_colour():
    inline = page.drawing(plots.curve([1, 2], [1.0, 2.0], title="loss"))
    assert inline.startswith("<figure><svg") and "currentColor" in inline and "xmlns" not in inline


def test_the_vote_is_that_of_the_evaluation():
    rng = np.random.default_rng(0)
    side, labels, bank_labels = rng.normal(size=(3, 5)), np.arange(48) % 3, np.arange(90) % 3
    shown = report.Samples(
        images=np.zeros((48, 2, 2, 1), np.uint8),
        labels=labels,
        features=(side[labels] + rng.normal(size=(48, 5))).astype(np.float32),
        bank_images=np.zeros((90, 2, 2, 1), np.uint8),
        bank_labels=bank_labels,
        bank_features=(side[bank_labels] + rng.normal(size=(90, 5))).astype(np.float32),
    )
    train = Features(shown.bank_features, bank_labels.astype(np.int32), np.arange(90))
    test = Features(shown.features, labels.astype(np.int32), np.arange(48))
    right = (features.votes(shown) == labels).mean()
    assert 0.4 < right < 1
    np.testing.assert_allclose(right, knn.evaluate(train, test, num_classes=3)["accuracy"])
    words = re.sub(r"<[^>]*>", " ", "".join(features.confusion(shown)))
    assert f"{round(right * 48)} are right" in words


def test_confusions_have_numbers_up_to_twenty_labels():
    few = plots.confusion(np.array([[3, 1], [0, 12]]), ["cat", "dog"], title="kNN")
    assert sorted(texts(few)) == sorted(
        ["kNN", "predicted", "true label", *2 * ["cat", "dog"], "3", "1", "12"]
    )
    many = plots.confusion(np.eye(21, dtype=int), [str(i) for i in range(21)], title="kNN")
    assert sorted(texts(many)) == ["kNN", "predicted", "true label"]


def test_neighbour_map_keeps_groups_apart_and_is_the_same_again():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x = 5 * np.eye(8)[labels] + rng.normal(size=(60, 8)) * 0.3
    points = plots.neighbour_map(x)
    assert (points == plots.neighbour_map(x)).all()
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(60)
    assert (labels[distances.argmin(1)] == labels).all()
    for collapsed in (np.ones((60, 8)), np.full((60, 8), np.nan), x[:3]):
        found = plots.neighbour_map(collapsed)
        assert found.shape == (len(collapsed), 2) and np.isfinite(found).all()


def test_spectrum_has_random_init_where_it_is_known(tmp_path):
    known = samples()._replace(random_features=np.random.default_rng(1).normal(size=(20, 2)))
    files = dict(config={"method": "m"}, metrics=[], summary={"status": "finished"})
    report.write(tmp_path, **files, samples=known)
    assert "random init (effective rank " in shown(tmp_path)
    writers.write_json(tmp_path / "config.json", files["config"])
    writers.write_json(tmp_path / "summary.json", files["summary"])
    (tmp_path / "metrics.jsonl").write_text("")
    page = (tmp_path / "report.html").read_text()
    assert report.rebuild(tmp_path).read_text() == page


def test_curves_of_several_runs_share_their_axes():
    runs = {"a run": ([1, 2], [1.0, float("nan")]), "other": (range(600), np.arange(600) + 1.0)}
    words = texts(plots.curves(runs, title="loss"))
    assert {"a run", "other", "loss", "step"} <= set(words)
