"""Cells: AnnData and .h5ad as a table of genes by name; counts cut in two; codes back in obsm."""

import pickle
import subprocess  # noqa: F401  (slow: it trains)
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import diffrep
from diffrep import UserError, data
from diffrep.data import views
from diffrep.data.readers import cells as reader
from diffrep.data.values import counted
from diffrep.estimators import codes as estimator_codes
from diffrep.shapes import Batch, Draws
from runs_at_hand import diffrep as command
from runs_at_hand import one_sentence
from tiny import train

anndata = pytest.importorskip("anndata")
GENES = [f"G{i}" for i in range(40)]


def cells(n: int = 60, seed: int = 0, genes: list[str] | None = None):
    """Counts of two types of cells, sparse; types in obs."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)
    rates = rng.gamma(0.5, 4.0, (2, len(GENES)))
    counts = rng.poisson(rates[kind]).astype(np.float32)
    obs = pd.DataFrame({"cell_type": kind, "label": np.array(["B", "T"], object)[kind], "donor": rng.integers(0, 3, n)})
    obs.index = pd.Index([f"cell{i}" for i in range(n)], dtype=object)  # as anndata can write it
    made = anndata.AnnData(
        sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=pd.Index(genes or GENES, dtype=object))
    )
    made.obs["label"] = pd.Categorical.from_codes(kind, pd.Index(["B", "T"], dtype=object))
    return made


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    cells().write_h5ad(path)
    return path


def test_a_file_an_object_and_an_array_give_the_same_numbers(file):
    """Counts brought to 10,000 with log(1 + count), standardised over training; labels, names and factors of obs."""
    one, two = data.load(file), data.load(cells())
    rows = one.train.rows
    table = counted(cells().X.toarray().astype(np.float64))
    spread = table[rows].std(0)
    expected = (table - table[rows].mean(0)) / np.where(spread > 0, spread, 1)
    for splits in (one, two):
        x = splits.train.batch(torch.arange(len(rows))).x
        np.testing.assert_allclose(x, expected[rows], atol=1e-5)
        assert splits.train.label_names == ["B", "T"] and splits.train.ids[0] == f"cell{rows[0]}"
        assert splits.train.reading.counts and set(splits.train.factors) == {"cell_type", "donor"}


def test_a_layer_of_counts_is_read_before_x_and_another_by_its_name():
    """X is often scaled already; the guess is said."""
    some = cells()
    some.layers["counts"], some.X = some.X.copy(), some.X * 0.1
    splits = data.load(some)
    assert splits.train.reading.picture == "counts" and "read in place of X" in " ".join(splits.train.reading.doubts())
    with pytest.raises(UserError, match=r"unknown layer 'count'.*'counts'"):
        data.load(some, column="count")


def test_genes_are_found_by_name_and_missing_ones_named():
    """A run's genes in another order, beside others; one that is not there is named."""
    trained = data.load(cells()).train.reading.for_other()
    mixed = cells()[:, np.random.default_rng(0).permutation(40)].copy()
    same = data.whole(mixed, reading=trained)
    torch.testing.assert_close(
        same.batch(torch.arange(60)).x, data.whole(cells(), reading=trained).batch(torch.arange(60)).x
    )
    with pytest.raises(UserError, match=r"lacks 2 of the 40 genes of the training \(G38, G39\)"):
        data.whole(cells()[:, :38].copy(), reading=trained)
    with pytest.raises(UserError, match="has the gene 'G0' twice"):
        data.load(cells(genes=["G0", "G0", *GENES[2:]]))


def test_a_large_file_is_read_by_cells_and_gives_the_same(file, monkeypatch):
    """Mean, standard deviation, digests and numbers as in memory; the matrix is never loaded whole."""
    known = data.load(file)
    most = []
    numbers = reader.Rows.numbers
    monkeypatch.setattr(reader, "SMALL", 1)
    monkeypatch.setattr(reader, "LOOKED", 16)
    monkeypatch.setattr("diffrep.data.splits.AT_ONCE", 16)
    monkeypatch.setattr(reader.Rows, "numbers", lambda self, rows: most.append(len(rows)) or numbers(self, rows))
    lazy = data.load(file)
    assert lazy.train.lazy and max(most) <= 16
    assert lazy.train.fingerprint != "" and lazy.train.rows.tolist() == known.train.rows.tolist()
    order = torch.tensor([5, 2, 2, 9])
    torch.testing.assert_close(lazy.train.batch(order).x, known.train.batch(order).x, atol=1e-5, rtol=1e-5)
    one, two = (
        split.subset(torch.tensor([7, 3, 11])).subset(torch.tensor([2, 0])) for split in (lazy.train, known.train)
    )
    torch.testing.assert_close(*(s.batch(torch.arange(2)).x for s in (one, two)), atol=1e-5, rtol=1e-5)
    one, two = (data.whole(file, reading=s.train.reading.for_other()).batch(order).x for s in (lazy, known))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_a_file_that_is_open_is_read_by_cells_too(file, monkeypatch):
    """AnnData with backed="r": no more numbers of its matrix are read at a time than sixteen cells have."""
    h5py = pytest.importorskip("h5py")
    known, counts = data.load(file), anndata.read_h5ad(file).X
    most = int(np.sort(np.diff(counts.indptr))[-16:].sum())
    for name, small in (("SMALL", 1), ("LOOKED", 16)):
        monkeypatch.setattr(reader, name, small)
    monkeypatch.setattr("diffrep.data.splits.AT_ONCE", 16)
    read, take = [], h5py.Dataset.__getitem__

    def spied(self, *where, **how):
        got = take(self, *where, **how)
        read.append((self.name, np.size(got)))
        return got

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spied)
    for source in (file, anndata.read_h5ad(file, backed="r")):
        read.clear()
        lazy = data.load(source)
        some = torch.tensor([5, 2, 9])
        torch.testing.assert_close(lazy.train.batch(some).x, known.train.batch(some).x, atol=1e-5, rtol=1e-5)
        sizes = [n for name, n in read if name == "/X/data"]
        assert lazy.train.lazy and sizes and max(sizes) <= most < counts.nnz
        elsewhere = pickle.loads(pickle.dumps(lazy.train))  # as a process that starts anew gets it
        assert torch.equal(elsewhere.batch(some).x, lazy.train.batch(some).x)


def test_no_matrix_is_opened_but_the_one_that_is_read(tmp_path, monkeypatch):
    """The ends of rows of a large layer take gigabytes, and a layer stored by columns is loaded whole."""
    some, opened = cells(), []
    some.layers["counts"], some.layers["columns"] = some.X.copy(), some.X.tocsc()
    some.write_h5ad(tmp_path / "cells.h5ad")
    on_disk = reader.on_disk
    monkeypatch.setattr(reader, "on_disk", lambda m: opened.append(getattr(m, "name", None)) or on_disk(m))
    assert data.load(tmp_path / "cells.h5ad").train.reading.picture == "counts"
    assert {name for name in opened if name} == {"/layers/counts"}
    with pytest.raises(UserError, match=r"unknown layer 'colums'.*'columns'"):
        data.load(tmp_path / "cells.h5ad", column="colums")


@pytest.mark.parametrize("backed", [False, True])
def test_a_dense_matrix_is_read_by_cells_and_can_be_sent_to_another_process(backed, tmp_path, monkeypatch):
    """The same numbers as of the sparse one in memory, in this process and from its pickle."""
    dense = cells()
    known, dense.X = data.load(cells()), dense.X.toarray()
    path = tmp_path / "dense.h5ad"
    dense.write_h5ad(path)
    monkeypatch.setattr(reader, "SMALL", 1)
    lazy = data.load(anndata.read_h5ad(path, backed="r") if backed else path)
    some = torch.tensor([5, 2, 9])
    for split in (lazy.train, pickle.loads(pickle.dumps(lazy.train))):
        assert split.lazy
        torch.testing.assert_close(split.batch(some).x, known.train.batch(some).x, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_scanpy_takes_the_codes(file, tmp_path):
    """Its neighbours are those of scikit-learn on the codes, and its UMAP of them a place for each cell."""
    scanpy = pytest.importorskip("scanpy")
    from sklearn.neighbors import NearestNeighbors

    assert command("encode", train("vae-vdm", data=file).directory, file, "-o", tmp_path / "coded.h5ad") == 0
    coded = anndata.read_h5ad(tmp_path / "coded.h5ad")
    scanpy.pp.neighbors(coded, n_neighbors=6, use_rep="X_diffrep", random_state=0)
    codes = coded.obsm["X_diffrep"]
    near = NearestNeighbors(n_neighbors=6).fit(codes).kneighbors(codes)[1][:, 1:]
    found = coded.obsp["distances"]
    assert all(set(found[i].indices) == set(near[i]) for i in range(len(codes)))
    scanpy.tl.umap(coded, random_state=0, maxiter=20)
    assert coded.obsm["X_umap"].shape == (60, 2) and np.isfinite(coded.obsm["X_umap"]).all()


def test_an_estimator_reads_cells_as_its_settings_say():
    """data.* of its settings reach the reader: a batch for the decoder, codes without it, rows and scores with it."""
    how = {"decoder.width": 4, "encoder.width": 4, "data.covariate": "donor"}
    estimator = diffrep.DiffusionEncoder(dim=3, budget="64ex", random_state=0, verbose=0, settings=how).fit(cells())
    assert estimator.run_.card.how().covariates.keys() == {"0", "1", "2"}
    some = cells()
    codes, before = estimator.transform(some), estimator.score_samples(some)
    some.obs["donor"] = 2 - some.obs["donor"]
    np.testing.assert_array_equal(estimator.transform(some), codes)
    assert not np.allclose(estimator.score_samples(some), before)
    assert np.isfinite(estimator.sample(3)).all()
    shares = np.bincount(cells().obs["donor"])
    usual = torch.eye(3)[[int(shares.argmax())]]
    expected = estimator._back(estimator_codes.decoded(estimator.run_.model, codes, usual))
    np.testing.assert_array_equal(estimator.inverse_transform(codes), expected)  # of no value drawn by chance


def standardised(counts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    table = torch.from_numpy(counted(counts.astype(np.float64)))
    mean, std = table.mean(0), table.std(0).clamp(min=0.1)
    return ((table - mean) / std).float(), mean, std


def test_counts_are_found_again_from_what_a_model_sees():
    """Standardised logarithms in single precision -> whole numbers, for libraries of 20 to 200,000 counts."""
    rng = np.random.default_rng(0)
    for scale in (0.5, 5, 500):
        counts = rng.poisson(rng.gamma(0.5, scale, (30, 200)))
        counts[:, 0] = 1
        x, mean, std = standardised(counts)
        assert torch.equal(views.counts_of(x, mean, std), torch.from_numpy(counts).double())
    counts = np.array([[2, 3, 0], [4, 6, 8], [0, 0, 0]])
    x, mean, std = standardised(counts)
    assert views.counts_of(x, mean, std).tolist() == [[2, 3, 0], [2, 3, 4], [0, 0, 0]]  # up to a shared factor


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_two_parts_of_a_cell_make_it_and_are_independent(share, monkeypatch):
    """a + b = c; E a = s c, var a = s (1 - s) c (binomial); of Poisson counts the two parts have covariance 0."""
    counts = np.random.default_rng(0).poisson(3.0, (3000, 5)) * 1.0
    counts[:, 0] = 1
    x, mean, std = standardised(counts)
    monkeypatch.setattr(views, "_standardised", lambda part, *_: part)
    a, b = (part.double().numpy() for part in views.thinned(mean, std, share)(x, Draws.of(1)))
    assert np.array_equal(a + b, counts)
    a, b, c = (part[:, 1:] for part in (a, b, counts))
    np.testing.assert_allclose(a.mean(), 3 * share, atol=0.03)
    np.testing.assert_allclose(((a - share * c) ** 2).mean(), share * (1 - share) * c.mean(), rtol=0.05)
    assert abs(np.mean((a - a.mean(0)) * (b - b.mean(0)))) < 0.05


def test_a_part_of_a_batch_is_cut_as_in_the_whole():
    """Two processes see what one would have seen."""
    counts = np.random.default_rng(0).poisson(2.0, (8, 30)) + (np.arange(30) == 0)
    x, mean, std = standardised(counts)
    split = views.thinned(mean, std, 0.5)
    whole = split(x, Draws.of(3))[0]
    parts = [split(x[4 * i : 4 * i + 4], Draws.of(3, shard=i, shards=2))[0] for i in range(2)]
    assert torch.equal(torch.cat(parts), whole)


def test_soda_makes_one_part_of_a_cell_from_the_code_of_the_other(file):
    """The encoder and the decoder see different numbers, and together those of the cell; views.thin=0 shows all."""
    run = train("soda", data=file)
    x = run.splits().train.batch(torch.arange(6)).x
    shown = {}
    model = run.model
    handle = model.posterior.encoder.register_forward_pre_hook(lambda _, given: shown.update(encoder=given[0]))
    step = model.noised(Batch(x, torch.arange(6), draws=Draws.of(0)))
    handle.remove()
    assert not torch.allclose(step.x, shown["encoder"]) and not torch.allclose(step.x, x)
    mean, std = run.card.counts()
    parts = [views.counts_of(part, mean, std) for part in (step.x, shown["encoder"])]
    assert (sum(parts) <= views.counts_of(x, mean, std) + 1e-9).float().mean() > 0.9
    whole = train("soda", "views.thin=0.0", data=file).model
    assert whole.split is None and whole.view is not None


def test_codes_come_back_in_obsm(file, tmp_path, capsys):
    """All else of the file stays; the codes are those of the model; the file may be the same."""
    run = train("vae-vdm", data=file)
    out = tmp_path / "coded.h5ad"
    assert command("encode", run.directory, file, "-o", out) == 0
    came, was = anndata.read_h5ad(out), anndata.read_h5ad(file)
    np.testing.assert_allclose(came.obsm["X_diffrep"], run.encode(was).mean.numpy(), atol=1e-5)
    assert (came.X != was.X).nnz == 0 and came.obs.equals(was.obs)
    assert command("encode", run.directory, out, "-o", out, "--obsm", "X_again") == 0
    again = anndata.read_h5ad(out)
    assert set(again.obsm) == {"X_diffrep", "X_again"}
    np.testing.assert_allclose(again.obsm["X_again"], came.obsm["X_diffrep"], atol=1e-6)
    capsys.readouterr()
    assert command("encode", run.directory, "digits", "-o", tmp_path / "no.h5ad") == 2
    assert "takes one code for each cell" in one_sentence(capsys)


def test_an_estimator_takes_cells():
    """AnnData as X, genes matched by name in transform; rows come back as counts of those genes."""
    estimator = diffrep.DiffusionEncoder(
        dim=3, budget="64ex", random_state=0, verbose=0, settings={"decoder.width": 4, "encoder.width": 4}
    ).fit(cells())
    codes = estimator.transform(cells()[:, ::-1].copy())
    np.testing.assert_allclose(codes, estimator.transform(cells()), atol=1e-5)
    assert codes.shape == (60, 3) and estimator.n_features_in_ == 40
    table = estimator.run_.restore(estimator.run_.model.sample(2, steps=2))
    assert table.column_names == GENES
