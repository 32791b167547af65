"""What the settings of older versions meant: their runs load unchanged although defaults changed."""

from __future__ import annotations

from diffrep.errors import UserError

VERSION = 3  # of what settings mean; 1 is diffrep 0.1.0, which did not state it; 2 held 18 nats in wide codes

OF_A_RUN = {"decoder.draw_code", "code.dim", "prior.kind", "views.crop", "train.ema"}  # each file of a run states them
SINCE_0_1 = {  # settings that are newer than version 0.1.0, and what that version did
    "decoder.observe_code": False,
    "decoder.by_place": False,
    "code.detail": "decoder",
    "views.thin": 0.0,
}
NEWER = {
    **SINCE_0_1,
    "decoder.mixture": False,
    "decoder.patch": 1,
    "train.optimizer": "adamw",
    "decoder.start": "normal",
    "noise.sigma_0": 1 / 6,
    "views.denoise_every": 1,
}  # settings that some version lacked, and what it did
OWN_IN_0_1 = {  # what a method of version 0.1.0 took for a setting of "auto" and takes no longer
    "drl": {"detail": "uniform"},
    "tdrl": {"detail": "uniform"},
    "vdrl": {"detail": "uniform", "prior": "normal"},
    "tvdrl": {"detail": "uniform"},
    "diffae": {"detail": "uniform"},
    "soda": {"detail": "uniform"},
    "vae-vdm": {"prior": "mixture"},
}


def migrated(raw: dict, origin: object = "the settings") -> dict:
    """Settings without their version number; the file of a run of an older version gets the defaults of its time.

    Such a file states every setting that there was: one without any of `SINCE_0_1` is of version 0.1.0. What a user
    wrote is left as it is. UserError: a version that is newer than this one, or no number.
    """
    version = raw.get("version", VERSION)
    raw = {name: value for name, value in raw.items() if name != "version"}
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UserError(f"{origin} state the version {version!r}, expected a number such as {VERSION}: leave it out.")
    if version > VERSION:
        raise UserError(
            f"{origin} were written by a newer diffrep (version {version} of its settings, and this one knows"
            f" {VERSION}): pip install -U diffrep."
        )
    stated = {f"{section}.{name}" for section, values in raw.items() if isinstance(values, dict) for name in values}
    if not stated >= OF_A_RUN:
        return raw
    old = {section: dict(values) if isinstance(values, dict) else values for section, values in raw.items()}
    for name, value in NEWER.items():
        section, last = name.split(".")
        old.setdefault(section, {}).setdefault(last, value)
    if "noise.sigma_0" not in stated:
        _hold(old, 12.0)
    elif version < 3:
        _hold(old, 18.0)
    if stated & set(SINCE_0_1):
        return old
    own = OWN_IN_0_1.get(str(raw.get("method", "")), {})
    if old.get("detail") == "auto":
        old["detail"] = own.get("detail", "auto")
    if old["prior"]["kind"] == "auto" and old["code"].get("kind") != "categorical":
        old["prior"]["kind"] = own.get("prior", "auto")
    return old


def _hold(old: dict, nats: float) -> None:
    """State the rate that was held in codes of 64 numbers and more where the settings gave neither rate nor weight."""
    code = old["code"]
    weighed = code.get("beta") is not None or code.get("warmup") or code.get("cycle") or code.get("free_bits")
    holds = code.get("kind") == "fixed-rate" or (old.get("method") in ("vae-vdm", "vdrl", "tvdrl") and not weighed)
    if holds and code.get("kind") != "categorical" and (code.get("dim") or 64) >= 64 and code.get("rate") is None:
        code["rate"] = nats
