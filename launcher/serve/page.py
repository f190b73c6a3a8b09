"""The page: a picture is dropped, or a text or row typed, and the answer is seen. One file, no network."""

from __future__ import annotations

import html

from launcher.predict.predictor import Predictor

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 0 auto; max-width: 44rem; padding: 1rem }
#drop { display: block; border: 2px dashed currentColor; border-radius: .5rem; padding: 2rem 1rem; text-align: center; cursor: pointer }
#drop.over { background: color-mix(in srgb, currentColor 12%, transparent) }
textarea { box-sizing: border-box; width: 100%; min-height: 8rem; font: inherit }
button { font: inherit; padding: .4rem 1rem; margin-top: .5rem }
img { display: block; max-width: 100%; max-height: 20rem; margin: 1rem auto; image-rendering: auto }
#answer { font-size: 1.4rem; font-weight: 600; overflow-wrap: anywhere; white-space: pre-wrap }
li { overflow-wrap: anywhere } pre { overflow-x: auto }
"""
_SCRIPT = """
const by = id => document.getElementById(id);
async function ask(body, type) {
  by('answer').textContent = '…'; by('guards').replaceChildren(); by('whole').textContent = '';
  try {
    const reply = await fetch('predict', {method: 'POST', headers: {'Content-Type': type}, body});
    const told = await reply.json();
    const first = told.answers ? told.answers[0] : told;
    const said = told.error ?? (typeof first.prediction === 'string' ? first.prediction : JSON.stringify(first.prediction));
    by('answer').textContent = first.confidence ? `${said} (${(100 * first.confidence).toFixed(1)} %)` : said;
    for (const guard of first.guards ?? []) by('guards').append(Object.assign(document.createElement('li'), {textContent: guard}));
    by('whole').textContent = JSON.stringify(told, null, 1);
  } catch (error) { by('answer').textContent = `no answer (${error})`; }
}
function picture(file) {
  if (!file) return;
  by('shown').src = URL.createObjectURL(file); by('shown').hidden = false;
  ask(file, file.type && file.type !== 'application/json' ? file.type : 'application/octet-stream');
}
const drop = by('drop');
if (drop) {
  by('file').onchange = event => picture(event.target.files[0]);
  for (const name of ['dragover', 'dragleave', 'drop']) drop.addEventListener(name, event => {
    event.preventDefault(); drop.classList.toggle('over', name === 'dragover');
    if (name === 'drop') picture(event.dataTransfer.files[0]);
  });
}
const send = by('send');
if (send) send.onclick = () => {
  const typed = by('typed').value;
  if (send.dataset.kind === 'text') return ask(JSON.stringify({text: typed}), 'application/json');
  try { ask(JSON.stringify({rows: [JSON.parse(typed)]}), 'application/json'); }
  catch (error) { by('answer').textContent = `this is no JSON (${error.message})`; }
};
"""


def page(predictor: Predictor) -> str:
    """HTML; whatever comes from the export is escaped."""
    run = predictor.told["run"]
    name = html.escape(f"{run['name']}/{run['id']}")
    kind = predictor.preprocessing["kind"]
    if kind == "image":
        given = (
            '<label id="drop" for="file">Drop a picture here, or choose one<input id="file" type="file" accept="image/*" hidden></label>'
        )
    else:
        is_text = kind == "text"
        example = "" if is_text else html.escape(_row(predictor))
        what = "A text to go on with" if is_text else "A row, as JSON"
        given = (
            f'<label for="typed">{what}</label><textarea id="typed">{example}</textarea>'
            f'<button id="send" data-kind="{"text" if is_text else "row"}">Ask</button>'
        )
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title><style>{_STYLE}</style></head><body><h1>{name}</h1>
<p>Weights of update {int(run["step"]):,}; predicts {predictor.predicts}.</p>
{given}<img id="shown" alt="the picture that was given" hidden><p id="answer" role="status" aria-live="polite"></p><ul id="guards"></ul>
<details><summary>All of the answer</summary><pre id="whole"></pre></details><script>{_SCRIPT}</script></body></html>"""


def _row(predictor: Predictor) -> str:
    if predictor.preprocessing["kind"] == "table":
        names = dict.fromkeys(str(each["column"]) for each in predictor.preprocessing["columns"])
        return "{" + ", ".join(f'"{name}": 0' for name in names) + "}"
    return str([0] * min(8, int(predictor.told["inputs"][0]["shape"][-1])))
