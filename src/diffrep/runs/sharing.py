"""A run to hand on: a folder of safetensors and JSON with a card, here or on the Hugging Face hub; and one received."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from diffrep import config
from diffrep.errors import UserError, reason_of
from diffrep.files import sealed, write_bytes
from diffrep.runs import model_card, records
from diffrep.runs.card import DATA
from diffrep.runs.directory import METHOD, SETTINGS
from diffrep.runs.records import RESULTS, WEIGHTS

if TYPE_CHECKING:
    from diffrep.runs.run import Run

CARD = "README.md"
HOLDS = (DATA, WEIGHTS, METHOD, *RESULTS, CARD, SETTINGS)  # all that is handed on; the last makes it a run
RUNS_CODE = {
    ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".dill", ".npy", ".h5", ".py", ".pyc", ".so", ".dll",
}  # fmt: skip
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # of the hub


def save(run: Run, folder: str | Path) -> Path:
    """Write a run as others may have it: without checkpoints, journal and paths of this machine.

    Each file is whole or absent, and the folder is no run before all are there. UserError: a folder that holds
    something else.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder for the run.")
    odd = sorted(file.name for file in folder.iterdir() if file.name not in HOLDS) if folder.is_dir() else []
    if odd:
        raise UserError(f"{folder} holds other things than a run to hand on, such as {odd[0]}: name a new folder.")
    for name, content in contents(run).items():
        write_bytes(folder / name, content)
    return folder


def contents(run: Run) -> dict[str, bytes]:
    """Name -> content of what is handed on, `config.json` last; `known` examples and places of data stay here."""
    reading = None if run.card.reading is None else {**run.card.reading, "place": ""}
    files: dict[str, Any] = {DATA: asdict(replace(run.card, reading=reading, known=None))}
    if (run.directory / METHOD).is_file():
        files[METHOD] = records.read(run.directory / METHOD)
    files |= {name: facts for name, facts in records.current(run.directory).items() if facts}
    files[SETTINGS] = config.stated(run.settings)
    texts = {name: sealed(_portable(facts)) for name, facts in files.items()}
    settings = texts.pop(SETTINGS)
    return {
        **texts,
        WEIGHTS: (run.directory / WEIGHTS).read_bytes(),
        CARD: model_card.text(run, _portable(run.card.source)).encode(),
        SETTINGS: settings,
    }


def push(run: Run, name: str, private: bool | None = None, token: str | None = None) -> str:
    """Put a run on the hub, in place of an older one of that name; returns its address. UserError: it refuses."""
    api = _api(f"to hand on {name}", token)
    _need_name(name)
    try:
        with TemporaryDirectory() as folder:
            save(run, folder)
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=f"{run.settings.method} of diffrep",
                delete_patterns=[*RESULTS, METHOD],
            )
    except UserError:
        raise
    except Exception as error:  # the client raises its own, its network's and its file system's errors
        raise UserError(f"the hub does not take {name} ({reason_of(error)}): check the name and your token.") from error
    return str(address)


def located(name: str | Path, revision: str | None = None) -> Path:
    """The directory of a run: the one of that name here, or, of a str "org/name" that is not here, one of the hub.

    UserError: a folder that was handed on and holds what could run code, or leads out of itself (`check`).
    """
    path = Path(name)
    if not path.exists() and NAME.fullmatch(str(name)) and not path.parent.is_dir():
        if isinstance(name, str):
            return fetched(name, revision)
        raise UserError(
            f"{name} is not a run here, and what is measured is written into a run: copy one of the hub first, with"
            f' diffrep.load("{name}").save_pretrained("{path.name}").'
        )
    trained_here = (path / "checkpoints").is_dir() or (path / "metrics.jsonl").is_file()
    if path.is_dir() and not trained_here:
        check(_below(path), path)
    return path


def fetched(name: str, revision: str | None = None) -> Path:
    """The folder of a run of the hub, in the hub's cache; the files of `HOLDS` alone are fetched, once the list of all
    its files is known to be harmless. Without a network, what was fetched before."""
    api = _api(f"there is no run {name} here, and one of the hub", None)
    wanted = {"repo_id": name, "allow_patterns": [*HOLDS]}
    try:
        try:
            there = api.model_info(name, revision=revision)
        except ConnectionError:
            folder = Path(api.snapshot_download(**wanted, revision=revision, local_files_only=True))
        else:
            check([PurePosixPath(file.rfilename) for file in there.siblings or ()], name)
            folder = Path(api.snapshot_download(**wanted, revision=there.sha))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"there is no run {name} here, and the hub does not give one of that name ({reason_of(error)}): check the"
            " name and the connection."
        ) from error
    check(_below(folder), name)
    return folder


def check(files: Iterable[PurePosixPath | Path], origin: object) -> None:
    """UserError for files, by their places in a folder that others made, of which one could run code, or climbs out."""
    for file in files:
        if file.is_absolute() or ".." in file.parts or "\\" in str(file) or PureWindowsPath(file).drive:
            raise UserError(f"{origin} holds the path {file}, which leads out of it: nothing of it is read.")
        if file.suffix.lower() in RUNS_CODE:
            raise UserError(
                f"{origin} holds {file}, which could run code when it is read: a run of diffrep is safetensors and JSON"
                " alone, so nothing of it is read."
            )


def _below(folder: Path) -> list[Path]:
    """Every file below a folder, by its place in it. UserError: a link that leads out of it, unless into the cache of
    the hub that the folder is part of."""
    root = folder.resolve()
    homes = [root, *([root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [])]
    files = []
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            file = Path(place) / name
            if file.is_symlink() and not any(file.resolve().is_relative_to(home) for home in homes):
                raise UserError(f"{file} is a link that leads out of {folder}: nothing of it is read.")
        files += [(Path(place) / name).relative_to(folder) for name in names]
    return files


def _portable(value: Any) -> Any:
    """JSON without paths of this machine: of an absolute path its last part is left."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    if isinstance(value, str) and (value.startswith(("/", "~/", "../")) or PureWindowsPath(value).drive):
        return PureWindowsPath(value).name
    return value


def _api(what: str, token: str | None) -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UserError(f"{what} needs more: pip install 'diffrep[hub]'.") from error
    return HfApi(token=token)


def _need_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of the hub, expected one such as org/name.")
