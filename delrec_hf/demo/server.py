"""A page's server: `delrec demo`."""

from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from delrec_hf.demo.desk import Desk
from delrec_hf.demo.page import page_of
from delrec_hf.logging import get_logger
from delrec_hf.recommender import Recommender
from delrec_hf.serving.listening import answer
from delrec_hf.serving.refusals import HANDLERS, Door

_MOST = 1_000_000  # bytes of a request
_SLOWEST = 30.0  # seconds that they may take
_LONGEST_END = 3  # seconds: pages keep a connection open


def app_of(desk: Desk, model: str) -> FastAPI:
    """Return the ASGI application of a model's page; it asks nothing of other machines.

    Args:
        desk: Answers.
        model: How the page calls it.
    """
    app = FastAPI(exception_handlers=HANDLERS, openapi_url=None)
    app.add_middleware(Door, most=_MOST, seconds=_SLOWEST)
    # Gradio brings this font: nothing is asked of a font server. Its weight 600 lacks most letters.
    font = [gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"]
    theme = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=font).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
    return gr.mount_gradio_app(
        app,
        page_of(desk, model),
        path="/",
        theme=theme,
        css_paths=[Path(__file__).parent / "page.css"],
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        max_file_size=1,
    )


def serve_page(model: str, host: str, port: int, **loading: Any) -> None:
    """Load a model and show its page until SIGTERM or SIGINT.

    Args:
        model: Folder or Hub id.
        host: Address to listen on.
        port: Its port; 0 for any free one, which the log names.
        **loading: Arguments of `Recommender.from_pretrained`.

    Raises:
        InputError: If the address cannot be listened on or the model cannot be loaded.
    """

    def load(place: str) -> tuple[FastAPI, str]:
        desk = Desk(Recommender.from_pretrained(model, **loading))
        desk.rank([0], next(iter(desk.parts)), 1)  # the first one takes longest
        get_logger("delrec_hf.serving.refusals").setLevel("WARNING")  # a page is fifty files
        titles = len(desk.recommender.titles)
        return app_of(desk, model), f"showing {model}, {titles} items, at {place}"

    answer(host, port, load, _LONGEST_END)
