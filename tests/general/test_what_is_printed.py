"""Tables, sentences and charts of results that were made up by hand: each number stands where it belongs.

Every number of a result is another one, so that a number, an error or a name in the place of another is seen.
"""

import html
import inspect
import pkgutil
import re
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffrep import cli, measures
from diffrep.commands import console
from diffrep.measures import disentangle, distance, probe, profile, readout, semi
from diffrep.methods.catalog import METHODS
from diffrep.pages import sections, side_by_side, svg, tiles
from diffrep.runs.summary import Numbers

PROFILED = {
    "integral_nats": 4.0,
    "integral_se": 0.5,
    "start_nats": 1.5,
    "start_se": 0.25,
    "rate_nats": 8.0,
    "used_share": 0.375,
    "used_share_se": 0.0625,
    "peak_log_snr": -1.5,
    "log_snr_ends": [-5.0, 13.5],
    "active_units": 3,
    "effective_rank": 2.5,
    "excess_nats": 1.25,
    "excess_se": 0.125,
    "mutual_information": {"lower": 2.0, "lower_se": 0.1, "upper": 2.75, "upper_se": 0.2},
    "aggregate_gap": {"lower": 5.0, "lower_se": 0.3, "upper": 6.0, "upper_se": 0.4},
    "examples": 1000,
    "levels": 12,
    "protocol": "profile-3",
}
GRID = [("a", 2.0, 0.25), ("a", 8.0, 0.5), ("b", 2.0, 0.75), ("b", 8.0, 0.875)]
TIMES = {
    "single": [
        {"t": 0.25, "linear": {"accuracy": 0.5, "se": 0.1}, "mlp": {"accuracy": 0.6, "se": 0.2}},
        {"t": 0.75, "linear": {"accuracy": 0.7, "se": 0.3}, "mlp": {"accuracy": 0.8, "se": 0.4}},
    ],
    "combined": [
        {"k": 2, "way": "mean", "reader": "linear", "accuracy": 0.1, "se": 0.01},
        {"k": 2, "way": "mean", "reader": "mlp", "accuracy": 0.2, "se": 0.02},
        {"k": 2, "way": "attention", "reader": "mlp", "accuracy": 0.3, "se": 0.03},
    ],
}
DISENTANGLED = {
    "dci": {"disentanglement": 0.1, "completeness": 0.2, "informativeness": 0.3, "protocol": "dci-1"},
    "mig": {"score": 0.4, "protocol": "mig-1"},
    "sap": {"score": 0.5, "protocol": "sap-1"},
    "tad": {"score": 0.6, "captured": 2, "attributes": 7, "protocol": "tad-1"},
    "alignment": 0.7,
    "uniformity": -0.8,
    "sphere_protocol": "sphere-1",
    "factors": ["hue", "size"],
    "left_out": {"name": "has one value"},
    "examples": 90,
    "dim": 5,
}
FAR = {
    "frechet": 1.5,
    "frechet_floor": 0.5,
    "kid": 0.25,
    "kid_se": 0.05,
    "kid_floor": 0.125,
    "kid_se_floor": 0.01,
    "precision": 0.75,
    "precision_floor": 0.875,
    "recall": 0.625,
    "recall_floor": 0.9,
}
WAYS = {name: {"accuracy": k / 8, "se": k / 100} for k, name in enumerate(("random", "frozen", "finetuned", "pseudo"))}
PROBED = {
    "examples": {"train": 3000, "valid": 200, "test": 100},
    "classes": 10,
    "most_frequent": 0.125,
    "scores": {"code": {"linear": {}, "few-1": {"draws": 20}}},
    "notes": ["A note."],
    "warning": "A warning.",
}
PLUS_MINUS, MINUS = "\N{PLUS-MINUS SIGN}", "\N{MINUS SIGN}"
PRINTED = {  # a function of diffrep.measures, what it is given, and what it makes of it
    profile.table: (
        PROFILED,
        [
            ("carried", "4.00 +- 0.50 nats between log-SNR -5.0 and 13.5 and, 1.50 +- 0.25 of them, by its start"),
            ("rate", "8.00 nats, 37.5% +- 6.2% of it used"),
            ("numbers", "active in the code: 3; effective rank 2.5, which is no proof of a good code"),
            ("beyond I(x; z)", "1.25 +- 0.12 nats: worse without its code"),
            ("I(x; z)", "at least 2.00 +- 0.10, at most 2.75 +- 0.20 nats"),
            ("KL(q(z) || p(z))", "at least 5.00 +- 0.30, at most 6.00 +- 0.40 nats"),
            ("measured on", "1,000 test examples, 12 noise levels each, EMA weights, profile-3"),
        ],
    ),
    profile.sentences: (
        PROFILED | {"mutual_information": {"upper": 2.5, "upper_se": 0.2}},
        [
            f"The code carries 4.0 {PLUS_MINUS} 0.5 nats, most at log-SNR {MINUS}1.5 and 1.5 of them where its chain"
            " starts: it uses 38% of the 8.0 that it costs.",
            "The code can hold at most 2.5 nats. The other 1.2 are no information: without its code, this decoder"
            " denoises worse than it could.",
        ],
    ),
    readout.readout_table: (
        {"grid": [{"layer": a, "log_snr": at, "valid_accuracy": score} for a, at, score in GRID]},
        [["layer", "log-SNR 2.0", "log-SNR 8.0"], ["a", "0.250", "0.500"], ["b", "0.750", "0.875"]],
    ),
    readout.single_table: (
        TIMES,
        [
            ["t", "linear", "mlp"],
            ["0.250", "0.5000 +- 0.1000", "0.6000 +- 0.2000"],
            ["0.750", "0.7000 +- 0.3000", "0.8000 +- 0.4000"],
        ],
    ),
    readout.combined_table: (
        TIMES,
        [
            ["times", "mean, linear", "mean, mlp", "attention"],
            ["2", "0.1000 +- 0.0100", "0.2000 +- 0.0200", "0.3000 +- 0.0300"],
        ],
    ),
    disentangle.table: (
        DISENTANGLED,
        [
            ("DCI", "disentanglement 0.100  completeness 0.200  informativeness 0.300   (dci-1)"),
            ("MIG", "0.400   (mig-1)"),
            ("SAP", "0.500   (sap-1)"),
            ("TAD", "0.600, 2 of 7 attributes (tad-1)"),
            ("on the sphere", "alignment of a class 0.700  uniformity -0.800   (sphere-1)"),
            ("factors", "hue, size"),
            ("without name", "it has one value"),
            ("measured on", "90 test examples, codes of 5 numbers"),
        ],
    ),
    distance.table: (
        FAR,
        [
            ("Frechet distance", "1.5", "0.5"),
            ("kernel distance", "0.25 +- 0.05", "0.125 +- 0.01"),
            ("precision", "0.750", "0.875"),
            ("recall", "0.625", "0.900"),
        ],
    ),
    semi.table: (
        WAYS,
        [
            ["encoder", "accuracy on test"],
            [semi.KINDS["frozen"], "0.1250 +- 0.0100"],
            [semi.KINDS["random"], "0.0000 +- 0.0000"],
            [semi.KINDS["finetuned"], "0.2500 +- 0.0200"],
            [semi.KINDS["pseudo"], "0.3750 +- 0.0300"],
        ],
    ),
    probe.sentences: (
        PROBED,
        [
            "100 test, 200 validation, 3,000 training examples with a label, 10 classes; the most frequent one would"
            " score 0.125.",
            "+- is half of Wilson's interval at one standard error; of a few labels, over 20 draws of them too.",
            "A note.",
            "A warning.",
        ],
    ),
}


def test_every_table_of_a_measure_has_a_case():
    modules = [import_module(f"diffrep.measures.{info.name}") for info in pkgutil.iter_modules(measures.__path__)]
    functions = {value for m in modules for _, value in inspect.getmembers(m, inspect.isfunction)}
    ours = {one for one in functions if one.__module__.startswith("diffrep.measures.")}
    assert {one for one in ours if one.__name__.endswith(("table", "sentences"))} == {*PRINTED}


@pytest.mark.parametrize("function", PRINTED, ids=lambda one: f"{one.__module__.split('.')[-1]}.{one.__name__}")
def test_a_table_by_hand(function):
    given, made = PRINTED[function]
    assert function(given) == made


def test_two_errors_decide_whether_a_code_is_used():
    """At a rate of 8 nats, with an error of one half: 0.99 nats may be none, 1.01 are some; so is 3.1 beyond 2.0."""
    bounds = {"upper": 2.0, "upper_se": 0.05}
    for nats, used, beyond in ((0.99, False, False), (1.01, True, False), (3.09, True, False), (3.11, True, True)):
        said = profile.sentences(PROFILED | {"integral_nats": nats, "mutual_information": bounds})
        assert ("does not use" not in said[0], len(said) == 2) == (used, beyond)
    without = profile.sentences(PROFILED | {"integral_nats": 0.25, "mutual_information": None})
    assert without == [
        f"The decoder does not use the code: it carries 0.25 {PLUS_MINUS} 0.50 nats of the 8.0 that it costs."
    ]


LINEAR = {"accuracy": 0.9, "se": 0.01, "balanced": 0.85, "auroc": 0.95, "examples": 100, "protocol": "l-1"}
MEASURED = {
    "bound": {
        "unit": "bits/dim",
        "bits_per_dim": 1.25,
        "bits_per_dim_se": 0.5,
        "diffusion": 0.75,
        "prior": 0.125,
        "reconstruction": 0.0625,
        "rate": 0.3125,
        "sample_se": 0.4,
        "monte_carlo_se": 0.3,
    },
    "active_units": 3,
    "rate_nats": 7.5,
    "bound_in_steps": {"bits_per_dim": 2.5, "bits_per_dim_se": 0.6, "diffusion": 1.75, "steps": 40, "protocol": "s-1"},
    "flow": {"bits_per_dim": 3.5, "bits_per_dim_se": 0.7, "examples": 8, "steps": 50, "dequantisation": "uniform"},
    "refined": {
        "bits_per_dim": 1.125,
        "bits_per_dim_se": 0.45,
        "rate_nats": 6.5,
        "gap_nats": 0.55,
        "gap_nats_se": 0.05,
        "examples": 20,
        "protocol": "r-1",
    },
    "probes": {
        "linear_protocol": LINEAR,
        "knn_protocol": {"accuracy": 0.8, "se": 0.02, "examples": 60, "protocol": "k-1"},
    },
    "examples": 100,
    "levels": 4,
    "protocol": "bound-3",
}  # fmt: skip


def test_the_bound_and_its_terms_by_hand(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(console, "out", type(console.out)(width=300))
    console.show_metrics(MEASURED)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "bits/dim 1.2500 +- 0.5000",
        "of which diffusion 0.7500 prior 0.1250",
        "reconstruction 0.0625 rate 0.3125",
        "+- is 0.4000 of the split as a sample, 0.3000 of random noise levels and codes",
        "code rate 7.50 nats, 3 active units",
        "in 40 steps 2.5000 +- 0.6000 diffusion 1.7500 (s-1)",
        "probability flow 3.5000 +- 0.7000 bits/dim on 8 examples, 50 steps, dequantisation: uniform",
        "refined codes 1.1250 +- 0.4500 bits/dim, rate 6.50 nats; the encoder loses at least 0.55 +- 0.05 nats on 20"
        " examples (r-1)",
        "linear probe 0.9000 +- 0.0100, balanced 0.8500, AUROC 0.9500 (l-1)",
        "knn probe 0.8000 +- 0.0200, on 60 examples with a label (k-1)",
        "measured on 100 test examples, 4 noise levels each, EMA weights, bound-3",
    ]


def test_methods_are_listed_with_what_they_have(capsys, monkeypatch):
    """Of each: does it have a code, and a bound; some have one of them alone."""
    monkeypatch.setattr(cli, "out", type(console.out)(width=500))
    cli.methods()
    lines = [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[0] for line in lines] == [*METHODS]
    stated = [tuple(word == "yes" for word in line if word in ("yes", "no")) for line in lines]
    assert stated == [(method.has_code, method.has_bound) for method in METHODS.values()]
    assert {(True, False), (False, True)} <= {*stated}


def said(markup: object) -> tuple[list[str], list[str]]:
    """The descriptions of the charts, and the titles of what is drawn in them."""
    text = html.unescape(str(markup))
    return re.findall(r'aria-label="([^"]*)"', text), re.findall(r"<title>([^<]*)</title>", text)


ONE = Numbers(bits_per_dim=1.5, bits_per_dim_se=0.25, rate_nats=8.0, probe_linear=0.75, probe_linear_se=0.05)
TWO = Numbers(bits_per_dim=2.5, bits_per_dim_se=0.125, rate_nats=4.0, probe_knn=0.5, probe_knn_se=0.1)


def test_runs_side_by_side_by_hand():
    groups = {"a": [ONE], "b": [TWO]}
    labels, titles = said(side_by_side._cost(groups).body)
    assert labels == ["bits/dim: a 1.500, b 2.500", "bits/dim against rate: a 8.0 nats 1.500, b 4.0 nats 2.500"]
    assert titles == ["a, bits/dim: 1.5000 ± 0.2500", "b, bits/dim: 2.5000 ± 0.1250", "a", "b"]
    labels, titles = said(side_by_side._read(groups).body)
    assert labels == ["Accuracy: a: linear 0.750; b: nearest neighbours 0.500"]
    assert titles == ["a, linear: 0.7500 ± 0.0500", "b, nearest neighbours: 0.5000 ± 0.1000"]


def a_run(**files) -> SimpleNamespace:
    """What a section asks of a run."""
    card = SimpleNamespace(label_names=["0", "1"])
    health = SimpleNamespace(verdict="alive", sentences=[])
    return SimpleNamespace(**{"metrics": {}, "probes": {}, "profile": {}, "card": card, "health": health} | files)


def test_probes_of_a_report_by_hand():
    measured = {"linear": 0.75, "linear_se": 0.05, "knn": 0.5, "knn_se": 0.1}
    labels, titles = said(sections._own_probes(a_run(metrics={"probes": measured})))
    assert labels == ["Accuracy of probes on the code: linear 0.750, nearest neighbours 0.500"]
    assert titles == ["linear, code: 0.7500 ± 0.0500", "nearest neighbours, code: 0.5000 ± 0.1000"]
    scores = {
        "code": {"linear": {"accuracy": 0.75, "se": 0.05}, "few-10": {"accuracy": 0.5, "se": 0.1}},
        "pixels": {"linear": {"accuracy": 0.25, "se": 0.2}},
    }
    section = sections.probes(a_run(probes={"scores": scores, "classes": 2, "examples": {"test": 40}}))
    labels, titles = said(section.body)
    assert labels[0] == (
        "accuracy on the test split: linear: code 0.750, raw values 0.250; 10 labels a class: code 0.500"
    )
    assert titles == [
        "linear, code: 0.7500 ± 0.0500",
        "linear, raw values: 0.2500 ± 0.2000",
        "10 labels a class, code: 0.5000 ± 0.1000",
    ]
    assert "on 40 test examples" in section.lead
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", str(section.body))
    assert cells == [
        *("model", "code", "raw values"),
        *("linear", "0.750 ± 0.050", "0.250 ± 0.200"),
        *("10 labels a class", "0.500 ± 0.100", "-"),
    ]


def test_the_bound_of_a_report_by_hand():
    section = sections.bound(a_run(metrics=MEASURED))
    labels, titles = said(section.body)
    terms = {
        "diffusion": (0.75, 60),
        "prior": (0.125, 10),
        "reconstruction": (0.0625, 5),
        "rate of the code": (0.3125, 25),
    }
    assert labels == [
        "Bar of the bound, 1.2500 ± 0.5000 bits/dim: " + ", ".join(f"{n} {v:.4f}" for n, (v, _) in terms.items())
    ]
    assert titles == [f"{name} {value:.4f} bits/dim ({share}%)" for name, (value, share) in terms.items()]
    assert section.lead.startswith("-log p(x) is at most 1.2500 ± 0.5000 bits/dim on 100 test examples.")


def test_the_profile_of_a_report_by_hand():
    drawn = {"log_snr": [-5.0, 0.0, 5.0], "nats_per_log_snr": [0.0, 1.0, 0.5], "se": [0.1, 0.1, 0.1]}
    section = sections.information(a_run(profile=PROFILED | drawn | {"mutual_information": None}), None)
    assert said(section.body)[0] == ["Information profile: 4.0 nats in all, most at log-SNR -1.5"]
    assert section.lead.startswith(
        f"The code lowers the loss of the decoder by 4.0 ± 0.5 nats an example, most at log-SNR {MINUS}1.5."
    )
    assert section.lead.endswith("Its rate is 8.0 nats.")


def test_a_line_that_rises_is_drawn_rising():
    """From the lowest value on the left, at the bottom, to the highest on the right, at the top: as a small picture
    of a map, and as a panel."""
    x = torch.linspace(-1, 1, 9).reshape(1, 1, 9)
    cells = tiles._inked(x, (-1.0, 1.0), 9, 9)[0, :, :, 3]
    assert [int(np.flatnonzero(cells[:, k])[-1]) for k in range(9)] == [*range(8, -1, -1)]
    panel = str(tiles._drawn(x, 1, "a line", (-1.0, 1.0)))
    points = [tuple(map(float, pair.split(","))) for pair in re.search(r'points="([^"]*)"', panel)[1].split()]
    ups = np.array([up for _, up in points])
    assert ups[0] == 44.0 and ups[-1] == 0.0 and np.allclose(np.diff(ups), -5.5, atol=0.06)


def test_places_on_a_chart():
    """x to the right, y up: the corners of the frame, and the middle."""
    axes = svg.Axes((10.0, 30.0), (-1.0, 3.0))
    left, right, top, bottom = axes.left, svg.WIDTH - axes.right, axes.top, axes.height - axes.bottom
    assert axes.at(10.0, -1.0) == (left, bottom) and axes.at(30.0, 3.0) == (right, top)
    assert axes.at(20.0, 1.0) == ((left + right) / 2, (top + bottom) / 2)
