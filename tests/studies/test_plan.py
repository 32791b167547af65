"""Studies as they are written down: every combination once, and each mistake one sentence."""

from pathlib import Path

import pytest

from diffrep.config import override
from diffrep.errors import UserError
from diffrep.methods.parts import Facts
from diffrep.studies import plan

FACTS = Facts((1, 8, 8), 17)
SMALL = ["decoder.width=4", "encoder.width=4"]
STUDY = {
    "name": "s",
    "budget": "64ex",
    "seeds": [0, 1],
    "set": SMALL,
    "runs": [{"name": "A code", "method": "vae-vdm"}],
}


def with_(**changes) -> dict:
    return {**STUDY, **changes}


def run(**changes) -> dict:
    return with_(runs=[{**STUDY["runs"][0], **changes}])


MISTAKES = {
    "Did you mean 'seeds'": with_(seed=[1]),
    "Did you mean 'method'": run(metod="drl"),
    "Did you mean 'bound'": with_(measure=["bond"]),
    "budget is missing": {k: v for k, v in STUDY.items() if k != "budget"},
    "runs.0.method is missing": with_(runs=[{"name": "a"}]),
    "120s": with_(budget="10"),
    "write seeds = ...": run(set=["seed=4"]),
    "write budget = ...": with_(set=["train.budget=4s"]),
    "runs.0.twin: expected a valid boolean": run(twin="maybe"),
    "two runs have one name": with_(runs=[*STUDY["runs"], {"name": "a  code", "method": "drl"}]),
    "axes.decoder": with_(axes={"decoder": {}}),
}


@pytest.mark.parametrize("said", MISTAKES)
def test_mistakes_are_one_sentence(said):
    """What is wrong stands in it, with the nearest right name, and nothing of the library that found it."""
    with pytest.raises(UserError) as caught:
        plan.plan(MISTAKES[said], "x.toml")
    text = str(caught.value)
    assert said in text and text.startswith("x.toml: ") and "\n" not in text and "pydantic" not in text


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"method": "vae_vdm"}, "Did you mean 'vae-vdm'"),
        ({"set": ["code.rte=1"]}, "Did you mean 'code.rate'"),
        ({"set": ["decoder.width=wide"]}, "decoder.width"),
        ({"method": "vae", "twin": True}, "vae has no twin"),
    ],
)
def test_mistakes_in_settings_are_told_before_anything_is_trained(changes, said):
    """Every model is built once when the study is read; the first training may be hours later."""
    with pytest.raises(UserError, match=said):
        plan.expand(plan.plan(run(**changes)), FACTS)


def test_files_that_cannot_be_read(tmp_path):
    """No file, no TOML: one sentence each, with the name of the file."""
    (tmp_path / "bad.toml").write_text("name = ")
    for name, said in (("none.toml", "cannot be read"), ("bad.toml", "not valid TOML")):
        with pytest.raises(UserError, match=f"{name} .*{said}"):
            plan.read(tmp_path / name)


def test_the_grid_is_whole():
    """2 runs x 3 x 2 choices x 2 seeds; settings of study, axes and run all hold, the run's last."""
    axes = {
        "decoder": {"s": ["decoder.width=8"], "m": ["decoder.width=12"], "l": ["decoder.width=16"]},
        "code": {"short": ["code.dim=8"], "long": ["code.dim=16"]},
    }
    runs = [{"name": "one", "method": "drl"}, {"name": "two", "method": "ae", "set": ["code.dim=4"]}]
    planned = plan.expand(plan.plan(with_(runs=runs, axes=axes, data="somewhere")), FACTS)
    assert len({p.folder for p in planned}) == len(planned) == 24
    found = {p.folder: p.settings for p in planned}
    assert found["one-m-long-seed1"].decoder.width == 12 and found["one-m-long-seed1"].code.dim == 16
    assert found["two-m-long-seed1"].code.dim == 4 and found["two-m-long-seed1"].encoder.width == 4
    assert {(s.data.source, s.train.budget) for s in found.values()} == {("somewhere", "64ex")}


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": {"rate": {"<5": ["code.rate=4"], ">5": ["code.rate=6"]}}},
        {"runs": [{"name": "a", "method": "drl", "twin": True}, {"name": "a twin", "method": "ddpm"}]},
        {
            "runs": [{"name": "a", "method": "vae-vdm"}, {"name": "a b", "method": "vae-vdm"}],
            "axes": {"x": {"b c": [], "c": []}},
        },
    ],
)
def test_runs_that_would_share_a_folder_are_told(changes):
    """Of two runs in one folder one would be lost without a word."""
    with pytest.raises(UserError, match="would share the folder"):
        plan.expand(plan.plan(with_(**changes)), FACTS)


@pytest.mark.slow
def test_each_run_has_the_twin_of_its_seed_and_equal_twins_are_one():
    """Two prices of one model leave the same model without a code, which is trained once."""
    runs = [{"name": n, "method": "vae-vdm", "set": [f"code.rate={n}"], "twin": True} for n in ("5.0", "9.0")]
    planned = plan.expand(plan.plan(with_(runs=runs)), FACTS)
    assert [p.code for p in planned].count(False) == 2  # one for each seed
    by = {p.folder: p for p in planned}
    for p in planned:
        if p.code:
            assert by[p.twin].settings.seed == p.settings.seed
            assert by[p.twin].settings.method == "vdm"
    assert by["5.0-seed0"].settings == override(by["9.0-seed0"].settings, ["code.rate=5.0"])


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "studies").glob("*.toml")), ids=lambda p: p.stem)
def test_the_studies_of_the_project_can_be_read(path):
    """Names and settings change; a study that is broken by that would be found when someone waits for it."""
    study = plan.read(path, data="digits")
    axes = {axis: dict([*choices.items()][:1]) for axis, choices in study.axes.items()}
    few = study.model_copy(update={"seeds": study.seeds[:1], "axes": axes})
    assert len(plan.expand(few, FACTS)) >= len(study.runs)
