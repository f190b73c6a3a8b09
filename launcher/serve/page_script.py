"""How the page looks and what it does: text that is sent as it stands. It knows the kinds of answers, and no model."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; --soft: color-mix(in srgb, currentColor 60%, transparent) }
[hidden] { display: none !important }
body { margin: 0 auto; max-width: 44rem; padding: 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.4rem; margin: 0 }
#drop { display: block; border: 2px dashed currentColor; border-radius: .5rem; padding: 2rem 1rem; text-align: center; cursor: pointer }
#drop.over { background: color-mix(in srgb, currentColor 12%, transparent) }
#fields { display: grid; gap: .5rem 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9rem), 1fr)) }
#fields label { min-width: 0 }
textarea, input, select { box-sizing: border-box; width: 100%; font: inherit }
textarea { min-height: 8rem }
button { font: inherit; padding: .4rem 1rem; margin-top: .5rem }
#seen { position: relative; width: fit-content; max-width: 100%; margin: 1rem auto }
#seen img { display: block; max-width: 100%; max-height: 24rem; image-orientation: none }
#seen.small img { width: 10rem; image-rendering: pixelated }
#seen svg { position: absolute; inset: 0; width: 100%; height: 100% }
#seen rect { fill: none; stroke-width: 3; vector-effect: non-scaling-stroke }
#answer { font-size: 1.4rem; font-weight: 600; white-space: pre-wrap; margin: 1rem 0 .5rem }
#answer.words, #answer.wrong { font-size: 1rem; font-weight: 400 }
#answer .given { color: var(--soft) }
#list { list-style: none; padding: 0; margin: 0 0 1rem }
#list li { display: grid; grid-template-columns: minmax(0, 30%) minmax(0, 1fr) 6.5rem; gap: .5rem; align-items: center }
#list .bar { height: .8rem; border-radius: .2rem; background: #2563c9 }
#list .share { text-align: right; font-variant-numeric: tabular-nums }
pre { overflow-x: auto; white-space: pre-wrap }
"""

SCRIPT = """
const by = id => document.getElementById(id);
const made = (name, more, ...inside) => { const it = Object.assign(document.createElement(name), more); it.append(...inside); return it; };
const model = JSON.parse(by('model').textContent);
const percent = share => `${(100 * share).toFixed(1)} %`;
const rounded = value => value === null ? 'not finite' : String(Number(value.toPrecision(6)));
const colour = name => `hsl(${model.labels.indexOf(name) * 0.618034 % 1 * 360} 100% 50%)`;  // launcher/answers/colours.py
function listed(rows) {
  for (const [name, share, said, fill] of rows) {
    const bar = made('div', {className: 'bar'}), told = made('span', {className: 'share', textContent: said});
    bar.style.width = `${100 * share}%`;
    if (fill) bar.style.background = fill;
    by('list').append(made('li', {}, made('span', {textContent: name}), bar, told));
  }
}
function boxed(found) {
  const box = document.querySelector('#seen svg'), space = 'http://www.w3.org/2000/svg';
  box.setAttribute('viewBox', `0 0 ${by('shown').naturalWidth || 1} ${by('shown').naturalHeight || 1}`);
  for (const each of found) {
    const [left, top, right, bottom] = each.box, rect = document.createElementNS(space, 'rect');
    const told = {x: left, y: top, width: right - left, height: bottom - top, stroke: colour(each.class)};
    for (const [key, value] of Object.entries(told)) rect.setAttribute(key, value);
    box.append(rect);
  }
}
const SHOWN = {
  classes(told) {
    const name = told.class, share = percent(told.confidence);
    by('answer').textContent = told.prediction === name ? `${name} (${share})` : `unsure: perhaps ${name} (${share})`;
    listed((told.top ?? [[name, told.confidence]]).map(([each, one]) => [each, one, percent(one)]));
  },
  boxes(told) {
    const found = told.prediction;
    by('answer').textContent = found.length ? `${found.length} found` : `nothing found with a score of ${model.unsure} or more`;
    for (const name of new Set(found.map(each => each.class))) {  // they come best first
      const same = found.filter(each => each.class === name);
      const best = percent(same[0].score);
      listed([[same.length > 1 ? `${same.length} × ${name}` : name, same[0].score, same.length > 1 ? `best ${best}` : best, colour(name)]]);
    }
    boxed(found);
  },
  numbers(told) { by('answer').textContent = [told.prediction].flat(Infinity).map(rounded).join('   '); },
  tokens(told, given) {
    by('answer').className = 'words';
    by('answer').append(made('span', {className: 'given', textContent: given}), told.prediction);
  },
  tensors(told) { by('answer').className = 'words'; by('answer').textContent = JSON.stringify(told.prediction); },
};
function cleared(text, kind = '') {
  for (const id of ['answer', 'list', 'guards', 'whole']) by(id).replaceChildren();
  document.querySelector('#seen svg')?.replaceChildren();
  by('answer').className = kind;
  by('answer').textContent = text;
}
let asked = 0;
async function ask(body, type, given) {
  const number = ++asked;
  cleared('…');
  try {
    const reply = await fetch('predict', {method: 'POST', headers: {'Content-Type': type}, body});
    const told = await reply.json();
    if (by('shown')?.src) await by('shown').decode().catch(() => 0);  // boxes are in its pixels
    if (number !== asked) return;  // another was given since
    const first = told.answers ? told.answers[0] : told;
    cleared(told.error ?? '', told.error ? 'wrong' : '');
    if (!told.error) SHOWN[model.predicts](first, given);
    for (const guard of first.guards ?? []) by('guards').append(made('li', {textContent: guard}));
    by('whole').textContent = JSON.stringify(told, null, 1);
  } catch (error) { if (number === asked) cleared(`no answer (${error})`, 'wrong'); }
}
function picture(file) {
  if (!file) return;
  URL.revokeObjectURL(by('shown').src);
  by('seen').hidden = false;
  by('shown').onerror = () => { by('seen').hidden = true; };  // of a kind that browsers do not show
  by('shown').onload = () => by('seen').classList.toggle('small', by('shown').naturalWidth < 160);
  by('shown').src = URL.createObjectURL(file);
  ask(file, 'application/octet-stream');
}
const drop = by('drop');
if (drop) {
  by('file').onchange = event => picture(event.target.files[0]);
  for (const name of ['dragover', 'dragleave', 'drop']) drop.addEventListener(name, event => {
    event.preventDefault(); drop.classList.toggle('over', name === 'dragover');
    if (name === 'drop') picture(event.dataTransfer.files[0]);
  });
}
const typed = by('typed'), json = value => JSON.stringify(value);
if (by('form')) by('form').onsubmit = event => {
  event.preventDefault();
  if (model.predicts === 'tokens') return ask(json({text: typed.value}), 'application/json', typed.value);
  if (by('fields')) return ask(json({rows: [Object.fromEntries(new FormData(by('form')))]}), 'application/json');
  try { ask(json({rows: [JSON.parse(typed.value)]}), 'application/json'); }
  catch (error) { cleared(`this is no JSON (${error.message})`, 'wrong'); }
};
"""
