// The attention explorer. No dependencies; llm_from_scratch/widgets/attention.py writes the data it reads.
// Letters: i the query (row), j the key (column), T the number of tokens.
(() => {
"use strict";
const FORMAT = 1, MASKED = -32768;

// ---- Numbers ---------------------------------------------------------------------------------------

function decode(base64, Type) {
  return new Type(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
}

// Softmax of one row of scores over the allowed keys; a row without any gives zeros, as in the package.
function softmax(scores, allowed = () => true) {
  let top = -Infinity, total = 0;
  scores.forEach((score, j) => { if (allowed(j) && score > top) top = score; });
  const weights = Array.from(scores, (score, j) =>
    allowed(j) && score > -Infinity ? Math.exp(score - top) : 0);
  for (const weight of weights) total += weight;
  return total > 0 ? weights.map((weight) => weight / total) : weights;
}

const entropyBits = (weights) => weights.reduce((sum, w) => (w > 0 ? sum - w * Math.log2(w) : sum), 0);

// ---- Colours: one hue, lightness alone carries the value -------------------------------------------

const RAMPS = {
  light: [[255, 255, 255], [205, 223, 242], [126, 172, 218], [43, 108, 176], [8, 48, 107]],
  dark: [[27, 30, 36], [29, 58, 98], [43, 102, 166], [111, 170, 230], [222, 238, 255]],
};

function shade(theme, x) {
  const ramp = RAMPS[theme], place = Math.min(Math.max(x, 0), 1) * (ramp.length - 1);
  const k = Math.min(Math.floor(place), ramp.length - 2);
  return ramp[k].map((low, c) => Math.round(low + (ramp[k + 1][c] - low) * (place - k)));
}

// Black or white, whichever contrasts more: never below 4.5 to 1.
function ink([r, g, b]) {
  const [R, G, B] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * R + 0.7152 * G + 0.0722 * B > 0.179 ? "#000" : "#fff";
}

function pageTheme() {
  const html = document.documentElement, body = document.body;
  if (matchMedia("print").matches) return "light";
  const named = html.dataset.theme || html.getAttribute("theme") || html.dataset.bsTheme;
  if (named === "dark" || named === "light") return named;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "true" ? "light" : "dark";
  if (body.dataset.vscodeThemeKind) return /light/.test(body.dataset.vscodeThemeKind) ? "light" : "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function followTheme(listener) {
  const watcher = new MutationObserver(listener);
  for (const element of [document.documentElement, document.body]) watcher.observe(element, { attributes: true });
  for (const query of ["print", "(prefers-color-scheme: dark)"]) matchMedia(query).addEventListener("change", listener);
  listener();
}

// ---- Elements and files ----------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const shorten = (text, length) => {
  const letters = Array.from(text);
  return letters.length > length ? letters.slice(0, length - 1).join("") + "…" : text;
};

// A token as text: the stand-ins for blanks are drawn fainter than its letters.
function tokenText(shown) {
  const box = make("bdi", { class: "token" });
  for (const part of shown.split(/([␣↵⇥␍])/)) if (part) box.append(/^[␣↵⇥␍]$/.test(part) ? make("i", {}, part) : part);
  return box;
}

const escapeXml = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

// RFC 4180, and an apostrophe before what a spreadsheet would run as a formula.
function csvField(value) {
  if (typeof value === "number") return String(value);
  const text = /^\s*[=+\-@]|^[\t\r]/.test(value) ? "'" + value : String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(name, type, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- The view --------------------------------------------------------------------------------------

const STYLE = `
:host { --paper: #fff; --ink: #1c2430; --faint: #566070; --line: #dde2e8; --edge: #858f9c; --accent: #1b5fae;
  --wash: #f3f6f9; --hatch: #d5dbe2; display: block; color-scheme: light; }
:host([data-theme=dark]) { --paper: #1b1e24; --ink: #e6e9ee; --faint: #a6afbb; --line: #343a44; --edge: #77818f;
  --accent: #8fc1ff; --wash: #23272f; --hatch: #3b424d; color-scheme: dark; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
.widget { container-type: inline-size; background: var(--paper); color: var(--ink); border: 1px solid var(--line);
  border-radius: 10px; padding: 1rem 1.125rem; margin: .75rem 0;
  font: .875rem/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; text-align: start; }
p { margin: 0; }
.title { font-size: 1.0625rem; font-weight: 600; letter-spacing: -.005em; }
.caption, .note, .label { color: var(--faint); }
.caption { margin-top: .75rem; border-top: 1px solid var(--line); padding-top: .75rem; max-width: 44rem; }
.label { font-size: .8125rem; }
.token, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .8125rem; white-space: pre; }
.token i { font-style: normal; opacity: .62; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin: .75rem 0 0; }
.bar .end { margin-inline-start: auto; display: flex; gap: .5rem; }
label { display: inline-flex; gap: .5rem; align-items: center; min-height: 36px; }
select, button.plain { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge);
  border-radius: 6px; min-height: 36px; padding: 0 .625rem; cursor: pointer; }
button.plain:hover, select:hover { background: var(--wash); }
input[type=checkbox], input[type=radio] { width: 18px; height: 18px; margin: 0; accent-color: var(--accent); }
fieldset { border: 0; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: center; }
legend { float: left; padding: 0; margin-inline-end: .25rem; }
:focus { outline: none; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.text { display: flex; flex-wrap: wrap; gap: 3px; margin: .75rem 0 0; }
.text button { border: 0; border-radius: 5px; padding: 0 .45rem; min-height: 32px; min-width: 24px; cursor: pointer;
  max-width: 100%; overflow: hidden; background: var(--wash); color: var(--ink); box-shadow: inset 0 0 0 1px var(--line); }
.text .token { display: block; max-width: 16ch; overflow: hidden; text-overflow: ellipsis; }
.text button.on { box-shadow: inset 0 0 0 2px var(--accent); }
.text button[aria-pressed=true] { box-shadow: inset 0 0 0 2px var(--ink); }
.main { display: grid; gap: 1.25rem; margin-top: 1rem; grid-template-columns: minmax(0, 1fr) 15rem; }
.widget.long .main { grid-template-columns: minmax(0, 1fr); }
.side { display: grid; gap: 1.25rem; align-content: start; min-width: 0; }
.widget.long .side { grid-template-columns: minmax(0, 15rem) minmax(0, 1fr); }
@container (max-width: 35rem) { .main, .widget.long .side { grid-template-columns: minmax(0, 1fr); } .bar .end { margin: 0; } }
.scroll { overflow-x: auto; position: relative; padding: 0 3px 3px 0; }
table { border-collapse: separate; border-spacing: 0; margin: 0; }
.matrix { position: relative; width: max-content; }
.matrix th, .matrix td { padding: 0; font-weight: 400; border: 0; background: var(--paper); }
.matrix thead th { vertical-align: bottom; height: 1px; }
.matrix thead th span { display: flex; justify-content: flex-start; align-items: center; width: var(--cell);
  writing-mode: vertical-rl; transform: rotate(180deg); padding-block: 0; padding-inline: .375rem 0; }
.matrix th .token { max-width: 9ch; overflow: hidden; text-overflow: ellipsis; display: block; }
.matrix thead th .token { max-width: none; max-height: 9ch; }
.matrix thead th:first-child { text-align: end; padding: 0 .5rem .375rem 0; color: var(--faint); font-size: .75rem; line-height: 1.25; }
.matrix tbody th { position: sticky; inset-inline-start: 0; z-index: 1; padding-inline: 0 .5rem; }
.matrix tbody th .token { margin-inline-start: auto; width: max-content; }
.matrix th.on .token { color: var(--accent); font-weight: 700; }
td.cell { width: var(--cell); min-width: var(--cell); height: var(--cell); cursor: pointer; text-align: center;
  font-size: .6875rem; line-height: 1; border: 1px solid var(--paper); border-width: 0 1px 1px 0; overflow: hidden;
  forced-color-adjust: none; print-color-adjust: exact; -webkit-print-color-adjust: exact; background-clip: padding-box; }
td.cell.masked { background: repeating-linear-gradient(135deg, var(--hatch) 0 1px, transparent 1px 5px) padding-box; }
td.cell:focus { outline: 3px solid var(--accent); outline-offset: -1px; position: relative; z-index: 2; }
.cross { position: absolute; pointer-events: none; border: 1.5px solid var(--accent); border-radius: 2px; }
.cross.fixed { border-color: var(--ink); border-width: 2px; }
.key { display: flex; gap: .5rem; align-items: center; margin-top: .625rem; flex-wrap: wrap; }
.key .ramp { width: 9rem; height: 10px; border-radius: 2px; box-shadow: 0 0 0 1px var(--line);
  forced-color-adjust: none; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.readout { margin-top: .75rem; min-height: 4.4em; }
.readout strong { font-size: 1.25rem; font-weight: 600; }
.heads { display: grid; gap: 4px; margin-top: .375rem; justify-content: start; }
.heads > * { min-width: 0; }
.heads button { padding: 0; border: 0; border-radius: 4px; background: none; cursor: pointer; line-height: 0;
  box-shadow: 0 0 0 1px var(--line); overflow: hidden; aspect-ratio: 1; width: 100%; }
.heads button[aria-checked=true] { box-shadow: 0 0 0 2px var(--paper), 0 0 0 4px var(--accent); }
.heads canvas { width: 100%; height: 100%; image-rendering: pixelated; forced-color-adjust: none; }
.heads span { font-size: .6875rem; color: var(--faint); align-self: center; justify-self: center; }
.bars { width: 100%; margin-top: .375rem; table-layout: fixed; }
.bars td { padding: 2px 0; border: 0; background: none; color: inherit; vertical-align: middle; }
.bars td:first-child { width: 7.5rem; } .bars td:last-child { width: 3rem; text-align: end; }
.bars .token { display: block; overflow: hidden; text-overflow: ellipsis; padding-inline-end: .5rem; }
.bars div { height: 10px; background: var(--accent); border-radius: 2px; min-width: 1px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.facts { display: flex; gap: .25rem 1.25rem; flex-wrap: wrap; margin: .25rem 0 .375rem; }
.facts b { font-size: 1.0625rem; font-weight: 600; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (forced-colors: active) { .text button, .heads button { border: 1px solid; } .text button[aria-pressed=true],
  .text button.on, .heads button[aria-checked=true] { outline: 3px solid Highlight; } .bars div { background: Highlight; forced-color-adjust: none; } }
@media print { .bar, .spoken { display: none; } .widget { break-inside: avoid; } .scroll { overflow: visible; } }
`;

function AttentionExplorer(root, data) {
  const T = data.tokens.length, size = T * T;
  const bytes = data.weights ? decode(data.weights, Uint8Array) : null;
  const bits = data.entropy ? decode(data.entropy, Float32Array) : null;
  const steps = data.scores ? decode(data.scores.values, Int16Array) : null;
  const state = { layer: data.layer, head: data.head, view: "weights", causal: data.causal, hover: null, pin: null, cursor: [T - 1, 0] };

  // ---- Values of one head
  const flat = (layer, head) => layer * data.heads + head;
  const step = (layer, head) => data.scores.step[flat(layer, head)];

  function scoreRow(layer, head, i) {
    const n = flat(layer, head);
    return Array.from(steps.subarray(n * size + i * T, n * size + (i + 1) * T),
      (s) => (s === MASKED ? -Infinity : data.scores.middle[n] + s * data.scores.step[n]));
  }
  function weightRow(layer, head, i, causal = state.causal) {
    if (steps) return softmax(scoreRow(layer, head, i), (j) => !causal || j <= i);
    const start = flat(layer, head) * size + i * T;
    return Array.from(bytes.subarray(start, start + T), (byte) => byte / 255);
  }
  // Half a step off in two scores moves a weight by at most a quarter of a step in the first order.
  const digits = (layer, head) => (steps ? Math.max(0, Math.min(3, Math.floor(-Math.log10(step(layer, head) / 2)))) : 2);
  const scoreDigits = (layer, head) => Math.max(0, Math.min(3, Math.floor(-Math.log10(step(layer, head) || 1e-9))));
  const isMasked = (i, j) => (state.causal && j > i) || (steps && steps[flat(state.layer, state.head) * size + i * T + j] === MASKED);
  const entropy = (layer, head, i, row) => (bits ? bits[flat(layer, head) * T + i] : entropyBits(row));

  let rows = [], scores = null, low = 0, high = 1; // of the head that is shown
  function compute() {
    const { layer, head } = state, all = Array.from({ length: T }, (_, i) => i);
    rows = all.map((i) => weightRow(layer, head, i));
    scores = steps ? all.map((i) => scoreRow(layer, head, i)) : null;
    [low, high] = [0, 1];
    if (state.view === "scores") {
      const seen = scores.flatMap((row, i) => row.filter((_, j) => !isMasked(i, j)));
      low = seen.reduce((a, b) => Math.min(a, b), Infinity);
      high = seen.reduce((a, b) => Math.max(a, b), -Infinity);
      if (!seen.length) [low, high] = [0, 1];
    }
  }
  const weightText = (i, j) => rows[i][j].toFixed(digits(state.layer, state.head));
  const scoreText = (i, j) => scores[i][j].toFixed(scoreDigits(state.layer, state.head));
  const cellText = (i, j) => (isMasked(i, j) ? "masked" : state.view === "scores" ? scoreText(i, j) : weightText(i, j));
  const level = (i, j) => (state.view === "scores" ? (high > low ? (scores[i][j] - low) / (high - low) : 0.5) : Math.sqrt(rows[i][j]));

  // ---- Elements
  const theme = () => host.dataset.theme || "light";
  const choice = (name, count) => make("select", { "aria-label": name, onchange: (event) => show({ [name.toLowerCase()]: +event.target.value }) },
    ...Array.from({ length: count }, (_, n) => make("option", { value: n }, String(n))));
  const layerChoice = choice("Layer", data.layers), headChoice = choice("Head", data.heads);
  const group = "view" + Math.random().toString(36).slice(2); // radio names are scoped to the shadow root only in part
  const viewChoice = (value, text) => make("label", {}, make("input", { type: "radio", name: group, value,
    checked: value === "weights", onchange: () => show({ view: value }) }), text);
  const maskChoice = make("input", { type: "checkbox", checked: data.causal, onchange: () => show({ causal: maskChoice.checked }) });
  const note = make("p", { class: "note", hidden: true }, "Mask off: the softmax now runs over all keys. The model itself never used these weights.");

  const tokenButtons = data.shown.map((shown, i) => make("button", { type: "button", tabindex: i ? -1 : 0,
    "aria-pressed": "false", title: `${i}: ${shown}`, onmouseenter: () => hover([i, null]), onmouseleave: () => hover(null),
    onfocus: (event) => { if (event.target.matches(":focus-visible")) hover([i, null], true); }, onblur: () => hover(null),
    onclick: () => pin([i, null]) }, tokenText(shown)));
  const text = make("div", { class: "text", role: "group", "aria-label": "Tokens: hover to see a row, click to pin it",
    onkeydown: (event) => rove(event, tokenButtons, T, 1, tokenButtons.indexOf(shadow.activeElement)) }, ...tokenButtons);

  const columnHeads = data.shown.map((shown) => make("th", { scope: "col", title: shown }, make("span", {}, tokenText(shown))));
  const rowHeads = data.shown.map((shown) => make("th", { scope: "row", title: shown }, tokenText(shown)));
  const cells = [];
  for (let n = 0; n < size; n++) cells.push(make("td", { class: "cell", role: "gridcell", tabindex: -1 }));
  const body = make("tbody", {}, ...rowHeads.map((th, i) => make("tr", {}, th, ...cells.slice(i * T, i * T + T))));
  const cross = { row: make("div", { class: "cross", hidden: true }), column: make("div", { class: "cross", hidden: true }) };
  const table = make("table", { role: "grid", "aria-label": "Attention matrix: rows are queries, columns are keys" },
    make("thead", {}, make("tr", {}, make("td", {}), ...columnHeads)), body);
  const matrix = make("div", { class: "matrix" }, table, cross.row, cross.column);
  const scroll = make("div", { class: "scroll" }, matrix);
  table.querySelector("thead td").append(make("span", { class: "label" }, "query ↓ key →"));

  const keyLow = make("span", { class: "label" }), keyHigh = make("span", { class: "label" });
  const ramp = make("div", { class: "ramp" }), keyText = make("span", { class: "label" });
  const readout = make("div", { class: "readout" });
  const spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  const facts = make("div", { class: "facts" }), bars = make("tbody"), rowTitle = make("p", { class: "label" });

  const maps = [];
  const heads = make("div", { class: "heads", role: "radiogroup", "aria-label": "All heads: rows are layers, columns are heads",
    onkeydown: (event) => rove(event, maps, data.heads, data.layers, flat(state.layer, state.head), true) });
  heads.style.gridTemplateColumns = `1.5rem repeat(${data.heads}, minmax(12px, 52px))`;
  heads.append(make("span", { "aria-hidden": "true" }, ""));
  for (let head = 0; head < data.heads; head++) heads.append(make("span", { "aria-hidden": "true" }, String(head)));
  for (let layer = 0; layer < data.layers; layer++) {
    heads.append(make("span", { "aria-hidden": "true" }, String(layer)));
    for (let head = 0; head < data.heads; head++) {
      maps.push(make("button", { type: "button", role: "radio", "aria-label": `Layer ${layer}, head ${head}`,
        title: `Layer ${layer}, head ${head}`, onclick: () => show({ layer, head }) }, make("canvas", { width: T, height: T })));
      heads.append(maps.at(-1));
    }
  }

  const host = make("div", {}), shadow = host.attachShadow({ mode: "open" });
  const widget = make("div", { class: T > 14 ? "widget long" : "widget", role: "group", "aria-label": data.title },
    make("p", { class: "title" }, data.title),
    make("div", { class: "bar" },
      make("label", {}, make("span", { "aria-hidden": "true" }, "Layer"), layerChoice),
      make("label", {}, make("span", { "aria-hidden": "true" }, "Head"), headChoice),
      steps ? make("fieldset", {}, make("legend", { class: "spoken" }, "Show"), viewChoice("weights", "Weights (after softmax)"), viewChoice("scores", "Scores (before)")) : null,
      data.maskable ? make("label", {}, maskChoice, "Causal mask") : null,
      make("div", { class: "end" },
        make("button", { type: "button", class: "plain", "aria-label": "Export this head as SVG", onclick: () => download(fileName("svg"), "image/svg+xml", svg()) }, "SVG"),
        make("button", { type: "button", class: "plain", "aria-label": "Export this head as CSV", onclick: () => download(fileName("csv"), "text/csv;charset=utf-8", csv()) }, "CSV"))),
    note, text,
    make("div", { class: "main" },
      make("div", {}, scroll, make("div", { class: "key" }, keyLow, ramp, keyHigh, keyText), readout),
      make("div", { class: "side" },
        make("div", {}, make("p", { class: "label" }, "All heads (row: layer, column: head)"), heads),
        make("div", {}, rowTitle, facts, make("table", { class: "bars", "aria-label": "Largest weights of the row" }, bars)))),
    make("p", { class: "caption" }, data.caption), spoken);
  shadow.append(make("style", {}, STYLE), widget);

  // ---- Drawing
  function show(change) {
    Object.assign(state, change);
    compute();
    layerChoice.value = state.layer;
    headChoice.value = state.head;
    maskChoice.checked = state.causal;
    note.hidden = state.causal === data.causal || state.causal;
    for (const input of shadow.querySelectorAll("input[type=radio]")) input.checked = input.value === state.view;
    maps.forEach((map, n) => {
      const chosen = n === flat(state.layer, state.head);
      map.setAttribute("aria-checked", chosen);
      map.tabIndex = chosen ? 0 : -1;
    });
    draw();
    if (change && Object.keys(change).length) say(`${headName()}, ${state.view}, causal mask ${state.causal ? "on" : "off"}.`);
  }
  const headName = () => `Layer ${state.layer}, head ${state.head}`;

  function draw() {
    const name = theme(), numbers = cellSize >= 34;
    cells.forEach((cell, n) => {
      const i = Math.floor(n / T), j = n % T, masked = isMasked(i, j), value = cellText(i, j);
      cell.classList.toggle("masked", masked);
      cell.setAttribute("aria-label", value);
      const colour = masked ? null : shade(name, level(i, j));
      cell.style.backgroundColor = colour ? `rgb(${colour})` : "";
      cell.style.color = colour ? ink(colour) : "";
      cell.textContent = !numbers || masked ? "" : (state.view === "scores" ? scores[i][j].toFixed(1) : rows[i][j].toFixed(2).replace(/^0/, ""));
    });
    maps.forEach((map, n) => drawMap(map.firstChild, Math.floor(n / data.heads), n % data.heads, name));
    ramp.style.background = `linear-gradient(90deg, ${[0, .25, .5, .75, 1].map((x) => `rgb(${shade(name, x)})`)})`;
    [keyLow.textContent, keyHigh.textContent] = state.view === "scores" ? [low.toFixed(2), high.toFixed(2)] : ["0", "1"];
    keyText.textContent = (state.view === "scores" ? "score" : "weight (colour: its square root)") + (data.causal || state.causal ? "; hatched: masked" : "");
    details();
  }

  function drawMap(canvas, layer, head, name) {
    const context = canvas.getContext("2d"), image = context.createImageData(T, T);
    for (let i = 0; i < T; i++) {
      const row = weightRow(layer, head, i);
      for (let j = 0; j < T; j++) image.data.set([...shade(name, Math.sqrt(row[j])), 255], 4 * (i * T + j));
    }
    context.putImageData(image, 0, 0);
  }

  // The row and column that are looked at: under the pointer or focus, else pinned, else the last token.
  function details() {
    const place = state.hover || state.pin, [i, j] = place || [T - 1, null];
    const name = theme(), row = rows[i];
    data.shown.forEach((_, k) => {
      const colour = place && !(state.causal && k > i) ? shade(name, Math.sqrt(row[k])) : null;
      tokenButtons[k].style.background = colour ? `rgb(${colour})` : "";
      tokenButtons[k].style.color = colour ? ink(colour) : "";
      tokenButtons[k].classList.toggle("on", !!place && k === i);
      tokenButtons[k].setAttribute("aria-pressed", !!state.pin && state.pin[1] === null && state.pin[0] === k);
      rowHeads[k].classList.toggle("on", !!place && k === i);
      columnHeads[k].classList.toggle("on", !!place && k === (j === null ? i : j));
    });
    place ? placeCross(i, j === null ? i : j) : (cross.row.hidden = cross.column.hidden = true);
    const H = entropy(state.layer, state.head, i, row);
    rowTitle.replaceChildren("Row of ", tokenText(shorten(data.shown[i], 24)), ` (position ${i}) ${!state.hover && state.pin ? "· pinned" : ""}`);
    facts.replaceChildren(make("span", {}, make("b", {}, H.toFixed(2)), " bits of entropy"),
      make("span", {}, make("b", {}, (2 ** H).toFixed(1)), " tokens, effectively"));
    const order = row.map((weight, k) => [weight, k]).filter(([weight]) => weight > 0).sort((a, b) => b[0] - a[0] || a[1] - b[1]).slice(0, 5);
    bars.replaceChildren(...order.map(([weight, k]) => {
      const bar = make("div");
      bar.style.width = 100 * weight + "%";
      return make("tr", {}, make("td", {}, tokenText(data.shown[k])), make("td", {}, bar), make("td", {}, weightText(i, k)));
    }));
    if (!place) readout.replaceChildren(make("span", { class: "note" }, "Point at a token or a cell, or move with the arrow keys. Click or Enter pins; Escape unpins."));
    else if (j === null) readout.replaceChildren(make("span", { class: "note" }, "Row and column of "), tokenText(shorten(data.shown[i], 40)),
      make("span", { class: "note" }, `: the row is where it looks, the column who looks at it (${columnMean(i)} on average).`));
    else readout.replaceChildren(make("strong", {}, isMasked(i, j) ? "masked" : weightText(i, j)), scores && !isMasked(i, j) ? ` from score ${scoreText(i, j)}` : "", make("br"),
      tokenText(shorten(data.shown[i], 30)), make("span", { class: "note" }, ` (${i}) looks at `), tokenText(shorten(data.shown[j], 30)), make("span", { class: "note" }, ` (${j})`));
  }
  function columnMean(j) {
    const seen = rows.filter((_, i) => !isMasked(i, j)).map((row) => row[j]);
    return seen.length ? (seen.reduce((a, b) => a + b) / seen.length).toFixed(2) : "0";
  }

  function placeCross(i, j) {
    const first = cells[0], cell = cells[i * T + j], last = cells[size - 1];
    const set = (box, x, y, width, height) => {
      box.hidden = false;
      box.className = state.pin && !state.hover ? "cross fixed" : "cross";
      Object.assign(box.style, { left: x + "px", top: y + "px", width: width + "px", height: height + "px" });
    };
    set(cross.row, first.offsetLeft, cell.offsetTop, last.offsetLeft + last.offsetWidth - first.offsetLeft, cell.offsetHeight);
    set(cross.column, cell.offsetLeft, first.offsetTop, cell.offsetWidth, last.offsetTop + last.offsetHeight - first.offsetTop);
  }

  let cellSize = 0;
  function fit() {
    const room = scroll.clientWidth - rowHeads.reduce((most, th) => Math.max(most, th.offsetWidth), 0) - 8;
    const next = Math.max(T > 40 ? 14 : 20, Math.min(44, Math.floor(room / T)));
    if (next === cellSize || room <= 0) return;
    cellSize = next;
    matrix.style.setProperty("--cell", cellSize + "px");
    draw();
  }

  // ---- Interaction
  let speech;
  function say(sentence) {
    clearTimeout(speech);
    speech = setTimeout(() => { spoken.textContent = sentence; }, 150);
  }
  function sentence([i, j]) {
    const H = entropy(state.layer, state.head, i, rows[i]), name = (k) => `“${shorten(data.shown[k], 40)}” (${k})`;
    const row = `Row entropy ${H.toFixed(2)} bits, ${(2 ** H).toFixed(1)} tokens effectively.`;
    if (j === null) return `Token ${name(i)}. ${row}`;
    if (isMasked(i, j)) return `Query ${name(i)}, key ${name(j)}: masked. ${row}`;
    return `Query ${name(i)}, key ${name(j)}: weight ${weightText(i, j)}${scores ? `, score ${scoreText(i, j)}` : ""}. ${row}`;
  }
  function hover(place, aloud = false) {
    state.hover = place;
    details();
    if (place && aloud) say(sentence(place));
  }
  function pin(place) {
    const same = state.pin && place && state.pin.join() === place.join();
    state.pin = same ? null : place;
    state.hover = null;
    details();
    say(state.pin ? `Pinned. ${sentence(state.pin)}` : "Unpinned.");
  }
  // Arrow keys, Home and End over `items` laid out in `columns`; one of them is in the tab order.
  function rove(event, items, columns, lines, current, choose = false) {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    let next = current;
    if (event.key === "Home") next = event.ctrlKey ? 0 : current - (current % columns);
    else if (event.key === "End") next = event.ctrlKey ? items.length - 1 : current - (current % columns) + columns - 1;
    else if (event.key === "Escape") { if (state.pin) pin(null); return event.stopPropagation(); }
    else if (move === undefined) return;
    else if (Math.abs(move) > 1 || columns === 1 || Math.floor((current + move) / columns) === Math.floor(current / columns) || lines === 1) next = current + move;
    event.preventDefault();
    event.stopPropagation();
    if (next < 0 || next >= items.length) return;
    for (const item of items) item.tabIndex = -1;
    items[next].tabIndex = 0;
    items[next].focus();
    if (choose) show({ layer: Math.floor(next / columns), head: next % columns });
  }

  const cellOf = (event) => { const n = cells.indexOf(event.target.closest("td.cell")); return n < 0 ? null : [Math.floor(n / T), n % T]; };
  body.addEventListener("mouseover", (event) => hover(cellOf(event)));
  body.addEventListener("mouseleave", () => hover(null));
  body.addEventListener("focusin", (event) => {
    const place = cellOf(event);
    if (!place) return;
    for (const cell of cells) if (cell.tabIndex === 0) cell.tabIndex = -1;
    event.target.tabIndex = 0;
    state.cursor = place;
    hover(place, true);
  });
  body.addEventListener("focusout", () => hover(null));
  body.addEventListener("click", (event) => { const place = cellOf(event); if (place) pin(place); });
  body.addEventListener("keydown", (event) => {
    const [i, j] = state.cursor;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      event.stopPropagation();
      pin([i, j]);
    } else rove(event, cells, T, T, i * T + j);
  });
  widget.addEventListener("keydown", (event) => { if (event.key === "Escape" && state.pin) { pin(null); event.stopPropagation(); } });

  // ---- Export
  const fileName = (ending) => `attention_layer${state.layer}_head${state.head}_${state.view}.${ending}`;
  function csv() {
    const lines = [["layer", "head", "causal_mask", "query", "query_token", "key", "key_token", ...(scores ? ["score"] : []), "weight"]];
    for (let i = 0; i < T; i++) for (let j = 0; j < T; j++) {
      lines.push([state.layer, state.head, state.causal ? 1 : 0, i, data.tokens[i], j, data.tokens[j],
        ...(scores ? [scores[i][j] === -Infinity ? "" : +scores[i][j].toFixed(6)] : []), +rows[i][j].toFixed(6)]);
    }
    return lines.map((line) => line.map(csvField).join(",") + "\r\n").join("");
  }
  function svg() {
    const side = 22, left = 110, top = 140, width = Math.max(left + side * T + 20, 420), height = top + side * T + 50;
    const label = (shown) => escapeXml(shorten(shown, 12));
    let marks = "";
    for (let n = 0; n < size; n++) {
      const i = Math.floor(n / T), j = n % T;
      const fill = isMasked(i, j) ? "#eef1f4" : `rgb(${shade("light", level(i, j))})`;
      marks += `<rect x="${left + j * side}" y="${top + i * side}" width="${side - 1}" height="${side - 1}" fill="${fill}"><title>${escapeXml(`${data.shown[i]} → ${data.shown[j]}: ${cellText(i, j)}`)}</title></rect>`;
    }
    data.shown.forEach((shown, k) => {
      marks += `<text x="${left - 6}" y="${top + k * side + 15}" text-anchor="end" class="t">${label(shown)}</text>`;
      marks += `<text transform="translate(${left + k * side + 15} ${top - 6}) rotate(-90)" class="t">${label(shown)}</text>`;
    });
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img"><title>${escapeXml(data.title)}</title>`
      + `<style>text{font:13px sans-serif;fill:#1c2430}.t{font:12px monospace}</style><rect width="100%" height="100%" fill="#fff"/>`
      + `<text x="16" y="26" font-weight="600">${escapeXml(data.title)}</text><text x="16" y="46">${headName()}, ${state.view}${state.causal ? ", causal mask" : ""}; rows: queries, columns: keys</text>${marks}`
      + `<text x="16" y="${height - 16}">${state.view === "scores" ? `white ${low.toFixed(2)}, dark ${high.toFixed(2)}` : "white 0, dark 1; colour: square root of the weight"}</text></svg>`;
  }

  // ---- Start
  cells[(T - 1) * T].tabIndex = 0;
  root.append(host);
  followTheme(() => {
    const next = pageTheme();
    if (host.dataset.theme === next) return;
    host.dataset.theme = next;
    if (rows.length) draw();
  });
  show({});
  fit();
  new ResizeObserver(fit).observe(scroll);
  return { state, show, softmax, entropyBits, weights: () => rows, scores: () => scores, csv, svg, csvField };
}

// Mount every root of this kind that has data and no view yet: this output's own, and no other.
for (const root of document.querySelectorAll('[data-llm-widget="attention"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = AttentionExplorer(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("The attention explorer could not start; its table stays.", error);
  }
}
})();
