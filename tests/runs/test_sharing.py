"""A run is handed on as safetensors and JSON with a card; what others hand on is read without trust."""

import json
import pickle
import re
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import diffrep
from diffrep import runs
from diffrep.files import unsealed
from diffrep.older_settings import VERSION
from diffrep.runs import sharing
from runs_at_hand import content, one_sentence, run_of
from runs_at_hand import diffrep as command
from tiny import FOLDER, base, source, weights

OLD = Path(__file__).parent / "run-0.1.0"  # made by the commit before settings had versions


class Boom:
    """A pickle that says so when it is read."""

    def __reduce__(self):
        return (open, (str(Path("/tmp/diffrep-was-here")), "w"))


@cache
def measured() -> Path:
    """A folder with a run of three steps, measured, and the same as it is handed on."""
    place = Path(mkdtemp(dir=FOLDER))
    run = shutil.copytree(base("vae-vdm").directory, place / "run")
    assert command("evaluate", run, "--levels", "1") == 0
    diffrep.load(run).save_pretrained(place / "shared")
    return place


@pytest.fixture
def handed_on(tmp_path, capsys) -> Path:
    """A run of three steps, measured, as others get it."""
    shutil.copytree(measured(), tmp_path, dirs_exist_ok=True)
    capsys.readouterr()
    return tmp_path / "shared"


def test_what_is_handed_on_is_loaded_and_encodes_the_same(handed_on):
    """Elsewhere, under another name; a card states the numbers and how they were got."""
    x = torch.rand(3, 1, 4, 4).round() - 0.5
    moved = handed_on.rename(handed_on.with_name("moved"))
    again = runs.load(moved)
    assert torch.equal(again.model.encode(x).mean, runs.load(base("vae-vdm").directory).model.encode(x).mean)
    assert {file.suffix for file in moved.iterdir()} == {".safetensors", ".json", ".md"}
    card, metrics = (moved / "README.md").read_text(), json.loads((moved / "metrics.json").read_text())
    assert f"{metrics['bound']['bits_per_dim']:.4f} +- " in card and f"{metrics['protocol']}: an upper bound" in card
    assert f"{metrics['probes']['linear']:.4f}" in card and "library_name: diffrep" in card
    assert again.splits is not None and metrics["weights"] == sharing.records.weights_digest(weights(again))


def test_no_path_of_this_machine_is_handed_on(handed_on):
    """The folder of a user's home is nobody's business; the name of a file is kept."""
    for name, text in content(handed_on).items():
        assert str(source().parent).encode() not in text, name
    assert json.loads((handed_on / "config.json").read_text())["data"]["source"] == source().name
    assert json.loads((handed_on / "data.json").read_text())["known"] is None


def test_data_that_moved_is_named_again_and_checked(handed_on, tmp_path):
    """The fingerprint says whether it is the data of the training."""
    there = runs.load(handed_on, data=str(source())).splits()
    assert len(there.train) == 48
    with pytest.raises(diffrep.UserError, match="fingerprint"):
        runs.load(handed_on, data=str(source(test=1))).splits()


def test_handing_on_twice_is_no_mistake_and_other_files_are_not_touched(handed_on, tmp_path):
    """A card is written over; a folder of other things is left alone."""
    before = content(handed_on)
    runs.load(handed_on).save_pretrained(handed_on)
    assert {name: text for name, text in content(handed_on).items() if name != "README.md"} == {
        name: text for name, text in before.items() if name != "README.md"
    }
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("keep")
    with pytest.raises(diffrep.UserError, match="holds other things"):
        base("vae-vdm").save_pretrained(tmp_path / "thesis")
    assert content(tmp_path / "thesis") == {"chapter.tex": b"keep"}


def _pickled(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(pickle.dumps(Boom()))


def _pickled_below(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "pytorch_model.bin").write_bytes(pickle.dumps(Boom()))


def _pickle_as_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Boom()))


def _linked(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere.json")
    (folder / "data.json").rename(elsewhere)
    (folder / "data.json").symlink_to(elsewhere)


def _linked_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent, target_is_directory=True)


def _other_shape(folder: Path) -> None:
    text = json.dumps(unsealed(folder / "config.json"))
    (folder / "config.json").write_text(re.sub(r'"dim": 4', '"dim": 6', text))


def _not_installed(folder: Path) -> None:
    text = json.dumps(unsealed(folder / "config.json"))
    (folder / "config.json").write_text(text.replace('"vae-vdm"', '"antigravity:fly"'))
    (folder / "antigravity.json").write_text("{}")


def _newer(folder: Path) -> None:
    facts = unsealed(folder / "config.json")
    (folder / "config.json").write_text(json.dumps({**facts, "version": VERSION + 1, "later": 1}))


def _foreign(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["BertModel"], "hidden_size": 768}')


def _foreign_weights(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, folder / "model.safetensors")


WRONG = [
    (_pickled, "holds model.pkl, which could run code"),
    (_pickled_below, "holds more/pytorch_model.bin, which could run code"),
    (_pickle_as_weights, "is not a whole file of diffrep"),
    (_linked, "data.json is a link that leads out of"),
    (_linked_folder, "more is a link that leads out of"),
    (_other_shape, "weights of another model: expected"),
    (_not_installed, "install the package 'antigravity'"),
    (_newer, "written by a newer diffrep .* pip install -U diffrep"),
    (_foreign, "is of another library"),
    (_foreign_weights, "holds tensors of another library"),
]


@pytest.mark.parametrize("spoil, said", WRONG, ids=[spoil.__name__.strip("_") for spoil, _ in WRONG])
def test_what_cannot_be_trusted_is_refused_in_one_sentence(spoil, said, handed_on):
    """Nothing is imported, nothing is run, nothing outside of the folder is read."""
    import sys

    spoil(handed_on)
    Path("/tmp/diffrep-was-here").unlink(missing_ok=True)
    with pytest.raises(diffrep.UserError, match=said) as refused:
        runs.load(handed_on)
    assert "\n" not in str(refused.value)
    assert not Path("/tmp/diffrep-was-here").exists() and "antigravity" not in sys.modules


class Hub:
    """The hub as a folder: what `HfApi` does, without a network."""

    def __init__(self, root: Path):
        self.root, self.asked, self.listed = root, [], None

    def __call__(self, token=None):
        return self

    def create_repo(self, name, private=None, exist_ok=False):
        (self.root / name).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://hub/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message, delete_patterns):
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def model_info(self, name, revision=None):
        names = self.listed or [str(f.relative_to(self.root / name)) for f in (self.root / name).rglob("*")]
        if not (self.root / name).is_dir():
            raise RuntimeError("404: no such model.\nmore lines")
        return SimpleNamespace(sha="abc", siblings=[SimpleNamespace(rfilename=n) for n in names])

    def snapshot_download(self, repo_id, allow_patterns, revision=None, local_files_only=False):
        self.asked.append((repo_id, revision, tuple(allow_patterns)))
        blobs, folder = (self.root / "cache" / part for part in ("blobs", "snapshots/abc"))
        folder.mkdir(parents=True, exist_ok=True)
        blobs.mkdir(exist_ok=True)
        for name in allow_patterns:
            if (self.root / repo_id / name).exists() and not (folder / name).exists():
                shutil.copy(self.root / repo_id / name, blobs / name)
                (folder / name).symlink_to(Path("../../blobs") / name)  # as the hub's cache has it
        return str(folder)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", made)
    monkeypatch.chdir(tmp_path)
    return made


def test_a_run_goes_to_the_hub_and_comes_back(hub):
    """The same codes from the cache of links that the hub's client keeps; only files of a run are asked for."""
    run = base("vae-vdm")
    assert run.push_to_hub("me/codes") == "https://hub/me/codes"
    back = diffrep.load("me/codes")
    x = torch.rand(2, 1, 4, 4) - 0.5
    assert torch.equal(back.model.encode(x).mean, runs.load(run.directory).model.encode(x).mean)
    assert hub.asked == [("me/codes", "abc", sharing.HOLDS)]


@pytest.mark.parametrize(
    "odd", ["model.pkl", "../config.json", "/etc/passwd", "a\\..\\b.json", "C:/x.json", "run.py", "A.PKL"]
)
def test_a_list_of_files_that_is_not_harmless_is_refused_before_anything_is_fetched(odd, hub):
    """The list comes first, the files after it."""
    base("vae-vdm").push_to_hub("me/codes")
    hub.listed = ["config.json", odd]
    with pytest.raises(diffrep.UserError, match=r"could run code|leads out of it"):
        diffrep.load("me/codes")
    assert hub.asked == []


def test_the_hub_that_has_no_such_run_or_refuses_says_so(hub, monkeypatch):
    """One sentence, of the first line of what the client says; a folder here is never looked for there."""
    with pytest.raises(diffrep.UserError, match=r"no run me/nothing here, .*404: no such model\)"):
        diffrep.load("me/nothing")
    with pytest.raises(diffrep.UserError, match="is no name of the hub"):
        base("vae-vdm").push_to_hub("nothing")
    monkeypatch.setattr(hub, "upload_folder", lambda **_: (_ for _ in ()).throw(RuntimeError("401 Unauthorized")))
    with pytest.raises(diffrep.UserError, match=r"does not take me/codes \(401 Unauthorized\)"):
        base("vae-vdm").push_to_hub("me/codes")
    Path("runs").mkdir()
    with pytest.raises(diffrep.UserError, match="runs/a is not a run"):
        diffrep.load("runs/a")


def test_a_command_that_leaves_a_run_as_it_is_takes_one_of_the_hub(hub, capsys):
    """The same codes as of the run itself; a command that would write into the cache of the hub is refused."""
    run = base("vae-vdm")
    run.push_to_hub("me/codes")
    for place, out in (("me/codes", "hub"), (run.directory, "here")):
        assert command("encode", place, source(), "-o", f"{out}.parquet") == 0
        assert command("sample", place, "-n", 2, "--steps", 2, "-o", f"{out}.npy") == 0
    assert pq.read_table("hub.parquet").equals(pq.read_table("here.parquet"))
    assert np.array_equal(np.load("hub.npy"), np.load("here.npy"))
    capsys.readouterr()
    assert command("evaluate", "me/codes") == 2
    assert 'copy one of the hub first, with diffrep.load("me/codes").save_pretrained("codes")' in one_sentence(capsys)


def test_without_a_network_what_was_fetched_is_used(hub, monkeypatch):
    """A train journey is no reason to stop working."""
    base("vae-vdm").push_to_hub("me/codes")
    diffrep.load("me/codes")
    monkeypatch.setattr(hub, "model_info", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("offline")))
    assert diffrep.load("me/codes").settings.method == "vae-vdm"


def test_a_run_of_version_0_1_0_loads_and_encodes_as_it_did():
    """Numbers that its own version printed; it is handed on as a run of today, with what its settings meant."""
    run = runs.load(OLD)
    expected = [
        [-0.5900916457176208, -0.27855390310287476, 0.19195261597633362],
        [-0.3277277946472168, -0.559358537197113, -0.18116897344589233],
    ]
    np.testing.assert_allclose(run.model.encode(torch.eye(5)[:2]).mean, expected, rtol=1e-5)
    assert run.settings.prior.kind == "mixture" and run.settings.decoder.observe_code is False


def test_a_migrated_run_stays_what_it_was_when_it_is_handed_on(tmp_path):
    """The new file states version and meaning, so nothing is migrated twice."""
    folder = runs.load(OLD).save_pretrained(tmp_path / "again")
    assert json.loads((folder / "config.json").read_text())["version"] == VERSION
    assert runs.load(folder).settings == runs.load(OLD).settings


def test_run_of_keeps_a_training_directory_as_it_is():
    """A pickle that its owner put beside a run of his own is nobody's danger: it is never read."""
    run = run_of("vae-vdm")
    (run / "notes.pkl").write_bytes(pickle.dumps([1]))
    try:
        assert runs.load(run).settings.method == "vae-vdm"
    finally:
        (run / "notes.pkl").unlink()
