"""The page: a picture is dropped, or a text or row typed, and the answer is seen. One file, no network."""

from __future__ import annotations

import html
import json

from launcher.predict.predictor import Predictor
from launcher.serve import example
from launcher.serve.page_script import SCRIPT, STYLE

_SEEN = '<div id="seen" hidden><img id="shown" alt="the picture that was given"><svg aria-hidden="true"></svg></div>'


def page(predictor: Predictor) -> str:
    """HTML; whatever comes from the export is escaped."""
    run = predictor.told["run"]
    name = html.escape(f"{run['name']}/{run['id']}")
    model = {"predicts": predictor.predicts, "labels": predictor.labels, "unsure": predictor.asked.unsure}
    told = json.dumps(model).replace("<", "\\u003c")  # no name ends the script
    is_image = predictor.preprocessing["kind"] == "image"
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title><style>{STYLE}</style></head><body><h1>{name}</h1>
<p>Weights of update {int(run["step"]):,}; predicts {predictor.predicts}.</p>
{_given(predictor)}{_SEEN if is_image else ""}<p id="answer" role="status" aria-live="polite"></p><ul id="list"></ul><ul id="guards"></ul>
<details><summary>All of the answer, as JSON</summary><pre id="whole"></pre></details>
<script type="application/json" id="model">{told}</script><script>{SCRIPT}</script></body></html>"""


def _given(predictor: Predictor) -> str:
    kind = predictor.preprocessing["kind"]
    if kind == "image":
        chosen = '<input id="file" type="file" accept="image/*" hidden>'
        return f'<label id="drop" for="file">Drop a picture here, or choose one{chosen}</label>'
    if kind == "table":
        asked = f'<div id="fields">{"".join(map(_field, example.fields(predictor)))}</div>'
    else:
        what = "A text to go on with" if kind == "text" else "A row, as JSON"
        filled = "" if kind == "text" else html.escape(json.dumps(example.row(predictor), ensure_ascii=False))
        asked = f'<label for="typed">{what}</label><textarea id="typed">{filled}</textarea>'
    return f'<form id="form">{asked}<button id="send">Ask</button></form>'


def _field(told: tuple[str, list[str], float]) -> str:
    """Of a column; empty is a value that is missing."""
    name, texts, mean = told
    called = html.escape(name)
    if texts:
        options = "".join(f"<option>{html.escape(each)}</option>" for each in texts)
        return f'<label>{called}<select name="{called}">{options}</select></label>'
    return f'<label>{called}<input name="{called}" type="number" step="any" value="{mean:g}"></label>'
