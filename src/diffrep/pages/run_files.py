"""The files of a run for its page, read without its model: settings, data, log, results."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from diffrep import config
from diffrep.config import Settings
from diffrep.measures.probe import CODE, USUAL
from diffrep.methods.catalog import METHODS
from diffrep.probes.protocols import OF_CLASSES, OF_NUMBERS
from diffrep.runs import records, summary
from diffrep.runs.card import DataCard, form
from diffrep.runs.diagnosis import Checkup, checkup
from diffrep.runs.directory import read_card, settings_of
from diffrep.runs.results import Metrics, Probes, ProfileFile
from diffrep.training import journal

OPTIONS = ("data.source", "method", "train.budget", "seed")  # settings that are options of `train`


@dataclass(frozen=True)
class RunFiles:
    """The files of a run. results: file name -> content, empty where there is none for these weights."""

    directory: Path
    settings: Settings
    card: DataCard
    log: list[journal.Line]
    results: dict[str, dict]

    @classmethod
    def of(cls, directory: str | Path) -> RunFiles:
        """UserError where there is no run, or a file of it is broken."""
        directory = Path(directory)
        settings = settings_of(directory)
        log = journal.read(directory)
        return cls(directory, settings, read_card(directory), log, records.current(directory))

    @cached_property
    def numbers(self) -> summary.Numbers:
        """bits/dim, nats, accuracies and the effort of training; see `diffrep.runs.summary`."""
        return summary.numbers(self.directory)

    @cached_property
    def health(self) -> Checkup:
        """Verdict and sentences on the code, from the log."""
        return checkup(self.directory)

    @property
    def metrics(self) -> Metrics:
        return cast(Metrics, self.results[records.METRICS])

    @property
    def probes(self) -> Probes:
        return cast(Probes, self.results[records.PROBES])

    @property
    def profile(self) -> ProfileFile:
        return cast(ProfileFile, self.results[records.PROFILE])

    @property
    def data(self) -> str:
        """The name of the data without its folders."""
        return Path(self.card.source).name or self.card.source

    @property
    def form(self) -> str:
        """Shape and grey levels in words."""
        return form(self.card.shape, self.card.bins)

    @property
    def paper(self) -> str:
        return METHODS[self.settings.method].paper if self.settings.method in METHODS else ""

    @property
    def about(self) -> str:
        """The summary of the method."""
        return METHODS[self.settings.method].summary if self.settings.method in METHODS else ""

    @property
    def trained(self) -> tuple[int, int]:
        """Steps and examples of training so far."""
        return (self.log[-1]["step"], self.log[-1]["examples"]) if self.log else (0, 0)

    def command(self, name: str, *words: str) -> str:
        """A diffrep command on this run, quoted for a shell."""
        return " ".join(["diffrep", name, shlex.quote(str(self.directory)), *words])

    def commands(self) -> list[str]:
        """The commands that make this run and its numbers again; of features by a path, its last component is named."""
        settings = self.settings
        train = ["diffrep", "train", "--data", settings.data.source, "--method", settings.method]
        train += ["--out", str(self.directory), "--budget", settings.train.budget]
        train += ["--seed", str(settings.seed)] if settings.seed != Settings().seed else []
        for change in self.changed:
            train += ["--set", change]
        lines = [" ".join(map(shlex.quote, train))]
        for file, command in MEASURES.items():
            if self.results[file]:
                words = words_of(file, self.results[file].get("options", {}))
                several = self._of_probes() if file == records.PROBES else [[]]
                lines += [self.command(command, *more, *words) for more in several]
        return [*lines, self.command("report")]

    def _of_probes(self) -> list[list[str]]:
        """The options with which `diffrep probe` fits these probes, for each number of draws and seed of them."""
        labels, t = self.probes.get("labels", "label"), self.probes.get("t")
        once: list[str] = []
        drawn: dict[tuple[int, int], list[str]] = {}
        for name, result in self.probes.get("scores", {}).get(CODE, {}).items():
            how = result.get("draws", USUAL.repeats), result.get("seed", USUAL.seed)
            (drawn.setdefault(how, []) if "-" in name else once).append(name)
        several = []
        for number, ((draws, seed), names) in enumerate((drawn or {(USUAL.repeats, USUAL.seed): []}).items()):
            parts = [name.partition("-") for name in ([*once, *names] if number == 0 else names)]
            protocols = list(dict.fromkeys(head for head, _, _ in parts))
            few = list(dict.fromkeys(count for _, _, count in parts if count))
            options = {
                "--labels": "" if labels == "label" else shlex.quote(labels),
                "--protocols": ",".join(protocols) if {*protocols} - {*OF_CLASSES, *OF_NUMBERS, "few"} else "",
                "--few": ",".join(few),
                "--t": "" if t is None else str(t).removesuffix(".0"),
                "--draws": str(draws) if few and draws != USUAL.repeats else "",
                "--seed": str(seed) if few and seed != USUAL.seed else "",
            }
            several.append([word for name, value in options.items() if value for word in (name, value)])
        return several

    @property
    def changed(self) -> list[str]:
        """Settings that are not the defaults, as name=value, without those that are options of `train`."""
        return [change for change in summary.changed(self.settings) if change.split("=")[0] not in OPTIONS]

    def every_setting(self) -> list[tuple[str, object, str]]:
        """Name, value and meaning of each setting."""
        return [(name, config.value(self.settings, name), meaning) for name, meaning in config.names().items()]


MEASURES = {
    records.METRICS: "evaluate",
    records.PROBES: "probe",
    records.PROFILE: "profile",
    records.DISTANCE: "distance",
    records.DISENTANGLE: "disentangle",
    records.READOUT: "readout",
    records.TIMES: "times",
    records.SEMI: "semi",
}  # file of results -> the command that writes it

FLAGS = {
    (records.PROFILE, "most"): "-n",
    (records.DISTANCE, "n"): "-n",
    (records.TIMES, "ks"): "--times",
}  # file of results, argument -> the option of its command, where they have different names


def words_of(file: str, options: dict[str, object]) -> list[str]:
    """The `options` of a file of results as words of its command, quoted for a shell."""
    words = []
    for name, value in options.items():
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        words += [FLAGS.get((file, name), f"--{name.replace('_', '-')}"), shlex.quote(text)]
    return words
