"""The page of an evaluation: one file that needs no network and no script. Every word from data is escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

from launcher.evaluation import svg
from launcher.evaluation.findings import Chart, Findings, Gallery, Heat, Part, Table, Texts, between, shown

_STYLE = """\
:root{color-scheme:light dark;--ink:#1d2129;--soft:#5b6472;--paper:#fff;--card:#f6f7f9;--line:#dfe3e8;--c0:#2563c9;--c1:#c2410c;
--c2:#0f766e;--c3:#7c3aed}
@media(prefers-color-scheme:dark){:root{
--ink:#e6e8ec;--soft:#a3abb8;--paper:#14171c;--card:#1d2128;--line:#343a44;--c0:#7fb0ff;--c1:#ff9f68;--c2:#5fd0c0;--c3:#c4a5ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:16px;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif;
overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.2em 0}h2{font-size:1.1rem;margin:0 0 .4em}
.warning{border-left:4px solid var(--c1);padding:.3em .8em;background:var(--card)}
.facts,.note{color:var(--soft);font-size:.87rem}.note{margin:.5em 0 0}
.figures,.parts{display:grid;gap:14px;grid-template-columns:repeat(auto-fit,minmax(min(100%,150px),1fr));margin:16px 0}
.parts{grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));align-items:start}
.figure,section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;min-width:0}
.figure b{display:block;font-size:1.4rem;font-variant-numeric:tabular-nums}.figure span{color:var(--soft);font-size:.8rem;display:block}
section.wide{grid-column:1/-1}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.87rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid var(--line);white-space:nowrap}
svg{display:block;width:100%;max-width:560px;height:auto;margin:0 auto}svg text{fill:var(--soft);font:11px system-ui,sans-serif}
svg .axis{fill:var(--ink)}
.grid{stroke:var(--line);stroke-width:1}.diagonal{stroke:var(--soft);stroke-dasharray:4 4}.line{fill:none;stroke-width:2}
.dot{fill-opacity:.75}
.line.c0{stroke:var(--c0)}.line.c1{stroke:var(--c1)}.line.c2{stroke:var(--c2)}.line.c3{stroke:var(--c3)}
.dot.c0,.bar.c0,.cell,svg .key.c0{fill:var(--c0)}.dot.c1,.bar.c1,svg .key.c1{fill:var(--c1)}
.dot.c2,.bar.c2,svg .key.c2{fill:var(--c2)}.dot.c3,.bar.c3,svg .key.c3{fill:var(--c3)}
.cell{stroke:var(--line);stroke-width:.5}svg .count{font-size:9px;fill:var(--ink)}svg .count.on{fill:var(--paper)}
.gallery{display:grid;gap:10px;grid-template-columns:repeat(2,minmax(0,1fr))}.gallery.broad{grid-template-columns:minmax(0,1fr)}
@media(min-width:480px){.gallery{grid-template-columns:repeat(4,minmax(0,1fr))}}
@media(min-width:720px){.gallery{grid-template-columns:repeat(6,minmax(0,1fr))}.gallery.broad{grid-template-columns:repeat(2,minmax(0,1fr))}}
@media(min-width:1080px){.gallery{grid-template-columns:repeat(8,minmax(0,1fr))}.gallery.broad{grid-template-columns:repeat(3,minmax(0,1fr))}}
.keys{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:0 0 10px;padding:0;font-size:.87rem}
.keys span{display:inline-block;width:.9em;height:.9em;margin-right:.4em;border-radius:2px;vertical-align:-.1em}
figure{margin:0}figure img{width:100%;display:block;border-radius:4px;image-rendering:pixelated}figcaption{font-size:.75rem;
color:var(--soft)}
pre{white-space:pre-wrap;margin:.2em 0 1em;padding:8px;border:1px solid var(--line);border-radius:6px;max-height:22em;
overflow:auto;font-size:.82rem}
"""

_TITLES = {"text": "A text that the model goes on with"}
"""In words, of what a task shows in TensorBoard (launcher/train/tasks/language.py)."""


def page(title: str, facts: Mapping[str, str], findings: Findings, warning: str = "") -> str:
    """`facts`: what was evaluated, and how; `warning`: what the figures must not be read without."""
    figures = "".join(
        f'<div class="figure"><span>{escape(name)}</span><b>{shown(metric.value)}</b><span>{between(metric) or "no interval"}</span></div>'
        for name, metric in findings.metrics.items()
    )
    told = " · ".join(f"{escape(name)} {escape(_fact(name, value))}" for name, value in facts.items())
    warned = f'<p class="warning">{escape(warning)}</p>' if warning else ""
    parts = "\n".join(map(_part, findings.parts))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>
{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="facts">{told}</p>
{warned}
<div class="figures">{figures}</div>
<div class="parts">
{parts}
</div>
</body>
</html>
"""


def _fact(name: str, value: str) -> str:
    """Of the data the name of their class: in which module it lies is in evaluation.json."""
    return value.rpartition(".")[2] if name == "data" else value


def _part(part: Part) -> str:
    wide = isinstance(part, Gallery | Texts) or (isinstance(part, Table) and part.is_broad)
    note = f'<p class="note">{escape(part.note)}</p>' if part.note else ""
    return f"<section{' class=wide' if wide else ''}><h2>{escape(_TITLES.get(part.title, part.title))}</h2>{_inner(part)}{note}</section>"


def _inner(part: Part) -> str:
    if isinstance(part, Chart):
        return svg.chart(part)
    if isinstance(part, Heat):
        return svg.heat(part)
    if isinstance(part, Table):
        head = "".join(f"<th>{escape(name)}</th>" for name in part.columns)
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in part.rows)
        return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    if isinstance(part, Texts):
        return "".join(f"<p>{escape(what)}</p><pre>{escape(text)}</pre>" for what, text in part.texts)
    return _gallery(part)


def _gallery(part: Gallery) -> str:
    shown_ = "".join(
        f'<figure><img alt="{escape(picture.text)}" src="data:image/png;base64,{base64.b64encode(picture.png).decode()}">'
        f"<figcaption>{escape(picture.text)}</figcaption></figure>"
        for picture in part.pictures
    )
    keys = "".join(f'<li><span style="background:{escape(colour)}"></span>{escape(name)}</li>' for name, colour in part.keys)
    listed = f'<ul class="keys">{keys}</ul>' if keys else ""
    return f'{listed}<div class="gallery{" broad" if part.is_broad else ""}">{shown_}</div>'
