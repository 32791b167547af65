"""The sections of a run's report: each shows a measurement, or states the command for it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import cast

import numpy as np
from markupsafe import Markup

from diffrep.amounts import amount, item
from diffrep.measures.profile import sentences as profile_sentences
from diffrep.models.code_use import ACTIVE
from diffrep.pages import svg, tiles
from diffrep.pages.page import Section, code, definitions, details, figure, joined, rows, table
from diffrep.pages.run_files import RunFiles
from diffrep.pages.run_pictures import NEIGHBOURS, RunPictures

PACKAGES = ("diffrep", "torch", "numpy", "scikit-learn")
BESIDE = {"code": "code", "pixels": "raw values", "pca": "PCA", "random-encoder": "untrained encoder"}
PROBES = {"linear": "linear", "knn": "nearest neighbours", "svm": "SVM", "mlp": "MLP", "few": "few labels"}
TERMS = {"diffusion": "diffusion", "prior": "prior", "reconstruction": "reconstruction", "rate": "rate of the code"}
POINTS = 160  # points of a training curve


def what(run: RunFiles) -> Section:
    """The method, the data and the training."""
    card, (step, examples) = run.card, run.trained
    seconds, parameters = run.numbers.seconds, run.numbers.parameters
    trained = f"{amount(examples, 'example')} in {amount(step, 'step')}"
    pairs: list[tuple[str, object]] = [
        ("method", f"{run.settings.method}: {run.about}" if run.about else run.settings.method),
        ("paper", run.paper),
        ("data", f"{run.data}, {run.form}" + (f", {card.prepared}" if card.prepared else "")),
        ("examples", ", ".join(f"{count:,} {split}" for split, count in card.examples.items())),
        ("classes", _few(card.label_names) if card.label_names else "no labels"),
        ("training", trained + (f", {seconds:,.0f} s" if seconds else "")),
    ]
    if parameters:
        pairs.append(("parameters", f"{parameters:,}"))
    if card.skipped:
        pairs.append(("skipped", f"{amount(card.skipped, 'file')} could not be read"))
    return Section("What was trained", body=definitions([(n, v) for n, v in pairs if v]))


def bound(run: RunFiles) -> Section:
    """The terms of the bound as a bar."""
    title = "The bound on -log p(x)"
    if not run.metrics:
        return Section(title, "The bound is not measured.", command=run.command("evaluate"))
    measured = run.metrics.get("bound")
    if measured is None:
        losses = cast(Mapping[str, float | None], run.metrics.get("denoising") or {})
        named = [(n.replace("_", " "), f"{v:.4f} nats for each number") for n, v in losses.items() if v is not None]
        lead = f"There is no bound: {str(run.metrics.get('no_bound', '')).rstrip('.')}."
        if named:
            lead += " The denoising loss is not a bound, but it can be compared with and without the code."
        return Section(title, lead, definitions(named))
    unit = "bits/dim"
    values = cast(Mapping[str, float], measured)
    terms = {words: values[name] for name, words in TERMS.items() if values.get(name)}
    whole = f"{measured['bits_per_dim']:.4f} ± {measured['bits_per_dim_se']:.4f} {unit}"
    lead = (
        f"-log p(x) is at most {whole} on {amount(run.metrics['examples'], 'test example')}. Diffusion is the loss of"
        " removing noise, prior the information on the example in x_1, reconstruction the last step to the grey"
        " levels of the data" + (", and rate the nats of the code." if "rate of the code" in terms else ".")
    )
    if "density" in measured.get("unit", ""):
        lead += " The data are continuous, so this is the bound on a density, which may be negative."
    label = f"Bar of the bound, {whole}: " + ", ".join(f"{n} {v:.4f}" for n, v in terms.items())
    return Section(title, lead, figure(svg.stacked(terms, unit, label)))


def training(run: RunFiles) -> Section:
    """Training curves from the log."""
    title = "Training"
    if len(run.log) < 3:
        return Section(title, "The log has too few lines for a curve.")
    names = list(dict.fromkeys(name for line in run.log for name in line["terms"]))
    terms = {name: _curve(run.log, lambda line, n=name: line["terms"].get(n)) for name in names}
    terms = {name: points for name, points in terms.items() if len(points) > 2}
    if not terms:
        return Section(title, "The log has no terms that could be drawn.")
    drawn = [
        figure(
            svg.curves(terms, "examples seen", "nats an example", f"Training curves of {', '.join(terms)}"),
            "The terms of the training loss (weighted as in training, so their sum is not the bound).",
        )
    ]
    watched = {
        "rate of the code": _curve(run.log, lambda line: line["watch"].get("rate_nats")),
        "gap with the code of another example": _curve(run.log, lambda line: line["watch"].get("gap_nats")),
    }
    watched = {name: points for name, points in watched.items() if len(points) > 2}
    if watched:
        drawn.append(
            figure(
                svg.curves(watched, "examples seen", "nats", f"Curves of {' and '.join(watched)}", zero=True),
                "The rate of the code, and the rise of the loss with the code of another example.",
            )
        )
    return Section(title, " ".join(run.health.sentences), joined(*drawn))


def information(run: RunFiles, images: RunPictures | None) -> Section:
    """The information profile with denoisings."""
    title, profile = "Where the code helps", run.profile
    if run.health.verdict == "no code":
        return Section(title, "This method has no code.")
    if not profile:
        if not run.settings.code.drop:
            return Section(
                title, "The decoder was trained with code.drop=0, so it cannot be compared without its code."
            )
        lead = "The information profile, nats of the code at each noise level, is not measured."
        return Section(title, lead, command=run.command("profile"))
    label = (
        f"Information profile: {profile['integral_nats']:.1f} nats in all, most at log-SNR"
        f" {profile['peak_log_snr']:.1f}"
    )
    lead = (
        f"The code lowers the loss of the decoder by {profile['integral_nats']:.1f} ± {profile['integral_se']:.1f}"
        " nats an example, most at"
        f" log-SNR {svg.number(profile['peak_log_snr'], (0, 0.1))}. On the left is the outline of things, on the"
        " right their detail. The band is two standard errors to each side."
    )
    if profile.get("rate_nats"):
        lead += f" Its rate is {profile['rate_nats']:.1f} nats."
    lead = " ".join([lead, *profile_sentences(profile)[1:]])  # a warning, where there is one
    drawn = [figure(svg.profile_curve(profile["log_snr"], profile["nats_per_log_snr"], profile["se"], label))]
    if images is not None and images.denoised is not None:
        drawn.append(_denoised(images))
    return Section(title, lead, joined(*drawn))


def pictures(run: RunFiles, images: RunPictures | None, why: str) -> list[Section]:
    """Reconstructions, samples, interpolations and neighbours."""
    if images is None:
        return [Section("Pictures", why)]
    return [_reconstructions(images), _samples(images), _between(images), _neighbours(images)]


def code_map(run: RunFiles, images: RunPictures | None) -> Section:
    """The codes of test examples in two dimensions."""
    title = "Map of the codes"
    if images is None or images.map is None:
        return Section(title, "There are no codes to draw.")
    map_, names = images.map, run.card.label_names or []
    sprite, width, height = tiles.sprites(map_.x)
    hidden = Markup('<img id="sprite" src="{}" data-width="{}" data-height="{}" alt="" hidden>').format(
        tiles.uri(sprite), width, height
    )
    panes, chosen = [], []
    for i, (name, points) in enumerate(map_.views.items()):
        label = f"Map of {amount(len(points), 'code')} by {name}" + (", coloured by class" if names else "")
        drawn = svg.scatter(
            [(float(a), float(b)) for a, b in points], map_.labels.tolist(), map_.names, label, "sprite"
        )
        panes.append(Markup('<div class="pane pane-{}">{}</div>').format(i, figure(drawn, f"By {name}.")))
        chosen.append(
            Markup('<input type="radio" name="map" id="map-{0}"{1}><label for="map-{0}">{2}</label>').format(
                i, Markup(" checked") if i == len(map_.views) - 1 else "", name
            )
        )
    key = Markup("").join(
        Markup(
            '<li><svg viewBox="0 0 10 10" aria-hidden="true"><circle class="k{}" cx="5" cy="5" r="5"/></svg>{}</li>'
        ).format(k % svg.CLASSES, name)
        for k, name in enumerate(names[:20])
    )
    lead = (
        f"Each dot is the code of a test example ({len(map_.labels):,} of them). Point at one to see it, or go from one"
        " to the next with the arrow keys."
    )
    if len(names) > svg.CLASSES:
        lead += (
            f" There are {len(names)} classes and {svg.CLASSES} colours, so a colour stands for more than one class."
        )
    legend = Markup('<ul class="key" aria-label="Classes">{}</ul>').format(key) if names else Markup("")
    inside = joined(Markup('<div class="tabs">'), *chosen, *panes, Markup("</div>"), legend, hidden)
    return Section(title, lead, inside)


def probes(run: RunFiles) -> Section:
    """Probes on the code and on reference features."""
    title = "What simple models read from it"
    if run.health.verdict == "no code":
        return Section(title, "This method has no code; its layers can be probed.", command=run.command("readout"))
    if not run.card.label_names and not run.probes:
        return Section(title, "The data have no labels to predict.")
    if not run.probes:
        lead = "The code is not compared with raw values, PCA and an untrained encoder yet."
        return Section(title, lead, _own_probes(run), run.command("probe"))
    scores: dict[str, dict[str, tuple[float, float]]] = {}
    for kind, results in run.probes["scores"].items():
        for name, result in results.items():
            value = result.get("accuracy", result.get("r2"))
            if value is not None:
                scores.setdefault(_probe(name), {})[BESIDE.get(kind, kind)] = (value, result["se"])
    measure = "R² on the test split" if run.probes.get("classes") is None else "accuracy on the test split"
    label = f"{measure}: " + "; ".join(
        f"{name}: " + ", ".join(f"{kind} {value:.3f}" for kind, (value, _) in row.items())
        for name, row in scores.items()
    )
    count = run.probes["examples"]["test"]
    lead = (
        f"Each point is one simple model on one kind of features, with two standard errors to each side, on"
        f" {amount(count, 'test example')}. Where lines overlap, the difference is not significant."
    )
    chart = figure(svg.intervals(scores, measure, label))
    kinds = list(dict.fromkeys(kind for row in scores.values() for kind in row))
    lines = [[name, *(_pair(row.get(kind)) for kind in kinds)] for name, row in scores.items()]
    numbers = table(["model", *kinds], lines, f"{measure}, ± one standard error", [False, *[True] * len(kinds)])
    return Section(title, lead, joined(chart, details("The numbers", numbers)))


def units(run: RunFiles, images: RunPictures | None) -> Section:
    """The active numbers of the code."""
    title = "Which numbers are active"
    if images is None or images.variances is None:
        return Section(title, "There are no codes to count.")
    ordered = np.sort(images.variances)[::-1].tolist()
    active = [value > ACTIVE for value in ordered]
    lead = (
        f"Active numbers: {sum(active)} of {len(ordered)}. The variance of each over the test examples is above"
        f" {ACTIVE}. A number without variance holds no information."
    )
    label = f"Variance of each number of the code, {sum(active)} of {len(ordered)} active"
    return Section(title, lead, figure(svg.columns(ordered, active, "variance over examples", label)))


def again(run: RunFiles) -> Section:
    """Settings, versions, fingerprint and the commands that make it again."""
    card = run.card
    versions = ", ".join(f"{name} {installed}" for name in PACKAGES if (installed := _version(name)))
    pairs: list[tuple[str, object]] = [
        ("changed settings", ", ".join(run.changed) or "none: all are the defaults"),
        ("seed", run.settings.seed),
        ("data fingerprint", ", ".join(f"{split} {digits}" for split, digits in card.fingerprints.items())),
        ("written with", f"{versions}, Python {platform.python_version()}, {platform.machine()}"),
    ]
    lines = [[name, "none" if value is None else str(value), meaning] for name, value, meaning in run.every_setting()]
    every = table(["setting", "value", "meaning"], lines, "Every setting of this run")
    return Section(
        "Make it again",
        "These commands make this run, its numbers and this page. The fingerprint shows whether the data are the same.",
        joined(code(*run.commands()), definitions(pairs), details("All settings", every)),
    )


def _denoised(images: RunPictures) -> Markup:
    assert images.denoised is not None
    log_snr, x_t, without, given = images.denoised
    at = ", ".join(svg.number(v, (0, 0.1)) for v in log_snr.tolist())
    limits = tiles.limits_of(images.x)
    strips = []
    for e in range(x_t.shape[1]):
        named = {"noisy": x_t, "denoised without the code": without, "denoised with the code": given}
        strips += [
            (name, tiles.strip(x[:, e], f"Example {e + 1}, {name}, at log-SNR {at}", limits))
            for name, x in named.items()
        ]
    return figure(
        rows(strips), f"Two test examples at log-SNR {at}: the noisy example, and the estimates of the decoder."
    )


def _reconstructions(images: RunPictures) -> Section:
    title = "Reconstructions"
    if images.reconstructions is None:
        return Section(title, f"There are none: {_why(images, 'reconstructions')}")
    limits = tiles.limits_of(images.x)
    count = len(images.x)
    named: list[tuple[str, object]] = [("example", tiles.strip(images.x, amount(count, "test example"), limits))]
    for i, again in enumerate(images.reconstructions):
        words = "from its code" if i == 0 else "with other noise"
        named.append((words, tiles.strip(again, f"{amount(count, 'example')}, each decoded {words}", limits)))
    lead = "The code alone is decoded."
    if len(images.reconstructions) > 1:
        lead += " What stays the same with other noise comes from the code; what changes comes from the noise."
    return Section(title, lead, figure(rows(named)))


def _samples(images: RunPictures) -> Section:
    if images.samples is None:
        return Section("Samples", f"There are none: {_why(images, 'samples')}")
    lead = f"{amount(len(images.samples), 'new example')}, not selected: a code from the prior, then the decoder."
    limits = tiles.limits_of(images.x)
    return Section(
        "Samples", lead, figure(tiles.sheet(images.samples, 8, amount(len(images.samples), "new example"), limits))
    )


def _between(images: RunPictures) -> Section:
    title = "Interpolations"
    if not images.between:
        return Section(title, f"There are none: {_why(images, 'between')}")
    limits = tiles.limits_of(images.x)
    strips = [tiles.strip(row, "A test example, steps to another one, and that one", limits) for row in images.between]
    lead = "Codes on the straight line between the codes of two test examples, which stand at the ends."
    return Section(title, lead, figure(rows([(f"pair {i + 1}", strip) for i, strip in enumerate(strips)])))


def _neighbours(images: RunPictures) -> Section:
    title = "Nearest neighbours"
    if images.neighbours is None:
        return Section(title, "This method has no code to compare by.")
    limits = tiles.limits_of(images.x)
    count = len(images.x)
    named: list[tuple[str, object]] = [("example", tiles.strip(images.x, amount(count, "test example"), limits))]
    for k, near in enumerate(images.neighbours):
        called = "" if images.neighbour_labels is None else ": " + ", ".join(row[k] for row in images.neighbour_labels)
        words = "nearest" if k == 0 else f"{k + 1}."
        named.append((words, tiles.strip(near, f"Number {k + 1} of the nearest training examples{called}", limits)))
    lead = (
        f"Under each of {amount(count, 'test example')} stand the"
        f" {amount(min(NEIGHBOURS, len(images.neighbours)), 'training example')}"
        " whose codes make the smallest angle with its own."
    )
    return Section(title, lead, figure(rows(named)))


def _own_probes(run: RunFiles) -> Markup:
    probed = cast(Mapping[str, float], run.metrics.get("probes") or {})
    own = {PROBES[name]: {"code": (probed[name], probed[f"{name}_se"])} for name in ("linear", "knn") if name in probed}
    if not own:
        return Markup("")
    label = "Accuracy of probes on the code: " + ", ".join(f"{n} {row['code'][0]:.3f}" for n, row in own.items())
    return figure(svg.intervals(own, "accuracy on the test split", label))


def _curve(log: Sequence[Mapping], of) -> list[tuple[float, float]]:
    """At most POINTS means of neighbouring lines."""
    points = [(line["examples"], value) for line in log if (value := of(line)) is not None]
    size = max(1, -(-len(points) // POINTS))
    return [
        (sum(x for x, _ in chunk) / len(chunk), sum(y for _, y in chunk) / len(chunk))
        for chunk in (points[i : i + size] for i in range(0, len(points), size))
    ]


def _why(images: RunPictures, name: str) -> str:
    reason = images.why.get(name, "this method has no code")
    return f"{reason.rstrip('.')}."


def _probe(name: str) -> str:
    head, _, tail = name.partition("-")
    if head == "few" and tail.isdigit():
        return f"{amount(int(tail), 'label')} a class"
    return PROBES.get(name, name)


def _pair(score: tuple[float, float] | None) -> str:
    return "-" if score is None else f"{score[0]:.3f} ± {score[1]:.3f}"


def _few(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(map(item, names[:most]))
    return f"{len(names)}: {shown}" + (", …" if len(names) > most else "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
