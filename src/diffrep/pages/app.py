"""The explorer in the browser: tabs and sliders for `Explorer`, by default for this machine alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from importlib.resources import files

import numpy as np
from markupsafe import Markup
from torch import Tensor

from diffrep.amounts import amount
from diffrep.errors import UserError
from diffrep.pages import svg, tiles
from diffrep.pages.explorer import MOST_BYTES, Explorer
from diffrep.pages.page import joined, rows

HERE = "127.0.0.1"
PORT = 7860
KEPT = 600  # seconds that an uploaded file is kept: it is read as soon as it is there
ACTIVE = {
    "number": "one number of the code",
    "principal direction": "a principal direction",
    "class": "towards a class",
}
STYLE = """
.gradio-container .main { width: min(100%, 60rem) !important; max-width: none !important; margin: auto; }
.gradio-container .drawn img { display: block; width: 100%; height: auto; border-radius: 3px; }
.gradio-container .min_value, .gradio-container .max_value { color: var(--quiet) !important; }
.gradio-container button[role=tab].selected { color: var(--accent) !important; }
.gradio-container figure { margin: .4rem 0; } footer { display: none !important; }
.gradio-container .note { color: var(--quiet); margin: .2rem 0 .6rem; }
"""


NAMED = """<script>
new MutationObserver(() => document.querySelectorAll("#map button:not([aria-label])").forEach((button) =>
  button.setAttribute("aria-label", "Map of the codes: click a dot to look at its example")
)).observe(document, {childList: true, subtree: true});
</script>"""


def serve(
    explorer: Explorer, host: str = HERE, port: int = PORT, password: str | None = None, wait: bool = True
) -> str:
    """Open the explorer, and return its address. UserError: a host that others can reach, and no password."""
    check(host, password)
    gradio = library()
    page = layout(explorer)
    try:
        _, address, _ = page.queue(max_size=32, default_concurrency_limit=2).launch(
            server_name=host,
            server_port=port,
            auth=("diffrep", password) if password else None,
            share=False,
            quiet=True,
            show_error=True,
            prevent_thread_lock=not wait,
            max_file_size=MOST_BYTES,
            allowed_paths=[],
            ssr_mode=False,
            footer_links=[],
            app_kwargs={"middleware": [_alone()], "docs_url": None, "redoc_url": None},
            theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            head=f"<style>{style()}</style>{NAMED}",
        )
    except OSError as busy:
        raise UserError(f"port {port} is taken: give another one with --port.") from busy
    return address


def check(host: str, password: str | None) -> None:
    """UserError where other machines could reach it and there is no password; or gradio is not installed."""
    if host not in (HERE, "localhost", "::1") and not password:
        raise UserError(f"{host} can be reached from other machines, so a password is needed: give --password.")
    library()


def library():
    """gradio, without analytics; UserError where it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise UserError("the explorer needs gradio: pip install 'diffrep[app]'.") from error
    return gradio


def style() -> str:
    """The style of charts and tiles, and of the frame around them."""
    charts = files("diffrep.pages").joinpath("templates", "charts.css").read_text()
    dark = charts.partition("(prefers-color-scheme: dark) {")[2].partition("}")[0].partition("{")[2]
    return f"{charts}{STYLE}.dark {{{dark}}}\n"


def layout(explorer: Explorer):
    """The page: a tab for each question that this run can answer."""
    gr = library()
    card, model = explorer.run.card, explorer.model
    title = f"{explorer.run.directory.resolve().name}: {explorer.run.settings.method} on {card.source.split('/')[-1]}"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown(f"# {title}\nAll pictures are made on request, with few sampler steps, to be quick.")
        chosen = gr.State(None)  # the uploaded example of each visitor, in place of a test example
        with gr.Row():
            number = gr.Slider(0, len(explorer.test) - 1, 0, step=1, label="Test example, by its number")
            other = gr.Button("Another one", scale=0)
        _upload(gr, explorer, chosen)
        shown = gr.HTML(label="The example")
        with gr.Tabs():
            if model.has_code:
                with gr.Tab("Code"):
                    _code_tab(gr, explorer, page, number, chosen)
            if explorer.denoises:
                with gr.Tab("Noise") as tab:
                    _noise_tab(gr, explorer, tab, number, chosen)
            if model.has_code and explorer.decodes:
                with gr.Tab("Between two") as tab:
                    _between_tab(gr, explorer, tab, number, chosen)
                with gr.Tab("Walk") as tab:
                    _walk_tab(gr, explorer, tab, number, chosen)
            if explorer.decodes:
                with gr.Tab("New examples") as tab:
                    _samples_tab(gr, explorer, tab)
            if model.has_code:
                with gr.Tab("Map"):
                    _map_tab(gr, explorer, number, chosen)

        @_plainly(gr)
        def show(position, own):
            words = "your own" if own is not None else explorer.called(position)
            return rows([(words, _small(_x(explorer, position, own)[None], words))])

        for event in (page.load, number.change, chosen.change):
            event(show, [number, chosen], shown, show_progress="hidden")
        other.click(
            lambda: (int(np.random.default_rng().integers(len(explorer.test))), None),
            None,
            [number, chosen],
            show_progress="hidden",
        )
        number.input(lambda: None, None, chosen, show_progress="hidden")
    return page


def _upload(gr, explorer: Explorer, chosen) -> None:
    """An upload of your own example: a picture, or a row of numbers."""
    shape = explorer.run.card.shape
    if explorer.pictured:
        with gr.Accordion("Your own picture", open=False):
            file = gr.File(label="A picture: PNG, JPEG, WebP, GIF, BMP or TIFF", type="filepath", height=120)
            file.upload(_plainly(gr)(lambda path: explorer.uploaded(path)), file, chosen)
            file.clear(lambda: None, None, chosen)
    elif len(shape) == 1:
        with gr.Accordion("Your own row", open=False):
            row = gr.Textbox(label=f"{amount(shape[0], 'number')} with commas between them", max_length=40 * shape[0])
            gr.Button("Look at it").click(_plainly(gr)(lambda text: explorer.typed(text)), row, chosen)


def _code_tab(gr, explorer: Explorer, page, number, chosen) -> None:
    shown = gr.HTML()

    @_plainly(gr)
    def look(position, own):
        x = _x(explorer, position, own)
        inspected = explorer.inspect(x, covariate=_covariate(explorer, position, own))
        assert inspected.code is not None
        limits = tiles.limits_of(x)
        strips: list[tuple[str, object]] = [("example", _small(x[None], "the example", limits))]
        if inspected.again is not None:
            strips.append(
                ("from its code", _small(inspected.again, "decoded from the code, each time from other noise", limits))
            )
        if inspected.exact is not None:
            strips.append(
                ("from code and noise", _small(inspected.exact[None], "decoded from its code and its noise", limits))
            )
        assert inspected.neighbours is not None
        near = "nearest of the training examples" + (f": {', '.join(inspected.names)}" if any(inspected.names) else "")
        strips.append((near, _small(inspected.neighbours, near, limits)))
        order = np.argsort(-np.abs(inspected.code))
        text = "The code of the example: " + ", ".join(f"number {i} is {inspected.code[i]:.2f}" for i in order[:5])
        return joined(rows(strips), svg.signed(inspected.code.tolist(), "value", text))

    for event in (page.load, number.change, chosen.change):
        event(look, [number, chosen], shown)


def _noise_tab(gr, explorer: Explorer, tab, number, chosen) -> None:
    low, high = explorer.log_snr_ends
    slider = gr.Slider(
        round(low, 1), round(high, 1), round((low + high) / 2, 1), step=0.1, label="log-SNR: noise on the left"
    )
    timed = explorer.model.timed
    t = gr.Slider(0, 1, 0.5, step=0.01, label="t of the code (0: data, 1: noise)", visible=timed)
    shown = gr.HTML()

    @_plainly(gr)
    def look(position, own, log_snr, time):
        x = _x(explorer, position, own)
        beside = _covariate(explorer, position, own)
        at_noise = explorer.at_noise(x, log_snr, time if timed else None, covariate=beside)
        limits = tiles.limits_of(x)
        named = {
            "noisy": at_noise.x_t,
            "denoised without the code": at_noise.without,
            "denoised with the code": at_noise.given,
        }
        strips = [(name, _small(picture[None], name, limits)) for name, picture in named.items() if picture is not None]
        if at_noise.nats is None:
            return rows(strips)
        text = f"The code lowers the loss here by {at_noise.nats:.2f} ± {at_noise.error:.2f} nats a unit of log-SNR."
        return joined(rows(strips), Markup('<p class="note">{}</p>').format(text))

    for event in (slider.change, t.change, number.change, chosen.change):
        event(look, [number, chosen, slider, t], shown, show_progress="minimal", trigger_mode="always_last")
    tab.select(look, [number, chosen, slider, t], shown)


def _between_tab(gr, explorer: Explorer, tab, number, chosen) -> None:
    last = len(explorer.test) - 1
    end = gr.Slider(0, last, min(1, last), step=1, label="The other test example")
    shown = gr.HTML()

    @_plainly(gr)
    def look(position, own, other):
        a, b = _x(explorer, position, own), explorer.example(other)
        made = explorer.between(a, b, covariate=_covariate(explorer, position, own))
        return _wide(made, "the example, steps to the other one, and the other one", tiles.limits_of(a, b))

    end.release(look, [number, chosen, end], shown)
    for event in (tab.select, number.change, chosen.change):
        event(look, [number, chosen, end], shown)


def _walk_tab(gr, explorer: Explorer, tab, number, chosen) -> None:
    kinds = [(words, kind) for kind, words in ACTIVE.items() if explorer.directions(kind)]
    kind = gr.Radio(kinds, value="principal direction", label="Along what")
    which = gr.Dropdown(explorer.directions("principal direction"), value="0", label="Which one")
    reach = gr.Slider(0.5, 6, 3, step=0.5, label="How far to each side, in standard deviations of the codes")
    shown = gr.HTML()

    @_plainly(gr)
    def look(position, own, along, name, far):
        x = _x(explorer, position, own)
        beside = _covariate(explorer, position, own)
        made = explorer.walk(x, explorer.direction(along, name), far, covariate=beside)
        return _wide(made, f"the example in the middle, {far} standard deviations to each side", tiles.limits_of(x))

    def choices(along):
        names = explorer.directions(along)
        return gr.Dropdown(names, value=names[0])

    kind.change(choices, kind, which, show_progress="hidden")
    for event in (tab.select, number.change, chosen.change, which.change, reach.release):
        event(look, [number, chosen, kind, which, reach], shown)


def _samples_tab(gr, explorer: Explorer, tab) -> None:
    seed = gr.Number(0, label="Seed: the same one makes the same examples", precision=0, minimum=0, maximum=2**31)
    shown = gr.HTML()

    @_plainly(gr)
    def look(chosen_seed):
        made = explorer.samples(chosen_seed or 0)
        return Markup('<div class="drawn" style="max-width: 36rem">{}</div>').format(
            tiles.sheet(made, 8, amount(len(made), "new example"))
        )

    for event in (tab.select, seed.change):
        event(look, seed, shown)


def _map_tab(gr, explorer: Explorer, number, chosen) -> None:
    gr.Markdown("Each dot is the code of a test example. Click one, or give its number above: all tabs then show it.")
    names = explorer.test.label_names or []
    picture = gr.Image(explorer.map(), interactive=False, show_label=False, buttons=[], elem_id="map")
    if names:
        gr.HTML(_key(names[:20]))

    def point(event: gr.SelectData):
        position = explorer.pointed_at(*event.index)
        return position, None, explorer.map(position)

    point.__annotations__ = {"event": gr.SelectData}
    picture.select(point, None, [number, chosen, picture], show_progress="hidden")


def _key(names: list[str]) -> Markup:
    inside = Markup("").join(
        Markup('<span><svg viewBox="0 0 10 10" style="{}" aria-hidden="true">{}</svg>{}</span> ').format(
            "display: inline; width: .8em; height: .8em; margin: 0 .3em 0 .6em",
            Markup('<circle class="k{}" cx="5" cy="5" r="5"/>').format(k % svg.CLASSES),
            name,
        )
        for k, name in enumerate(names)
    )
    return Markup("<p>{}</p>").format(inside)


def _x(explorer: Explorer, position: float, own: Tensor | None) -> Tensor:
    return explorer.example(position) if own is None else own


def _covariate(explorer: Explorer, position: float, own: Tensor | None) -> Tensor | None:
    return explorer.covariate(position if own is None else None)


def _small(x: Tensor, label: str, limits=None) -> Markup:
    """A strip of tiles of fixed size."""
    shown = tiles.sheet(x, len(x), label, limits)
    return Markup('<div class="drawn" style="max-width: {}rem">{}</div>').format(4.5 * len(x), shown)


def _wide(x: Tensor, label: str, limits=None) -> Markup:
    return _small(x, label, limits)


def _plainly(gr) -> Callable:
    """A UserError becomes a message on the page, without details of this machine."""

    def wrap(function: Callable) -> Callable:
        @wraps(function)
        def answer(*given):
            try:
                return function(*given)
            except UserError as mistake:
                raise gr.Error(str(mistake), print_exception=False) from None

        return answer

    return wrap


def _alone():
    """Middleware: the page loads nothing from other machines and cannot be a frame in another page."""
    from starlette.middleware import Middleware

    policy = (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; worker-src 'self' blob:;"
        " frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
    )

    class Alone:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            async def sent(message):
                if message["type"] == "http.response.start":
                    headers = [(b"content-security-policy", policy.encode()), (b"x-content-type-options", b"nosniff")]
                    message["headers"] = [*message.get("headers", []), *headers, (b"referrer-policy", b"no-referrer")]
                await send(message)

            await self.app(scope, receive, sent if scope["type"] == "http" else send)

    return Middleware(Alone)
