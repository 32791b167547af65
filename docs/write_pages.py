"""Writes docs/methods.md from the catalogue: `python docs/write_pages.py`, which `make docs` runs."""

from __future__ import annotations

import json
from pathlib import Path

from diffrep.methods.catalog import METHODS

HERE = Path(__file__).parent
DENOISING = "E over t, eps of w(t) |eps - eps_hat(x_t, z, t)|^2"
BOUND = "KL(q(x_1|x) || p(x_1)) + E[-log p(x|x_0)] + 1/2 E[gamma'(t) |eps - eps_hat(x_t, z, t)|^2]"
EQUATIONS = {
    "ddpm": DENOISING.replace(", z", ""),
    "dsm": DENOISING.replace(", z", ""),
    "ssm": "E of v' grad_x s(x_t) v + 1/2 |s(x_t)|^2, v standard normal",
    "drl": DENOISING + ", z = E(x)",
    "vdrl": DENOISING + " + beta KL(q(z|x) || p(z))",
    "tdrl": DENOISING + ", z = E(x, t)",
    "tvdrl": DENOISING + " + beta KL(q(z|x, t) || p(z))",
    "vdm": BOUND.replace(", z", ""),
    "vae-vdm": BOUND + " + KL(q(z|x) || p(z))",
    "adversarial": DENOISING.replace(", z", "") + " + (D(x_hat) - 1)^2; the critic: (D(x) - 1)^2 + D(x_hat)^2",
    "adversarial-drl": DENOISING + " + (D(x_hat) - 1)^2; the critic: (D(x) - 1)^2 + D(x_hat)^2",
    "diffae": DENOISING + ", z = E(x); afterwards a diffusion model of z",
    "infodiffusion": DENOISING + " + MMD(q(z), N(0, I))",
    "pdae": "E of w(t) |eps - eps_hat(x_t, t) - (what z adds)|^2, the decoder without a code fixed",
    "soda": DENOISING + ", z = E(another view of x)",
    "ae": "|x - D(E(x))|^2 under a learned spread",
    "dae": "|x - D(E(x + noise))|^2 under a learned spread",
    "mae": "|x - D(E(x with parts hidden))|^2 on the hidden parts",
    "vae": "E[-log p(x|z)] + KL(q(z|x) || p(z))",
    "beta-vae": "E[-log p(x|z)] + 4 KL(q(z|x) || p(z))",
    "simclr": "-log of the softmax share that the other view has among the batch",
    "vicreg": "|z - z'|^2 + a hinge on each deviation + squared covariances",
    "byol": "|p(z) - z'|^2, z' from a slow copy",
    "classifier": "cross-entropy of the labels",
    "random-encoder": "none: it is not trained",
}


def numbers() -> dict[str, dict[str, float]]:
    """Method -> mean linear and kNN probe on digits over seeds, from results/benchmark-digits.json."""
    rows = json.loads((HERE.parent / "results" / "benchmark-digits.json").read_text())["runs"]
    found: dict[str, dict[str, float]] = {}
    for name in {row["name"] for row in rows}:
        own = [row for row in rows if row["name"] == name]
        for key in ("probe_linear", "probe_knn"):
            values = [row[key] for row in own if row.get(key) is not None]
            if values:
                found.setdefault(name, {})[key] = sum(values) / len(values)
    return found


def methods() -> str:
    """A section for each method."""
    known = numbers()
    lines = [
        "# Methods",
        "",
        "Each is a recipe of the same parts. The recipes stand in `methods/recipes.py` and `methods/baselines.py`; the"
        " settings that they read are listed by `diffrep settings`. Numbers: digits, 20,000 examples, three seeds.",
        "",
    ]
    for name, method in METHODS.items():
        has = [
            "a code" if method.has_code else "no code",
            "a decoder" if method.decodes else "no decoder",
            "a bound" if method.has_bound else "no bound",
        ]
        lines += [f"## {name}", "", f"{method.summary[0].upper()}{method.summary[1:]}.", ""]
        lines += [f"    {EQUATIONS[name]}", ""]
        lines += [f"* Paper: {method.paper}", f"* Has {', '.join(has)}"]
        lines += [f"* Noise: {method.noise}"] if method.noise else []
        lines += [f"* Without its code it is `{method.twin}`"] if method.twin else []
        if name in known:
            said = ", ".join(f"{key.split('_')[1]} probe {value:.3f}" for key, value in known[name].items())
            lines.append(f"* On digits: {said}")
        lines += [f"* Train it: `diffrep train --data digits --method {name} --out runs/{name} --budget 60s`", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    (HERE / "methods.md").write_text(methods())
