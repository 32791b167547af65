"""Settings: what is read is what was written, and every mistake is one sentence that names the setting."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from diffrep.budget import Budget
from diffrep.config import Settings, load, names, override, stated, value
from diffrep.errors import UserError
from diffrep.files import sealed
from diffrep.older_settings import NEWER, VERSION


def test_saved_settings_come_back(tmp_path):
    """A run directory holds all that defines the run."""
    settings = override(Settings(), ["train.lr=3e-4", "decoder.multipliers=[1, 2]", "code.rate=10", "train.clip=none"])
    (tmp_path / "config.json").write_bytes(sealed(stated(settings)))
    assert load(tmp_path / "config.json") == settings
    assert settings.train.lr == 3e-4 and settings.decoder.multipliers == (1, 2)
    assert settings.code.rate == 10 and settings.train.clip is None


def test_toml_is_partial_and_changes_win(tmp_path):
    """A file states what differs; the command line has the last word."""
    path = tmp_path / "a.toml"
    path.write_text('method = "vdrl"\n[train]\nbatch = 64\nlr = 1e-3\n')
    settings = load(path, ["train.batch=32"])
    assert (settings.method, settings.train.batch, settings.train.lr) == ("vdrl", 32, 1e-3)
    assert settings.code == Settings().code


def test_every_setting_is_described_and_none_can_be_changed_in_place():
    """The descriptions are the reference of the settings; a frozen object can be shared."""
    assert all(names().values()) and "train.lr" in names()
    with pytest.raises(ValidationError):
        Settings().train.lr = 1.0


def test_text_stays_text():
    """A folder may be called 2024 or true; a method's name needs no quotes."""
    assert override(Settings(), ["data.source=2024"]).data.source == "2024"
    assert override(Settings(), ["data.source='a b'"]).data.source == "a b"
    assert override(Settings(), ["method=vdrl", "train.precision=bf16"]).train.precision == "bf16"


@pytest.mark.parametrize(
    "change, words",
    [
        ("train.lrr=1", ["unknown setting 'train.lrr'", "Did you mean 'train.lr'?"]),
        ("trian.batch=1", ["Did you mean 'train.batch'? `diffrep settings` lists all."]),
        ("width=8", ["Did you mean 'decoder.width' or 'encoder.width'?"]),
        ("code.dimm=8", ["unknown setting 'code.dimm'. Did you mean 'code.dim'? `diffrep settings` lists all."]),
        ("train=3", ["unknown setting 'train'"]),
        ("train.lr=-1", ["'train.lr'", "greater than 0", "got -1"]),
        ("train.lr=fast", ["'train.lr'", "number", "got 'fast'"]),
        ("train.batch=1.5", ["'train.batch'", "integer", "got 1.5"]),
        ("train.batch=true", ["'train.batch'", "integer"]),
        ("code.l1=nan", ["'code.l1'", "finite"]),
        ("decoder.kind=unett", ["'decoder.kind'", "'unet'", "got 'unett'"]),
        ("decoder.multipliers=[1,0]", ["'decoder.multipliers.1'", "got 0"]),
        ("train.budget=5", ["'train.budget'", "20000ex"]),
        ("noise.sigma_min=60", ["'noise'", "sigma_min below sigma_max"]),
        ("data.valid=0.9", ["'data'", "valid + test below 1"]),
        ("train.lr", ["name=value"]),
    ],
)
def test_mistakes_are_one_sentence(change, words):
    """What was expected, what came, what to do; no stack of the validator."""
    with pytest.raises(UserError) as error:
        override(Settings(), [change])
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, text", [("a.toml", "[train\n"), ("a.json", "{"), ("b.json", "[]"), ("c.toml", "[train]\nlrr = 1\n")]
)
def test_bad_files_are_named(tmp_path, name, text):
    """A file that cannot be parsed, or holds an unknown setting, is the user's to mend."""
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError):
        load(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    "text, amount, unit",
    [
        ("120s", 120, "seconds"),
        ("10m", 600, "seconds"),
        ("1.5h", 5400, "seconds"),
        ("20000ex", 20000, "examples"),
        ("2e4ex", 20000, "examples"),
        ("3epochs", 3, "epochs"),
        ("1 epoch", 1, "epochs"),
        ("0.5epochs", 0.5, "epochs"),
    ],
)
def test_budgets_are_read(text, amount, unit):
    """The three units of the command line."""
    assert Budget.parse(text) == Budget(amount, unit)


@pytest.mark.parametrize("text", ["", "120", "s", "-3s", "0ex", "0s", "3 days", "1ex2", "nan s", "0.5ex"])
def test_bad_budgets_say_what_is_accepted(text):
    """A number without a unit is ambiguous, nothing at all is no budget."""
    with pytest.raises(UserError, match="120s"):
        Budget.parse(text)


@given(st.integers(1, 10_000), st.integers(1, 300))
def test_a_budget_in_examples_is_spent_to_the_last(amount, batch):
    """Steps of any size add up to the budget, never past it, and progress ends at 1."""
    budget, seen = Budget(amount, "examples"), 0
    while budget.progress(examples=seen, seconds=0.0) < 1:
        seen += budget.take(batch, examples=seen)
    assert seen == amount


def test_epochs_become_examples():
    """Three epochs of 70 examples are 210 examples; other budgets do not depend on the data."""
    assert Budget.parse("3epochs").of(70) == Budget(210, "examples")
    assert Budget.parse("9s").of(70) == Budget.parse("9s")
    assert Budget.parse(str(Budget.parse("10m"))) == Budget.parse("10m")


def test_a_run_of_the_first_version_means_what_it_meant(tmp_path):
    """A file that states every setting of 0.1.0 and none that came later is read as that version would have; a person's
    own file, which states a few, gets the defaults of today."""
    whole = json.loads(Settings().model_dump_json())
    for name in NEWER:
        section, last = name.split(".")
        del whole[section][last]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(whole))
    old = load(path)
    assert {name: value(old, name) for name in NEWER} == NEWER
    between = json.loads(Settings().model_dump_json())  # a later version, whose decoders had no patches
    del between["decoder"]["patch"]
    path.write_text(json.dumps(between))
    assert load(path) == override(Settings(), ["decoder.patch=1"])
    wide = json.loads(Settings(method="vae-vdm").model_dump_json())  # that version held 12 nats in codes of any size
    del wide["noise"]["sigma_0"]
    for dim, changes, rate in (
        (64, {}, 12.0),
        (None, {}, 12.0),
        (32, {}, None),
        (64, {"beta": 1.0}, None),
        (64, {"rate": 5.0}, 5.0),
    ):
        path.write_text(json.dumps({**wide, "code": {**wide["code"], "dim": dim, **changes}}))
        assert load(path).code.rate == rate
    for version, rate in ((2, 18.0), (VERSION, None)):  # the second version held 18 nats in wide codes
        path.write_text(json.dumps({"version": version, **json.loads(Settings(method="vae-vdm").model_dump_json())}))
        assert load(path).code.rate == rate
    path.write_text(json.dumps({"decoder": {"draw_code": False}}))
    assert load(path).decoder == Settings().decoder.model_copy(update={"draw_code": False})
    few = {"decoder": {"draw_code": False}, "train": {"ema": 0.9}}  # a user's own, with none of the other sections
    path.write_text(json.dumps(few))
    assert load(path) == override(Settings(), ["decoder.draw_code=false", "train.ema=0.9"])
    path.write_text(json.dumps({**few, "code": 3}))
    with pytest.raises(UserError, match="'code'"):
        load(path)
    path.write_bytes(sealed(stated(Settings())))
    assert load(path) == Settings()


@pytest.mark.parametrize(
    "method, detail, prior",
    [
        ("drl", "uniform", "auto"),
        ("tdrl", "uniform", "auto"),
        ("vdrl", "uniform", "normal"),
        ("tvdrl", "uniform", "auto"),  # of which a standard normal is still made
        ("diffae", "uniform", "auto"),
        ("soda", "uniform", "auto"),
        ("vae-vdm", "auto", "mixture"),
        ("ddpm", "auto", "auto"),
    ],
)
def test_what_auto_was_in_the_first_version(method, detail, prior, tmp_path):
    """The methods of 0.1.0 as they stood in it: uniform times, a mixture for vae-vdm alone, and nothing of what came
    later. Categories had a prior of their own."""
    whole = json.loads(Settings(method=method).model_dump_json())
    for section, last in (
        ("decoder", "observe_code"),
        ("decoder", "by_place"),
        ("decoder", "patch"),
        ("code", "detail"),
        ("views", "thin"),
    ):
        del whole[section][last]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(whole))
    old = load(path)
    assert (old.detail, old.prior.kind) == (detail, prior)
    assert (old.decoder.observe_code, old.decoder.by_place, old.decoder.patch) == (False, False, 1)
    assert (old.code.detail, old.views.thin) == ("decoder", 0.0)
    whole["code"]["kind"] = "categorical"
    path.write_text(json.dumps(whole))
    assert load(path).prior.kind == "auto"
