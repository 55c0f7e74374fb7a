"""Nothing that is written in a plot is cut off or lies over something else, however long."""

import itertools

import pytest

from llm_scale.report import plots
from llm_scale.report import write as report
from llm_scale.report.groups import Replicates, gathered
from tests.llm_scale.commands import call
from tests.llm_scale.report.test_report import make_run, runs  # noqa: F401

backend = pytest.importorskip("matplotlib.backends.backend_agg")
LONG = "smoothed_js(eps=0.1), " + ", ".join(f"a_rather_long_setting_{i}=0.12345" for i in range(9))


def boxes(figure):
    """Where texts lie, in pixels: titles, labels of axes and the legend as a whole."""
    canvas = backend.FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [t for ax in figure.axes for t in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    parts = [t for t in texts if t.get_text()] + list(figure.legends)
    return [part.get_window_extent(renderer) for part in parts], figure.bbox


def overlap(a, b):
    return a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1


@pytest.fixture
def groups(runs, tmp_path):  # noqa: F811
    sft, spin = gathered([runs])
    return [
        Replicates("A", sft.runs, LONG),
        Replicates("B", spin.runs, LONG.replace("0.1,", "0.2,")),
        Replicates(
            "a name of a user's that is longer than a panel is wide " * 2, spin.runs, "spin"
        ),
    ]


@pytest.mark.parametrize("name", ["rounds", "link", "training"])
def test_texts_are_within_the_figure_and_apart(groups, name):
    figure = getattr(plots, name)(groups)
    found, whole = boxes(figure)
    assert len(found) > 3
    for box in found:
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert whole.y0 <= box.y0
        assert box.y1 <= whole.y1
    for a, b in itertools.combinations(found, 2):
        assert not overlap(a, b)
    panels = [ax.get_window_extent() for ax in figure.axes]
    assert min(p.height for p in panels) > 0.4 * plots.PANEL[1] * figure.dpi, "room is left"
    for panel, box in itertools.product(panels, found):
        assert not overlap(panel, box)


def test_the_legend_says_seeds_and_what_bars_are(groups):
    first, _, third = (
        t.get_text().replace("\n", " ") for t in plots.rounds(groups).legends[0].get_texts()
    )
    assert first == f"A: {LONG} (1 seed, no interval)"
    assert third.endswith("(3 seeds, bars 95 %)")
    assert plots.training(groups).legends[0].get_texts()[0].get_text().endswith("(first seed)")


def test_axes_have_units_and_many_groups_different_looks(groups):
    labels = {ax.get_ylabel() for ax in plots.rounds(groups).axes}
    assert labels == {"KL(p‖π), nats", "NLL of the expert, nats", "slope of rewards on R(u)"}
    assert len(set(plots._styles(groups * 8))) == 24


def test_the_command_takes_labels_and_shows_samples(tmp_path):
    run = make_run(tmp_path / "a")
    (run / "samples").mkdir()
    (run / "samples" / "round-002.jsonl").write_text(
        '{"prompt": "a|b", "expert": "<b>", "before": "x\\ny", "after": "' + "z" * 999 + '"}\n'
    )
    out = tmp_path / "out"
    said = call("report", "--label", f"ours={run}", "--out", out).stdout.split()
    assert {path.rpartition("/")[2] for path in said} >= {"report.md", "rounds.png", "rounds.pdf"}
    text = (out / "report.md").read_text()
    assert text.startswith(
        "# Runs\n\n## What happened\n\n**Did anything diverge?**\n\n- The run finished"
    )
    cells = rf"| ours | a\|b | &lt;b&gt; | x ⏎ y | {'z' * report.LETTERS}… |"
    assert cells in text.split("## Samples of the last round")[1]
    assert "[![rounds](rounds.png)](rounds.pdf)" in text
    for wrong in ("ours", "=x", "ours="):
        assert "needed is NAME=RUN" in call("report", "--label", wrong, "--out", out, code=2).output
