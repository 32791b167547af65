"""Callbacks hear a run, and may end it; patience ends it when the validation split no longer gains."""

import signal

import pytest
import torch

import diffrep

pytestmark = pytest.mark.slow

QUICK = ("train.batch=16", "train.log_every=1", "decoder.width=4", "encoder.width=4")
X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).numpy()


class Ear:
    """Notes what it hears, and stops or interrupts at a step."""

    def __init__(self, stop=None, interrupt=None):
        self.steps, self.ended, self.stop, self.interrupt = [], [], stop, interrupt

    def on_log(self, line):
        self.steps.append(line["step"])
        if line["step"] == self.stop:
            raise diffrep.Stop("enough")
        if line["step"] == self.interrupt:
            signal.raise_signal(signal.SIGINT)

    def on_end(self, run):
        self.ended.append(run)


def test_callbacks_hear_every_line_and_the_end(tmp_path):
    """One call for each logged step, one for the run; an object with neither is a mistake, told at once."""
    ear = Ear()
    run = diffrep.train(X, tmp_path / "a", "vae", "64ex", QUICK, callbacks=[ear])
    assert ear.steps == [1, 2, 3, 4] and ear.ended == [run]
    with pytest.raises(diffrep.UserError, match="no callback"):
        diffrep.train(X, tmp_path / "b", "vae", "64ex", QUICK, callbacks=[3])
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
@pytest.mark.parametrize("ear", [Ear(stop=2), Ear(interrupt=2)])
def test_a_stopped_run_is_usable_and_goes_on(ear, tmp_path):
    """Stopped by a callback or by Ctrl-C, as in a notebook: the run encodes at once, and the same call continues."""
    run = diffrep.train(X, tmp_path / "a", "vae", "64ex", QUICK, callbacks=[ear])
    assert run.result.step == (2 if ear.stop else 3)  # Ctrl-C between two steps counts at the next
    assert run.result.interrupted == (ear.stop is None) and len(ear.ended) == 1
    loaded = diffrep.load(tmp_path / "a")
    assert loaded.model.encode(torch.zeros(2, 4)).mean.shape == (2, 32)
    assert diffrep.train(X, tmp_path / "a", "vae", "64ex", QUICK).result.step == 4


def test_patience_ends_a_run_that_no_longer_gains(tmp_path):
    """At a learning rate of next to nothing the validation bound moves by less than the first line's, so it ends; a
    run that learns goes on."""
    still = diffrep.train(X, tmp_path / "a", "ae", "3200ex", (*QUICK, "train.patience=3", "train.lr=1e-30"))
    assert still.result.step == 4 and not still.result.interrupted  # the first line is the best, three do not gain
    learns = diffrep.train(X, tmp_path / "b", "vae", "160ex", (*QUICK, "train.patience=5"))
    assert learns.result.step == 10


def test_a_loop_of_ones_own():
    """`model.loss(batch)` and an optimiser suffice: the loss falls."""
    from diffrep import Batch, Draws, Facts, build, settings

    model = build(settings("method=vae", *QUICK), Facts(shape=(4,), bins=None))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for step in range(40):
        batch = Batch(torch.from_numpy(X), torch.arange(len(X)), draws=Draws.of(step))
        loss = sum(model.loss(batch).values()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < sum(losses[:5])
