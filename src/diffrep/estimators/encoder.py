"""A transformer for scikit-learn: rows in, codes out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_feature_names, check_array, check_is_fitted, validate_data
from torch.utils.data import Dataset

from diffrep import data, runs
from diffrep.amounts import amount, plus_minus
from diffrep.budget import Budget
from diffrep.config import Settings, override
from diffrep.data import raw
from diffrep.data.examples import Examples
from diffrep.data.readers.cells import is_cells
from diffrep.data.splits import Splits
from diffrep.errors import UserError
from diffrep.estimators import codes
from diffrep.estimators.forms import Array, Form, Frame, Table, kind_of
from diffrep.estimators.keeping import files_of, replace_data, temporary
from diffrep.estimators.sizes import sizes
from diffrep.evaluation.bound import bound
from diffrep.evaluation.encoding import encode_split
from diffrep.methods.catalog import name_of
from diffrep.probes.neighbours import knn
from diffrep.probes.result import Result
from diffrep.runs.export import write
from diffrep.runs.inputs import examples_of
from diffrep.training import journal

HELD_OUT, FEW = 0.1, 20  # share of the rows for the bound; with fewer than FEW rows, all of them
SHOWN = 500  # held-out rows for `bound_`, at most


class DiffusionEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Codes by denoising, as a transformer of scikit-learn: the constructor stores its arguments, `fit` trains.

    method: a name of `diffrep methods`, or a recipe. dim: numbers in a code. detail: the level of detail of the code
    (auto, coarse, balanced, fine, ...). budget: amount of training: "60s", "20000ex", "3epochs". batch: examples of a
    step. lr: largest learning rate. encoder: auto, conv, wideresnet, vit, mlp. dim, budget and batch of "auto" depend
    on the number of rows (`estimators.sizes`). device: auto, cpu, cuda. random_state: as everywhere in scikit-learn.
    verbose: 0 is silent, 1 shows a progress bar. callbacks: objects with on_log(line) and on_end(run). out: a run
    directory to keep; None: one that is removed with the estimator. shape: of one example, channels first, for flat
    rows that are pictures. settings: further ones by their names in `diffrep settings`, such as {"decoder.width": 64}.

    X: an array, tensor or sparse matrix (N, F), pictures (N, H, W), (N, C, H, W) or (N, H, W, C), a DataFrame (words,
    dates and gaps are handled: `forms.Frame`), an AnnData, a data set of torch, or a path. y: labels for methods that
    use them, -1 or None: unlabelled.

    Fitted: run_ (a `diffrep.Run`), settings_, history_ (lines of the journal), bound_ (bits/dim of held-out rows and
    its terms; None for a method without one), n_features_in_, feature_names_in_.
    """

    def __init__(
        self,
        method="vae-vdm",
        *,
        dim="auto",
        detail="auto",
        budget="auto",
        batch="auto",
        lr=4e-3,
        encoder="auto",
        device="auto",
        random_state=None,
        verbose=1,
        callbacks=None,
        out=None,
        shape=None,
        settings=None,
    ):
        self.method = method
        self.dim = dim
        self.detail = detail
        self.budget = budget
        self.batch = batch
        self.lr = lr
        self.encoder = encoder
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks
        self.out = out
        self.shape = shape
        self.settings = settings

    def fit(self, X, y=None) -> DiffusionEncoder:
        """Learn from the rows of X; a run in `out` is replaced. UserError (a ValueError): see `diffrep.train`.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a search around it ends too.

        A fit that does not end, by an error or by Ctrl-C, leaves the estimator without a fit, even if it had one."""
        self.__dict__.pop("run_", None)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        if isinstance(X, (str, Path, Dataset)) or is_cells(X):
            asked = [f"{name}={_text(value)}" for name, value in (self.settings or {}).items()]
            self._form, splits = None, data.load(X, seed=seed, **override(Settings(), asked).data.how())
            self.n_features_in_ = int(np.prod(splits.train.shape))
        else:
            X = self._rows(X, reset=True)
            self._form = form_of(X, self.shape)
            self.n_features_in_ = int(np.prod(X.shape[1:]))
            splits = self._splits(X, y, seed)
        self.settings_ = self._settings(splits, seed, str(X) if isinstance(X, (str, Path)) else runs.IN_MEMORY)
        self._place = temporary(self) if self.out is None else Path(self.out)
        self._train(self.settings_, splits, restart=True)
        return self

    def partial_fit(self, X, y=None) -> DiffusionEncoder:
        """Go on with the same run for one more budget, on the rows of X; the first call is a `fit`. KeyboardInterrupt:
        the estimator has learned until then; if it was the first call, it is not fitted."""
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y)
        form = self._form
        if form is None or self._trimmed:
            why = (
                "was fitted on a path: `diffrep train` goes on with its run"
                if form is None
                else "was trimmed: fit anew"
            )
            raise UserError(f"this estimator {why}.")
        splits = self._splits(self._rows(X, reset=False), y, self.settings_.seed)
        result, more = self._had, sizes(len(splits.train), form.shape, {"train.budget": self.budget})
        budget = str(more["train.budget"])
        unit = Budget.parse(budget).of(len(splits.train))
        had = result["examples"] if unit.unit == "examples" else result["seconds"]
        total = f"{had + unit.amount:g}s" if unit.unit == "seconds" else f"{int(had + unit.amount)}ex"
        self.settings_ = override(self.settings_, [f"train.budget={total}"])
        replace_data(self._place, splits)
        self._train(self.settings_, splits, restart=False)
        return self

    def transform(self, X) -> np.ndarray:
        """The mean of each row's code, (N, d) float32; it does not depend on the other rows."""
        return self.code_spread(X)[0]

    def code_spread(self, X) -> tuple[np.ndarray, np.ndarray | None]:
        """Mean and spread (N, d) of each row's code; spread None for a deterministic code."""
        examples = self._examples(X)
        code = encode_split(self.run_.model, examples)
        return code.mean.numpy(), None if code.spread is None else code.spread.numpy()

    def inverse_transform(self, X) -> Any:
        """Rows like those of `fit`, in their units, decoded from codes (N, d): each from the same noise and, with
        data.covariate, with the most frequent value of it."""
        check_is_fitted(self)
        z = check_array(X, dtype=np.float32)
        return self._back(codes.decoded(self.run_.model, z, self.run_.card.usual_covariate()))

    def sample(self, n: int = 1, random_state=None) -> Any:
        """n new rows like those of `fit`: a code from the prior, then the decoder."""
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        return self._back(codes.sampled(self.run_.model, n, seed))

    def score_samples(self, X) -> np.ndarray:
        """The bound on log p(x) of each row, (N,) nats, higher is better. UserError for a method without a bound."""
        return -codes.bounds(self.run_.model, self._examples(X))

    def score(self, X, y=None) -> float:
        """Minus bits per dimension of the rows, so that a search chooses by the bound. UserError: no bound."""
        return -bound(self.run_.model, self._examples(X), codes.LEVELS).summary()["bits_per_dim"]

    def to_onnx(self, path) -> Path:
        """Write the encoder for programs without torch: rows like those of `fit` in, codes out; see `runs.export`."""
        check_is_fitted(self)
        if self._form is None:
            return self.run_.export(path)
        facts = {"method": self.settings_.method, "prepared": self._form.prepared, "levels": self._form.bins}
        return write(self.run_.model, self._form.preparation(), path, facts)

    def trim(self) -> DiffusionEncoder:
        """Leave checkpoints out of pickles; `partial_fit` then raises an error."""
        check_is_fitted(self)
        self._trimmed = True
        return self

    @property
    def history_(self) -> list[journal.Line]:
        """The lines of the run's journal: step, examples, terms (nats), gradient norms, health of the code."""
        check_is_fitted(self)
        return journal.read(self._place)

    @property
    def _n_features_out(self) -> int:
        return self.run_.code_dim

    def _settings(self, splits: Splits, seed: int, source: str) -> Settings:
        asked = {"code.dim": self.dim, "train.batch": self.batch, "train.budget": self.budget, **(self.settings or {})}
        chosen = sizes(len(splits.train), splits.train.shape, asked) | {
            "detail": self.detail,
            "train.lr": self.lr,
            "encoder.kind": self.encoder,
            "train.device": self.device,
            "seed": seed,
            "data.source": source,
            "method": name_of(self.method),
        }
        return override(Settings(), [f"{name}={_text(value)}" for name, value in chosen.items()])

    def _train(self, settings: Settings, splits: Splits, restart: bool) -> None:
        run = runs.train(settings, self._place, restart, splits, callbacks=self.callbacks or (), quiet=not self.verbose)
        assert run.result is not None
        if restart and run.result.interrupted:
            raise KeyboardInterrupt("fit was stopped, and the estimator is not fitted")
        self._had, self._trimmed = asdict(run.result), False
        if not restart:
            self.run_ = run  # what was learned stays if the next lines are stopped
        held = splits.test.subset(torch.arange(min(len(splits.test), SHOWN)))
        self.bound_: Mapping[str, Any] | None = None
        with suppress(UserError):  # a method without a bound
            self.bound_ = bound(run.model, held, codes.LEVELS).summary()
        self.run_ = run
        if run.result.interrupted:
            raise KeyboardInterrupt("partial_fit was stopped; the estimator has learned until then")

    def _rows(self, X: Any, reset: bool) -> Any:
        """X as scikit-learn checks it; a DataFrame with words, dates or gaps stays a DataFrame."""
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().numpy()
        if is_mixed(X) if reset else isinstance(self._form, Frame):
            if not hasattr(X, "columns"):
                raise ValueError("X is no DataFrame, expected one with the columns of fit")
            _check_feature_names(self, X, reset=reset)
            return X
        if getattr(X, "ndim", 2) > 2:
            return check_array(X, dtype=None, allow_nd=True)
        return validate_data(self, X, reset=reset, accept_sparse="csr")

    def _splits(self, X: Any, y: Any, seed: int) -> Splits:
        assert self._form is not None
        labels, names = numbered(y, X.shape[0])
        every = self._form.examples(X, labels, names)
        if len(every) < FEW:
            return Splits(_named(every, "train"), _named(every, "valid"), _named(every, "test"))
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
        held = max(1, round(HELD_OUT * len(every)))
        out, kept = order[:held].sort().values, order[held:].sort().values
        valid = every.subset(out)
        return Splits(_named(every.subset(kept), "train"), _named(valid, "valid"), _named(valid, "test"))

    def _examples(self, X: Any) -> Examples:
        check_is_fitted(self)
        if isinstance(X, (str, Path)):
            return examples_of(self.run_, str(X))
        if self._form is None:
            return examples_of(self.run_, X)
        return self._form.examples(self._rows(X, reset=False))

    def _back(self, x: np.ndarray) -> Any:
        if self._form is not None:
            return self._form.restore(x)
        scaling = self.run_.scaling()
        return x if scaling is None else x * scaling[1].numpy() + scaling[0].numpy()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "run_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.non_deterministic = False
        return tags

    def __getstate__(self) -> dict:
        state = dict(super().__getstate__())
        if "run_" in state:
            del state["run_"], state["_place"]
            state["_files"] = files_of(self._place, self._trimmed)
        return state

    def __setstate__(self, state: Mapping) -> None:
        state = dict(state)
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            self._place = temporary(self, files)
            name_of(self.method)  # registers a method that is a function
            self.run_ = runs.load(self._place, device=self.device)

    def _probed(self) -> Result | None:
        """The kNN probe of codes on held-out rows; None without labels, or after a pickle, which holds no rows."""
        splits = self.run_.data
        if splits is None or not self.run_.model.has_code:
            return None
        try:
            train, held = (part.subset(part.evenly(SHOWN)).labelled() for part in (splits.train, splits.test))
        except UserError:
            return None
        if not len(held[1]) or len(train[1].unique()) < 2:
            return None
        one, two = ((encode_split(self.run_.model, part).mean.numpy(), y.numpy()) for part, y in (train, held))
        return knn(one, two, two)

    def _repr_html_(self) -> str:
        """The method, the bound, and the health of the code."""
        if not self.__sklearn_is_fitted__():
            return f"<pre>{escape(repr(self))}</pre>"
        last = self.history_[-1]["watch"] if self.history_ else {}
        rows = {"method": self.settings_.method, "code": amount(self._n_features_out, "number")}
        if self.bound_ is not None:
            rows["bits/dim, held-out rows"] = (
                f"{self.bound_['bits_per_dim']:.4f} ± {self.bound_['bits_per_dim_se']:.4f}"
            )
        if (probed := self._probed()) is not None:
            share = plus_minus(probed["accuracy"], probed["se"], ".3f")
            rows["nearest neighbours, held-out rows"] = f"{share} right"
        rows |= {name.replace("_", " "): f"{value:.4g}" for name, value in last.items() if value is not None}
        body = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<pre>{escape(repr(self))}</pre><table>{body}</table>"


def is_mixed(x: Any) -> bool:
    """A DataFrame with words, dates or gaps in it."""
    if not hasattr(x, "columns") or not hasattr(x, "dtypes"):
        return False
    return any(kind_of(x[name]) != "number" or x[name].isna().any() for name in x.columns)


def form_of(x: Any, shape: Sequence[int] | None) -> Form:
    """The form for such rows."""
    if hasattr(x, "columns"):
        return Frame(x)
    if shape is None and x.ndim == 2:
        return Table(x)
    return Array(x.toarray() if hasattr(x, "toarray") else np.asarray(x), None if shape is None else tuple(shape))


def numbered(y: Any, rows: int) -> tuple[torch.Tensor | None, list[str] | None]:
    """Labels (N,) int64 with their names, -1 where there is none; None where no row has one. ValueError: not (N,)."""
    if y is None:
        return None, None
    values = np.asarray(y)
    if values.ndim != 1 or len(values) != rows:
        raise ValueError(f"y has shape {values.shape}, expected one label for each of {amount(rows, 'row')}")
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        return None, None  # quantities, which no method uses
    return raw.numbered(values.astype(object))


def _named(examples: Examples, split: str) -> Examples:
    return replace(examples, split=split)


def _text(value: object) -> str:
    """As `--set` reads it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(list(value) if isinstance(value, tuple) else value)
