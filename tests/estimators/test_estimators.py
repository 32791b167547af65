"""The estimators keep scikit-learn's contract, and work where its tools put them."""

import pickle
import signal
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from diffrep import DiffusionClassifier, DiffusionEncoder, Draws, UserError

SMALL = {"decoder.width": 4, "encoder.width": 4}
CHECKED = {  # the checks of scikit-learn that fail, and why
    "check_classifiers_classes": "its classes are -1 and 1, and -1 names a row without a label here, as in"
    " sklearn.semi_supervised",
}


def encoder(**arguments) -> DiffusionEncoder:
    return DiffusionEncoder(
        **{"budget": "64ex", "batch": 16, "verbose": 0, "random_state": 0, "settings": SMALL} | arguments
    )


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 4)) * [1, 2, 3, 4] + 5


@pytest.mark.long
@pytest.mark.parametrize(
    "made, failing",
    [
        pytest.param(encoder(method="vae", budget="16ex"), {}, id="encoder"),
        pytest.param(DiffusionClassifier(encoder(method="ae", budget="64ex", settings=None)), CHECKED, id="classifier"),
    ],
)
def test_scikit_learn_checks_pass(made, failing):
    """What holds for every estimator of scikit-learn holds for these; an exception has its reason in CHECKED."""
    outcomes = check_estimator(made, expected_failed_checks=failing, on_skip=None)
    assert {o["check_name"] for o in outcomes if o["status"] == "xfail"} == set(failing)
    assert sum(o["status"] == "passed" for o in outcomes) > 40


def test_codes_are_row_by_row(rows):
    """A row's code does not depend on the rows beside it, nor on their order: `transform` is a function of a row."""
    pictures = load_digits().images[:40]
    for x in (rows, pictures):
        fitted = encoder(method="vae").fit(x)
        z = fitted.transform(x)
        order = np.random.default_rng(1).permutation(len(x))
        np.testing.assert_array_equal(fitted.transform(x[order]), z[order])
        np.testing.assert_array_equal(np.concatenate([fitted.transform(x[i : i + 1]) for i in range(5)]), z[:5])
        np.testing.assert_array_equal(encoder(method="vae").fit_transform(x), z)


@pytest.mark.slow
def test_the_bound_is_the_score(rows):
    """score is minus bits per dimension: the mean of score_samples in other units, up to the draw of noise levels."""
    fitted = encoder(method="vae", budget="2000ex").fit(rows)
    nats = fitted.score_samples(rows)
    assert fitted.score(rows) == pytest.approx(nats.mean() / (4 * np.log(2)), abs=0.3)
    assert fitted.bound_["bits_per_dim"] < 5 and "bits/dim" in fitted._repr_html_()
    with pytest.raises(UserError, match="no bound"):
        encoder(method="ae").fit(rows).score(rows)


@pytest.mark.slow
def test_the_score_of_a_row_does_not_depend_on_the_others(rows):
    """Many rows in one pass have the numbers that each has alone: noise levels and noise are those of a row."""
    for x in (rows[:20], load_digits().images[:20]):
        fitted = encoder(method="vae-vdm").fit(x)
        nats, order = fitted.score_samples(x), np.random.default_rng(1).permutation(20)
        np.testing.assert_allclose(fitted.score_samples(x[order]), nats[order], rtol=1e-5)
        np.testing.assert_allclose([fitted.score_samples(x[i : i + 1])[0] for i in range(3)], nats[:3], rtol=1e-5)


class Interrupt:
    """Ctrl-C, or what `kill` sends, at a logged step."""

    def __init__(self, number=signal.SIGINT, step=1):
        self.number, self.step = number, step

    def on_log(self, line):
        if line["step"] == self.step:
            signal.raise_signal(self.number)


@pytest.mark.slow
@pytest.mark.parametrize(
    "interrupt", [Interrupt(), Interrupt(signal.SIGTERM), Interrupt(step=4)], ids=["Ctrl-C", "kill", "last step"]
)
def test_ctrl_c_ends_a_fit_and_the_search_around_it(rows, interrupt):
    """What called `fit` does not go on, at the last step neither; the estimator is then not fitted, even if it was."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    made = encoder(method="ae", settings=SMALL | {"train.log_every": 1}).fit(rows)
    made.set_params(callbacks=[interrupt])
    with pytest.raises(KeyboardInterrupt):
        made.fit(rows)
    with pytest.raises(NotFittedError):
        made.transform(rows)
    search = GridSearchCV(make_pipeline(made, LogisticRegression()), {"diffusionencoder__dim": [2, 3]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(rows, np.arange(len(rows)) % 2)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["training", "bound", "encoder_of", "data"])
def test_a_fit_that_does_not_end_leaves_no_fit(rows, monkeypatch, moment):
    """Encoder and classifier alike, whenever Ctrl-C comes, and after an error in the data too."""
    y = (rows[:, 0] > rows[:, 0].mean()).astype(int)
    own = encoder(method="vae", settings=SMALL | {"train.log_every": 1})
    made = [own] * (moment != "encoder_of") + [DiffusionClassifier(own, finetune=True)]
    for one in made:
        one.fit(rows, y)
        one.transform(rows) if one is own else one.predict(rows)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    if moment == "training":
        own.set_params(callbacks=[Interrupt()])
    elif moment != "data":
        place = "encoder" if moment == "bound" else "classifier"
        monkeypatch.setattr(f"diffrep.estimators.{place}.{moment}", stopped)
    for one in made:
        with pytest.raises(ValueError if moment == "data" else KeyboardInterrupt):
            one.fit(rows[:, :0] if moment == "data" else rows, y)
        with pytest.raises(NotFittedError):
            one.transform(rows) if one is own else one.predict(rows)


@pytest.mark.slow
def test_ctrl_c_in_a_partial_fit_keeps_what_was_learned(rows):
    """The estimator encodes with the weights that a pickle of it has, and the next call goes on from there.

    Ctrl-C after step 6 counts at step 7."""
    made = encoder(method="ae", settings=SMALL | {"train.log_every": 1}).fit(rows)
    with pytest.raises(KeyboardInterrupt):
        made.set_params(callbacks=[Interrupt(step=6)]).partial_fit(rows)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)).transform(rows), made.transform(rows))
    assert made.set_params(callbacks=None).partial_fit(rows).run_.result.examples == 7 * 16 + 64


def test_draws_that_repeat_are_those_of_a_block_again():
    """Three blocks of four: each has what a batch of four has, of every kind of number."""
    one, three = Draws.of(0), replace(Draws.of(0), repeats=3)
    for draw in (lambda d, n: d.normal(n, 2), lambda d, n: d.uniform(n), lambda d, n: d.stratified(n)):
        block = draw(one, 4)
        assert torch.equal(draw(three, 12), torch.cat([block] * 3))


@pytest.mark.slow
def test_fine_tuning_is_kept_and_pickled(rows):
    """finetune=True trains encoder and head; the pickle predicts the same; few labels: the head alone."""
    y = (rows[:, 0] > rows[:, 0].mean()).astype(int)
    fitted = DiffusionClassifier(encoder(method="ae"), finetune=True).fit(rows, y)
    assert isinstance(fitted.tuned_, bytes) and fitted.score(rows, y) > 0.9
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(again.predict_proba(rows), fitted.predict_proba(rows), atol=1e-9)
    scores = fitted.decision_function(rows)
    np.testing.assert_allclose(fitted.decision_function(rows[5:6]), scores[5:6], atol=1e-9)
    np.testing.assert_array_equal(fitted.predict(rows), fitted.classes_[(scores > 0).astype(int)])
    assert DiffusionClassifier(encoder(method="ae")).fit(rows[:40], y[:40]).tuned_ is None


@pytest.mark.slow
def test_a_data_set_of_torch_and_labels_in_the_picture_of_a_fit():
    """Items (x, label): the same codes as the array gives; with labels, the notebook shows what neighbours tell."""
    digits = load_digits()
    x, y = torch.from_numpy(digits.images[:60] / 16).float()[:, None], torch.from_numpy(digits.target[:60])
    fitted = encoder(method="ae").fit(torch.utils.data.TensorDataset(x, y))
    assert fitted.transform(x).shape == (60, fitted.settings_.code.dim)
    assert "nearest neighbours, held-out rows" in fitted._repr_html_()
    assert "nearest neighbours" not in encoder(method="ae").fit(x.numpy())._repr_html_()


@pytest.mark.slow
def test_units_come_back(rows):
    """Samples and decoded codes stand in the units of X: near its means after little training, in its shape."""
    fitted = encoder(method="vae", budget="4000ex").fit(rows)
    assert abs(fitted.sample(200, random_state=0).mean(0) - 5).max() < 2.5
    assert fitted.inverse_transform(fitted.transform(rows)).shape == rows.shape
    digits = load_digits()
    images = encoder(method="vae").fit(digits.images[:30])
    assert images.run_.card.bins == 17
    new = images.sample(3)
    assert new.shape == (3, 8, 8) and set(np.unique(new)) <= set(range(17))
    flat = encoder(method="vae", shape=(1, 8, 8)).fit(digits.data[:30])
    np.testing.assert_array_equal(flat.transform(digits.data[:30]), images.transform(digits.images[:30]))
    assert flat.sample(2).shape == (2, 64)


@pytest.mark.slow
def test_pickle_joblib_and_clone(rows, tmp_path):
    """A pickle holds weights as bytes of safetensors and works where the run is gone; a clone is not fitted."""
    fitted = encoder().fit(rows)
    z = fitted.transform(rows)
    whole, small = pickle.dumps(fitted), pickle.dumps(fitted.trim())
    assert len(small) < len(whole) / 2 and b"torch" not in small.split(b"_files")[0]
    joblib.dump(fitted, tmp_path / "a.joblib")
    for again in (pickle.loads(whole), pickle.loads(small), joblib.load(tmp_path / "a.joblib")):
        np.testing.assert_array_equal(again.transform(rows), z)
        assert again.history_ == fitted.history_
    assert not hasattr(clone(fitted), "run_") and clone(fitted).get_params() == fitted.get_params()
    with pytest.raises(UserError, match="trimmed"):
        fitted.partial_fit(rows)


@pytest.mark.slow
def test_partial_fit_goes_on_with_the_same_run(rows):
    """Twice a budget is one run of two budgets, on other rows too; other columns are a mistake."""
    fitted = encoder().partial_fit(rows[:30])
    place, first = fitted.run_.directory, fitted.transform(rows)
    again = pickle.loads(pickle.dumps(fitted)).partial_fit(rows[30:])
    fitted.partial_fit(rows[30:])
    assert fitted.run_.directory == place and fitted.history_[-1]["examples"] == 128
    assert np.abs(fitted.transform(rows) - first).max() > 1e-4
    np.testing.assert_array_equal(again.transform(rows), fitted.transform(rows))
    with pytest.raises(ValueError, match="features"):
        fitted.partial_fit(rows[:, :3])


@pytest.mark.slow
def test_partial_fit_takes_any_number_of_pictures():
    """The latent classes of the preconditioner are those of the first call, whatever later rows would allow."""
    pictures = np.random.default_rng(0).integers(0, 16, (500, 4, 4)).astype(np.uint8)
    few = encoder(budget="16ex").fit(pictures[:40])
    assert few.partial_fit(pictures).run_.card.facts().latent == 1 and few.history_[-1]["examples"] == 32
    many = pickle.loads(pickle.dumps(encoder(budget="16ex").fit(pictures)))
    assert many.partial_fit(pictures[:40]).run_.card.facts().latent == 3
    assert pickle.loads(pickle.dumps(many)).transform(pictures[:2]).shape == many.transform(pictures[:2]).shape


@pytest.mark.slow
def test_in_the_tools_of_scikit_learn(rows):
    """Pipeline, search, cross-validation, ColumnTransformer, pandas output: as any transformer."""
    y = (rows[:, 0] > 5).astype(int)
    searched = GridSearchCV(
        make_pipeline(encoder(method="vae"), LogisticRegression()), {"diffusionencoder__dim": [2, 3]}, cv=2
    ).fit(rows, y)
    assert searched.best_params_["diffusionencoder__dim"] in (2, 3)
    with joblib.parallel_config("threading", n_jobs=1):
        assert GridSearchCV(encoder(method="vae"), {"dim": [2]}, cv=2).fit(rows).best_score_ < 0  # by the bound
    assert len(cross_val_score(DiffusionClassifier(encoder()), rows, y, cv=2)) == 2
    table = pd.DataFrame(rows, columns=list("abcd"))
    both = ColumnTransformer([("code", encoder(), ["a", "b", "c"]), ("plain", StandardScaler(), ["d"])]).fit(table)
    assert both.set_output(transform="pandas").transform(table).columns[0] == "code__diffusionencoder0"
    assert list(encoder().fit(table).feature_names_in_) == list("abcd")


@pytest.mark.slow
def test_sparse_rows_are_the_dense_ones(rows):
    """A sparse matrix, made dense batch by batch, gives the codes of the same dense rows."""
    x = np.where(np.abs(rows - 5) > 1.5, rows, 0)
    dense, thin = encoder().fit(x), encoder().fit(sparse.csr_array(x))
    np.testing.assert_allclose(thin.transform(sparse.csr_array(x)), dense.transform(x), atol=1e-5)


@pytest.mark.slow
def test_a_mixed_table_comes_back_in_its_columns():
    """Words, dates, gaps, truth values: each is coded, and samples are a table of the same columns and types."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": rng.normal(40, 9, 80),
            "count": rng.integers(0, 9, 80),
            "town": rng.choice(["Bern", "Oslo", "Rome"], 80),
            "member": rng.random(80) > 0.5,
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, 80), "D"),
        }
    )
    table.loc[::7, "age"] = np.nan
    table.loc[::9, "town"] = None
    fitted = encoder(method="vae", budget="1000ex").fit(table)
    new = fitted.sample(50, random_state=1)
    assert list(new.columns) == list(table.columns) and new["count"].dtype == table["count"].dtype
    assert set(new["town"].dropna()) <= {"Bern", "Oslo", "Rome"} and set(new["member"]) <= {True, False}
    assert new["since"].between("2015", "2026").all() and 20 < new["age"].mean() < 60
    exact = fitted._form.restore(fitted._form.store(table).raw(torch.arange(80)).numpy())
    pd.testing.assert_frame_equal(exact, table, check_dtype=False, atol=1e-3)  # there and back, without a model
    stranger = table.assign(town="Paris")
    assert fitted.transform(stranger).shape == fitted.transform(table).shape
    with pytest.raises(ValueError, match="DataFrame"):
        fitted.transform(table.to_numpy())


@pytest.mark.slow
def test_few_labels_and_the_rest():
    """Rows marked -1 shape the code and not the classes; words are classes too, and None is no label."""
    digits = load_digits()
    x, y = digits.images[:300], digits.target[:300].copy()
    y[100:] = -1
    fitted = DiffusionClassifier(encoder(budget="600ex")).fit(x, y)
    assert fitted.score(x[100:], digits.target[100:300]) > 0.6  # by chance 0.1
    assert fitted.predict_proba(x[:5]).shape == (5, 10)
    np.testing.assert_array_equal(fitted.predict_proba(x[:50]).argmax(1), fitted.decision_function(x[:50]).argmax(1))
    words = np.array([None if k < 0 else f"digit {k}" for k in y], object)
    assert set(DiffusionClassifier(encoder()).fit(x, words).predict(x)) <= {f"digit {k}" for k in range(10)}
    with pytest.raises(ValueError, match="one class"):
        DiffusionClassifier(encoder()).fit(x[:20], np.where(y[:20] == 3, 3, -1))


@pytest.mark.slow
def test_mistakes_are_told_in_fit_alone(rows):
    """The constructor takes anything; fit says what is wrong."""
    with pytest.raises(UserError, match="Did you mean"):
        encoder(settings={"decoder.widht": 3}).fit(rows)
    with pytest.raises(UserError, match="shape of one example"):
        encoder(shape=(1, 3, 3)).fit(rows)
    with pytest.raises(UserError, match="levels"):
        fitted = encoder().fit(np.random.default_rng(0).integers(0, 9, (30, 4, 4)))
        fitted.transform(np.full((1, 4, 4), 12))
