"""Classification with few labels by a run's encoder: frozen, fine-tuned, with pseudo-labels, and untrained."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from diffrep.amounts import amount, plus_minus
from diffrep.budget import Budget
from diffrep.data import Examples, Splits
from diffrep.errors import UserError
from diffrep.evaluation import finetune, pseudo_labels
from diffrep.measures.asked import asked
from diffrep.methods.catalog import build
from diffrep.models.base import Model
from diffrep.probes.few_labels import drawn
from diffrep.probes.fitting import Labelled, accuracy, cross_entropy, descend
from diffrep.probes.result import error_of_share
from diffrep.progress import Progress, counting, silent
from diffrep.runs.records import SEMI
from diffrep.runs.results import FewLabels, SemiFile
from diffrep.runs.run import Run
from diffrep.shapes import mean_and_error

TRIED = 3  # steps that are timed to find how many fit into a budget
KINDS = {  # names in the table
    "frozen": "frozen encoder, linear probe",
    "random": "fine-tuned from random weights",
    "finetuned": "fine-tuned",
    "pseudo": "fine-tuned, with graph pseudo-labels",
}


def semi(
    run: Run,
    splits: Splits | None = None,
    labels_per_class: int = 10,
    seeds: int = 3,
    steps: int = finetune.STEPS,
    most: int = 10_000,
    progress: Progress = silent,
    budget: str | None = None,
) -> SemiFile:
    """Accuracy on the whole test split from few labels, four ways, `seeds` draws of the labels -> RUN/semi.json.

    Nothing is chosen: rates, steps and rounds are those of the protocols, and the validation split is not used. The
    unlabelled examples are at most `most` of the training split, evenly chosen, without their labels. The run's weights
    do not change. se: over new labels and new test examples (over the latter alone for one draw). budget: such as 60s,
    which lowers the steps to what fits, by the time of a few; `options` of the
    file name these steps in its place. UserError: it is too short for one step.
    """
    splits = splits or run.splits()
    device = run.device
    trained = finetune.encoder_of(run.model)
    test = examples_and_labels(splits.test, device)
    if not len(test[1]):
        raise UserError("no test example has a label, so there is no accuracy; give labels, or pick other data.")
    pool = splits.train.evenly(most)
    every = inputs(splits.train.subset(pool), device)
    accuracies: dict[str, list[float]] = {name: [] for name in KINDS}
    labels = splits.train.require_labels().cpu().numpy()
    labelled_rows = drawn(labels, labels_per_class, seeds, seed=0, names=splits.train.label_names)
    if budget is not None:
        few = examples_and_labels(splits.train.subset(torch.from_numpy(np.sort(labelled_rows[0]))), device)
        steps = _steps_within(budget, steps, seeds, trained, few, every)
    count = counting("steps", steps * (2 + pseudo_labels.ROUNDS) * seeds, progress)
    for seed in range(seeds):
        chosen = torch.from_numpy(np.sort(labelled_rows[seed]))
        few = examples_and_labels(splits.train.subset(chosen), device)
        others = every[~torch.isin(pool, chosen).to(device)]
        untrained = finetune.encoder_of(_untrained(run, seed)).to(device)
        tuned = finetune.finetune(trained, few, every, steps=steps, seed=seed, progress=count)
        classifiers = {
            "frozen": finetune.frozen(trained, few, every),
            "random": finetune.finetune(untrained, few, every, steps=steps, seed=seed, progress=count),
            "finetuned": tuned,
            "pseudo": pseudo_labels.train(tuned, few, others, steps=steps, seed=seed, progress=count),
        }
        for name, classifier in classifiers.items():
            accuracies[name].append(accuracy(classifier, test))
    result: SemiFile = {
        "method": run.settings.method,
        "data": run.card.source,
        "labels_per_class": labels_per_class,
        "seeds": seeds,
        "steps": steps,
        "examples": len(test[1]),
        "unlabelled_examples": len(others),
        "protocol": [finetune.PROTOCOL, pseudo_labels.PROTOCOL],
        "frozen": _over(accuracies["frozen"], len(test[1])),
        "random": _over(accuracies["random"], len(test[1])),
        "finetuned": _over(accuracies["finetuned"], len(test[1])),
        "pseudo": _over(accuracies["pseudo"], len(test[1])),
        "options": asked(semi, labels_per_class=labels_per_class, seeds=seeds, steps=steps, most=most),
    }
    return run.keep(SEMI, result)


def table(result: SemiFile) -> list[list[str]]:
    """Test accuracy and its error, a row for each way, the head first."""
    ways = {
        "frozen": result["frozen"],
        "random": result["random"],
        "finetuned": result["finetuned"],
        "pseudo": result["pseudo"],
    }
    rows = [[KINDS[name], plus_minus(way["accuracy"], way["se"])] for name, way in ways.items()]
    return [["encoder", "accuracy on test"], *rows]


def _steps_within(budget: str, steps: int, seeds: int, trained: finetune.CodeOf, few: Labelled, every: Tensor) -> int:
    """How many steps of each fit, at most `steps`, take the time of the budget, by the time of `TRIED` of either kind.

    Beside its steps each draw encodes all training examples for three fits and for each round of pseudo-labels.
    """
    whole = Budget.parse(budget)
    if whole.unit != "seconds":
        raise UserError(f"the budget of semi is a time, such as 60s or 5m, got {budget!r}: --steps gives their number.")
    began = time.perf_counter()
    classifier = finetune.frozen(trained, few, every)
    encoding = time.perf_counter() - began
    plain = (every, torch.zeros(len(every), dtype=torch.int64, device=every.device), torch.ones(len(every)).to(every))
    seconds = []
    for loss in (cross_entropy(classifier, few, finetune.BATCH, 0), pseudo_labels.composite(classifier, few, plain, 0)):
        began_one = time.perf_counter()
        descend(classifier, loss, finetune.groups_of(classifier, finetune.RATE), TRIED, 0)
        seconds.append((time.perf_counter() - began_one) / TRIED)
    fixed = seeds * (3 + pseudo_labels.ROUNDS) * encoding + time.perf_counter() - began
    each = seeds * (2 * seconds[0] + pseudo_labels.ROUNDS * seconds[1])
    fitting = int((whole.amount - fixed) / each)
    if fitting < 1:
        raise UserError(
            f"a budget of {budget} is too short: {amount(seeds, 'draw')} would take {fixed + each:.0f} s with one step"
            " a fit; give more, fewer --seeds, or fewer examples by --most."
        )
    return min(steps, fitting)


def _untrained(run: Run, seed: int) -> Model:
    """The run's model with the initial weights of this seed."""
    settings = run.settings.model_copy(update={"seed": seed})
    return build(settings, run.card.facts(), warn=False)  # settings without effect were named in training


def examples_and_labels(examples: Examples, device: torch.device) -> Labelled:
    """x and labels of the examples that have one."""
    subset, labels = examples.labelled()
    return inputs(subset, device), labels.to(device)


def inputs(examples: Examples, device: torch.device) -> Tensor:
    """x (N, *shape) of all examples, in [-1, 1]."""
    return torch.cat([examples.batch(rows).x.to(device) for rows in torch.arange(len(examples)).split(500)])


def _over(accuracies: list[float], examples: int) -> FewLabels:
    """The mean accuracy over draws of the labels; its error is over new labels and new test examples."""
    mean, between = mean_and_error(accuracies)
    among = error_of_share(mean, examples)
    return {"accuracy": mean, "se": math.hypot(between, among) if len(accuracies) > 1 else among, "draws": accuracies}
