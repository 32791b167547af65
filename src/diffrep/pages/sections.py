"""The sections of a run's report: each says what is seen, or offers the command that would measure it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from markupsafe import Markup

from diffrep.models.code_use import ACTIVE
from diffrep.pages import svg, tiles
from diffrep.pages.known import Known
from diffrep.pages.page import Section, code, details, facts, figure, joined, rows, table
from diffrep.pages.shown import NEIGHBOURS, Shown

PACKAGES = ("diffrep", "torch", "numpy", "scikit-learn")
BESIDE = {"code": "code", "pixels": "raw values", "pca": "PCA", "random-encoder": "untrained encoder"}
PROBES = {"linear": "linear", "knn": "nearest neighbours", "svm": "SVM", "mlp": "MLP", "few": "few labels"}
BOUGHT = {"diffusion": "diffusion", "prior": "prior", "reconstruction": "reconstruction", "rate": "rate of the code"}
POINTS = 160  # points of a training curve


def what(known: Known) -> Section:
    """What was trained on what."""
    card, (step, examples) = known.card, known.trained
    seconds, parameters = known.numbers.seconds, known.numbers.parameters
    pairs: list[tuple[str, object]] = [
        ("method", f"{known.settings.method}: {known.about}" if known.about else known.settings.method),
        ("paper", known.paper),
        ("data", f"{known.data}, {known.form}" + (f", {card.prepared}" if card.prepared else "")),
        ("examples", ", ".join(f"{count:,} {split}" for split, count in card.examples.items())),
        ("classes", _few(card.label_names) if card.label_names else "no labels"),
        ("training", f"{examples:,} examples in {step:,} steps" + (f", {seconds:,.0f} s" if seconds else "")),
    ]
    if parameters:
        pairs.append(("parameters", f"{parameters:,}"))
    if card.skipped:
        pairs.append(("skipped", f"{card.skipped} files could not be read"))
    return Section("What was trained", body=facts([(n, v) for n, v in pairs if v]))


def bound(known: Known) -> Section:
    """The bound's parts as a bar."""
    title = "What an example costs"
    if not known.metrics:
        return Section(title, "The bound, part by part, is not measured.", command=known.command("evaluate"))
    found = known.metrics.get("bound")
    if found is None:
        losses = known.metrics.get("denoising") or {}
        said = [(n.replace("_", " "), f"{v:.4f} nats for each number") for n, v in losses.items() if v is not None]
        lead = f"There is no bound: {str(known.metrics.get('no_bound', '')).rstrip('.')}."
        if said:
            lead += " What removing the noise costs is no bound, but it can be compared with and without the code."
        return Section(title, lead, facts(said))
    unit = "bits/dim"
    parts = {words: found[name] for name, words in BOUGHT.items() if found.get(name)}
    whole = f"{found['bits_per_dim']:.4f} ± {found['bits_per_dim_se']:.4f} {unit}"
    lead = (
        f"At most {whole} on {known.metrics['examples']:,} test examples. Diffusion is what removing the noise"
        " costs, prior what is left of the example in pure noise, reconstruction the last step to the data's own levels"
        + (", and rate what the code costs." if "rate of the code" in parts else ".")
    )
    if "density" in found.get("unit", ""):
        lead += " The data are continuous, so this is the bound on a density, which may be negative."
    label = f"Bar of the bound, {whole}: " + ", ".join(f"{n} {v:.4f}" for n, v in parts.items())
    return Section(title, lead, figure(svg.stacked(parts, unit, label)))


def training(known: Known) -> Section:
    """Training curves from the log."""
    title = "How training went"
    if len(known.log) < 3:
        return Section(title, "The log has too few lines for a curve.")
    names = list(dict.fromkeys(name for line in known.log for name in line["terms"]))
    terms = {name: _curve(known.log, lambda line, n=name: line["terms"].get(n)) for name in names}
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
        "rate of the code": _curve(known.log, lambda line: line["watch"].get("rate_nats")),
        "lost by another's code": _curve(known.log, lambda line: line["watch"].get("gap_nats")),
    }
    watched = {name: points for name, points in watched.items() if len(points) > 2}
    if watched:
        drawn.append(
            figure(
                svg.curves(watched, "examples seen", "nats", f"Curves of {' and '.join(watched)}", zero=True),
                "What the code holds, and what an example loses when the decoder is shown another example's code.",
            )
        )
    return Section(title, " ".join(known.health.sentences), joined(*drawn))


def information(known: Known, seen: Shown | None) -> Section:
    """The information profile with denoisings."""
    title, found = "Where the code helps", known.profile
    if known.health.verdict == "no code":
        return Section(title, "This method has no code.")
    if not found:
        if not known.settings.code.drop:
            return Section(
                title, "The decoder was trained with code.drop=0, so it cannot be compared without its code."
            )
        lead = "The nats that the code saves the decoder at each noise level are not measured."
        return Section(title, lead, command=known.command("profile"))
    label = (
        f"Information profile: {found['integral_nats']:.1f} nats in all, most at log-SNR {found['peak_log_snr']:.1f}"
    )
    lead = (
        f"The code saves the decoder {found['integral_nats']:.1f} ± {found['integral_se']:.1f} nats an example, most at"
        f" log-SNR {svg.number(found['peak_log_snr'], (0, 0.1))}. On the left is the outline of things, on the"
        " right their detail. The band is two standard errors to each side."
    )
    if found.get("rate_nats"):
        lead += f" It pays {found['rate_nats']:.1f} nats for that."
    drawn = [figure(svg.profile_curve(found["log_snr"], found["nats_per_log_snr"], found["se"], label))]
    if seen is not None and seen.denoised is not None:
        drawn.append(_denoised(seen))
    return Section(title, lead, joined(*drawn))


def pictures(known: Known, seen: Shown | None, why: str) -> list[Section]:
    """Reconstructions, samples, interpolations and neighbours."""
    if seen is None:
        return [Section("Pictures", why)]
    return [_reconstructions(seen), _samples(seen), _between(seen), _neighbours(seen)]


def code_map(known: Known, seen: Shown | None) -> Section:
    """The codes of test examples in two dimensions."""
    title = "Map of the codes"
    if seen is None or seen.map is None:
        return Section(title, "There are no codes to draw.")
    found, names = seen.map, known.card.label_names or []
    sprite, width, height = tiles.sprites(found.x)
    hidden = Markup('<img id="sprite" src="{}" data-width="{}" data-height="{}" alt="" hidden>').format(
        tiles.uri(sprite), width, height
    )
    panes, chosen = [], []
    for i, (name, points) in enumerate(found.views.items()):
        label = f"Map of {len(points)} codes by {name}" + (", coloured by class" if names else "")
        drawn = svg.scatter(
            [(float(a), float(b)) for a, b in points], found.labels.tolist(), found.said, label, "sprite"
        )
        panes.append(Markup('<div class="pane pane-{}">{}</div>').format(i, figure(drawn, f"By {name}.")))
        chosen.append(
            Markup('<input type="radio" name="map" id="map-{0}"{1}><label for="map-{0}">{2}</label>').format(
                i, Markup(" checked") if i == len(found.views) - 1 else "", name
            )
        )
    key = Markup("").join(
        Markup(
            '<li><svg viewBox="0 0 10 10" aria-hidden="true"><circle class="k{}" cx="5" cy="5" r="5"/></svg>{}</li>'
        ).format(k % svg.CLASSES, name)
        for k, name in enumerate(names[:20])
    )
    lead = f"Each dot is the code of a test example ({len(found.labels):,} of them). Point at one to see it."
    if len(names) > svg.CLASSES:
        lead += (
            f" There are {len(names)} classes and {svg.CLASSES} colours, so a colour stands for more than one class."
        )
    legend = Markup('<ul class="key" aria-label="Classes">{}</ul>').format(key) if names else Markup("")
    inside = joined(Markup('<div class="tabs">'), *chosen, *panes, Markup("</div>"), legend, hidden)
    return Section(title, lead, inside)


def probes(known: Known) -> Section:
    """What simple models read from the code, beside what they read without it."""
    title = "What simple models read from it"
    if known.health.verdict == "no code":
        return Section(title, "This method has no code; its layers can be asked.", command=known.command("readout"))
    if not known.card.label_names and not known.probes:
        return Section(title, "The data have no labels to ask for.")
    if not known.probes:
        lead = "Raw values, PCA and an untrained encoder are not set beside the code yet."
        return Section(title, lead, _own_probes(known), known.command("probe"))
    scores: dict[str, dict[str, tuple[float, float]]] = {}
    for kind, results in known.probes["scores"].items():
        for name, result in results.items():
            value = result.get("accuracy", result.get("r2"))
            if value is not None:
                scores.setdefault(_probe(name), {})[BESIDE.get(kind, kind)] = (value, result["se"])
    measure = "R² on the test split" if known.probes.get("classes") is None else "accuracy on the test split"
    label = f"{measure}: " + "; ".join(
        f"{name}: " + ", ".join(f"{kind} {value:.3f}" for kind, (value, _) in row.items())
        for name, row in scores.items()
    )
    count = known.probes["examples"]["test"]
    lead = (
        f"Each point is one simple model on one kind of features, with two standard errors to each side, on {count:,}"
        " test examples. Points whose lines overlap are not told apart by this many examples."
    )
    chart = figure(svg.intervals(scores, measure, label))
    kinds = list(dict.fromkeys(kind for row in scores.values() for kind in row))
    lines = [[name, *(_pair(row.get(kind)) for kind in kinds)] for name, row in scores.items()]
    numbers = table(["model", *kinds], lines, f"{measure}, ± one standard error", [False, *[True] * len(kinds)])
    return Section(title, lead, joined(chart, details("The numbers", numbers)))


def units(known: Known, seen: Shown | None) -> Section:
    """Which numbers of the code move."""
    title = "Which numbers are active"
    if seen is None or seen.variances is None:
        return Section(title, "There are no codes to count.")
    ordered = np.sort(seen.variances)[::-1].tolist()
    active = [value > ACTIVE for value in ordered]
    lead = (
        f"{sum(active)} of {len(ordered)} numbers are active: their variance over the test examples is above {ACTIVE}."
        " A number that never moves says nothing."
    )
    label = f"Variance of each number of the code, {sum(active)} of {len(ordered)} active"
    return Section(title, lead, figure(svg.columns(ordered, active, "variance over examples", label)))


def again(known: Known) -> Section:
    """Settings, versions, fingerprint and the commands that make it again."""
    card = known.card
    versions = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    pairs: list[tuple[str, object]] = [
        ("changed settings", ", ".join(known.changed) or "none: all are the defaults"),
        ("seed", known.settings.seed),
        ("data fingerprint", ", ".join(f"{split} {digits}" for split, digits in card.fingerprints.items())),
        ("written with", f"{versions}, Python {platform.python_version()}, {platform.machine()}"),
    ]
    lines = [[name, "none" if value is None else str(value), meaning] for name, value, meaning in known.every_setting()]
    every = table(["setting", "value", "meaning"], lines, "Every setting of this run")
    return Section(
        "Make it again",
        "These commands make this run, its numbers and this page. The fingerprint tells whether the data are the same.",
        joined(code(*known.commands()), facts(pairs), details("All settings", every)),
    )


def _denoised(seen: Shown) -> Markup:
    assert seen.denoised is not None
    log_snr, x_t, without, given = seen.denoised
    at = ", ".join(svg.number(v, (0, 0.1)) for v in log_snr.tolist())
    limits = tiles.limits_of(seen.x)
    parts = []
    for e in range(x_t.shape[1]):
        named = {"noisy": x_t, "denoised without the code": without, "denoised with the code": given}
        parts += [
            (name, tiles.strip(x[:, e], f"Example {e + 1}, {name}, at log-SNR {at}", limits))
            for name, x in named.items()
        ]
    return figure(
        rows(parts), f"Two test examples at log-SNR {at}: the noisy example, and what the decoder makes of it."
    )


def _reconstructions(seen: Shown) -> Section:
    title = "Reconstructions"
    if seen.reconstructions is None:
        return Section(title, f"There are none: {_why(seen, 'reconstructions')}")
    limits = tiles.limits_of(seen.x)
    count = len(seen.x)
    named: list[tuple[str, object]] = [("example", tiles.strip(seen.x, f"{count} test examples", limits))]
    for i, again in enumerate(seen.reconstructions):
        words = "from its code" if i == 0 else "with other noise"
        named.append((words, tiles.strip(again, f"The {count} examples, each decoded {words}", limits)))
    lead = "The code alone is decoded."
    if len(seen.reconstructions) > 1:
        lead += " What stays the same with other noise stands in the code; what changes was made up."
    return Section(title, lead, figure(rows(named)))


def _samples(seen: Shown) -> Section:
    if seen.samples is None:
        return Section("Samples", f"There are none: {_why(seen, 'samples')}")
    lead = f"{len(seen.samples)} new examples, the first that came: a code from the prior, then the decoder."
    limits = tiles.limits_of(seen.x)
    return Section("Samples", lead, figure(tiles.sheet(seen.samples, 8, f"{len(seen.samples)} new examples", limits)))


def _between(seen: Shown) -> Section:
    title = "From one to another"
    if not seen.between:
        return Section(title, f"There is no way to show: {_why(seen, 'between')}")
    limits = tiles.limits_of(seen.x)
    strips = [tiles.strip(row, "A test example, steps to another one, and that one", limits) for row in seen.between]
    lead = "Codes on the straight line between the codes of two test examples, which stand at the ends."
    return Section(title, lead, figure(rows([(f"pair {i + 1}", strip) for i, strip in enumerate(strips)])))


def _neighbours(seen: Shown) -> Section:
    title = "Nearest neighbours"
    if seen.neighbours is None:
        return Section(title, "This method has no code to compare by.")
    limits = tiles.limits_of(seen.x)
    count = len(seen.x)
    named: list[tuple[str, object]] = [("example", tiles.strip(seen.x, f"{count} test examples", limits))]
    for k, near in enumerate(seen.neighbours):
        called = "" if seen.neighbour_labels is None else ": " + ", ".join(row[k] for row in seen.neighbour_labels)
        words = "nearest" if k == 0 else f"{k + 1}."
        named.append((words, tiles.strip(near, f"Number {k + 1} of the nearest training examples{called}", limits)))
    lead = (
        f"Under each of {count} test examples stand the {min(NEIGHBOURS, len(seen.neighbours))} training examples whose"
        " codes make the smallest angle with its own."
    )
    return Section(title, lead, figure(rows(named)))


def _own_probes(known: Known) -> Markup:
    found = known.metrics.get("probes") or {}
    own = {PROBES[name]: {"code": (found[name], found[f"{name}_se"])} for name in ("linear", "knn") if name in found}
    if not own:
        return Markup("")
    label = "Accuracy of probes on the code: " + ", ".join(f"{n} {row['code'][0]:.3f}" for n, row in own.items())
    return figure(svg.intervals(own, "accuracy on the test split", label))


def _curve(log: Sequence[Mapping], of) -> list[tuple[float, float]]:
    """At most POINTS means of neighbouring lines."""
    known = [(line["examples"], value) for line in log if (value := of(line)) is not None]
    size = max(1, -(-len(known) // POINTS))
    return [
        (sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part))
        for part in (known[i : i + size] for i in range(0, len(known), size))
    ]


def _why(seen: Shown, name: str) -> str:
    reason = seen.why.get(name, "this method has no code")
    return f"{reason.rstrip('.')}."


def _probe(name: str) -> str:
    head, _, tail = name.partition("-")
    if head == "few" and tail.isdigit():
        return f"{tail} label{'s' if tail != '1' else ''} a class"
    return PROBES.get(name, name)


def _pair(found: tuple[float, float] | None) -> str:
    return "-" if found is None else f"{found[0]:.3f} ± {found[1]:.3f}"


def _few(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return f"{len(names)}: {shown}" + (", …" if len(names) > most else "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
