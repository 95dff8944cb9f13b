// The attention explorer. No dependencies; llm_from_scratch/widgets/attention.py writes the data it reads.
// Letters: i the query (row), j the key (column), T the number of tokens.
(() => {
"use strict";
const FORMAT = 1, MASKED = -32768;

// ---- Numbers

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

// ---- Colours: one hue, lightness alone carries the value

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

function paint(element, colour) {
  element.style.backgroundColor = colour ? `rgb(${colour})` : "";
  element.style.color = colour ? ink(colour) : "";
}

// What the page says (the book, Colab; JupyterLab; VS Code), else what the system prefers. Paper is light.
//= shared_theme.js

// ---- Elements and files

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const shorten = (text, length) => {
  const letters = Array.from(text);
  return letters.length > length ? letters.slice(0, length - 1).join("") + "…" : text;
};

const tokenText = (shown) => make("bdi", { class: "token" }, shown);
const escapeXml = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

// RFC 4180, and an apostrophe before what a spreadsheet would run as a formula.
function csvField(value) {
  if (typeof value === "number") return String(value);
  const text = /^\s*[=+\-@]|^[\t\r]/.test(value) ? "'" + value : String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

//= shared_download.js

// ---- The view

const STYLE = `
:host { --paper: #fff; --ink: #1c2430; --faint: #566070; --line: #dde2e8; --edge: #858f9c; --accent: #1b5fae;
  --wash: #f3f6f9; --hatch: #d5dbe2; display: block; color-scheme: light; }
:host([data-theme=dark]) { --paper: #1b1e24; --ink: #e6e9ee; --faint: #a6afbb; --line: #343a44; --edge: #77818f;
  --accent: #8fc1ff; --wash: #23272f; --hatch: #3b424d; color-scheme: dark; }
* { box-sizing: border-box; min-width: 0; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
[hidden] { display: none !important; }
.widget { container-type: inline-size; background: var(--paper); color: var(--ink); border: 1px solid var(--line);
  border-radius: 10px; padding: 1rem 1.125rem; margin: .75rem 0; font: .875rem/1.45 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; text-align: start; }
p { margin: 0; }
.title { font-size: 1.0625rem; font-weight: 600; }
.caption, .note, .label { color: var(--faint); }
.caption { margin-top: .75rem; border-top: 1px solid var(--line); padding-top: .75rem; }
.label { font-size: .8125rem; }
.token { font: .8125rem ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; }
button .token, table .token { display: block; overflow: hidden; text-overflow: ellipsis; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin-top: .75rem; }
.bar:first-child { margin: 0; flex-wrap: nowrap; }
.end { margin-inline-start: auto; flex: none; display: flex; gap: .5rem; }
label { display: inline-flex; gap: .5rem; align-items: center; min-height: 36px; }
select, .end button { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge);
  border-radius: 6px; min-height: 36px; padding: 0 .625rem; cursor: pointer; }
.end button:hover, select:hover { background: var(--wash); }
input { width: 18px; height: 18px; margin: 0; accent-color: var(--accent); }
fieldset { border: 1px solid var(--edge); border-radius: 6px; margin: 0; padding: 0; display: flex; }
fieldset label { position: relative; min-height: 34px; }
fieldset input { position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0; cursor: pointer; }
fieldset span { padding: .35rem .625rem; border-radius: 5px; }
fieldset :checked + span { background: var(--accent); color: var(--paper); }
:focus { outline: none; }
:focus-visible, fieldset :focus-visible + span { outline: 3px solid var(--accent); outline-offset: 2px; }
.text { display: flex; flex-wrap: wrap; gap: 3px; margin-top: .75rem; }
.text button { border: 0; border-radius: 5px; padding: 0 .45rem; min-height: 32px; min-width: 24px; cursor: pointer;
  background: var(--wash); color: var(--ink); box-shadow: inset 0 0 0 1px var(--line); }
.text .token { max-width: 16ch; }
.text .on { box-shadow: inset 0 0 0 2px var(--accent); }
.text [aria-pressed=true] { box-shadow: inset 0 0 0 2px var(--ink); }
.main { display: grid; gap: 1.25rem; margin-top: 1rem; grid-template-columns: 1fr 15rem; }
.side { display: grid; gap: 1.25rem; align-content: start; }
.long .main { grid-template-columns: 1fr; }
.long .side { grid-template-columns: 15rem 1fr; }
@container (max-width: 35rem) { .main, .long .side { grid-template-columns: minmax(0, 1fr); } }
.scroll { overflow-x: auto; padding: 0 3px 3px 0; }
table { border-spacing: 0; margin: 0; }
th, td { padding: 0; font-weight: 400; border: 0; background: none; }
.matrix { position: relative; width: max-content; }
.matrix thead * { vertical-align: bottom; }
.matrix thead td { text-align: end; padding: 0 .625rem .25rem 0; color: var(--faint); font-size: .75rem; }
.matrix thead span { display: flex; align-items: center; width: var(--cell); writing-mode: vertical-rl;
  transform: rotate(180deg); padding-top: .375rem; }
.matrix thead .token { max-height: 9ch; }
.matrix tbody th { position: sticky; left: 0; z-index: 1; padding-right: .5rem; background: var(--paper); }
.matrix tbody .token { max-width: 9ch; width: max-content; margin-left: auto; }
.matrix .on .token { color: var(--accent); font-weight: 700; }
.small .token { font-size: .6875rem; line-height: 12px; }
.cell { width: var(--cell); min-width: var(--cell); height: var(--cell); cursor: pointer; text-align: center;
  font-size: .6875rem; line-height: 1; border: 1px solid var(--paper); border-width: 0 1px 1px 0; forced-color-adjust: none; }
.masked { background: repeating-linear-gradient(135deg, var(--hatch) 0 1px, transparent 1px 5px); }
.cell:focus { outline: 3px solid var(--accent); outline-offset: -1px; position: relative; z-index: 2; }
.cross { position: absolute; pointer-events: none; border: 2px solid var(--accent); border-radius: 2px; }
.fixed { border-color: var(--ink); }
.key { display: flex; gap: .5rem; align-items: center; margin-top: .625rem; flex-wrap: wrap; }
.ramp { width: 9rem; height: 10px; box-shadow: 0 0 0 1px var(--line); forced-color-adjust: none; }
.readout { margin-top: .625rem; min-height: 3.4em; }
.heads { display: grid; gap: 4px; margin-top: .375rem; }
.heads button { padding: 0; border: 0; border-radius: 4px; background: none; cursor: pointer; line-height: 0;
  box-shadow: 0 0 0 1px var(--line); overflow: hidden; aspect-ratio: 1; }
.heads [aria-checked=true] { box-shadow: 0 0 0 2px var(--paper), 0 0 0 4px var(--accent); }
canvas { width: 100%; height: 100%; image-rendering: pixelated; forced-color-adjust: none; }
.heads span { font-size: .6875rem; color: var(--faint); place-self: center; }
.facts { display: flex; gap: 1.5rem; margin: .375rem 0; color: var(--faint); font-size: .8125rem; }
.facts b, .readout b { font-size: 1.25rem; line-height: 1.3; font-weight: 600; color: var(--ink); }
.facts b { display: block; }
.bars { width: 100%; table-layout: fixed; }
.bars td { padding: 2px 0; }
.bars td:first-child { width: 6rem; padding-inline-end: .5rem; }
.bars td:last-child { width: 3rem; text-align: end; }
.bars div { height: 10px; background: var(--accent); border-radius: 2px; min-width: 1px; forced-color-adjust: none; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media (forced-colors: active) { .text .on, [aria-pressed=true], [aria-checked=true], :checked + span { outline: 3px solid Highlight; } }
@media print { .end, .bar + .bar { display: none; } .widget { break-inside: avoid; } .scroll { overflow: visible; } .masked { background: var(--wash); } }
`;

function AttentionExplorer(root, data) {
  const T = data.tokens.length, size = T * T;
  const bytes = data.weights ? decode(data.weights, Uint8Array) : null;
  const bits = data.entropy ? decode(data.entropy, Float32Array) : null;
  const steps = data.scores ? decode(data.scores.values, Int16Array) : null;
  const state = { layer: data.layer, head: data.head, view: "weights", causal: data.causal, hover: null, pin: null, cursor: [T - 1, 0] };

  // ---- Values of one head
  const flat = (layer, head) => layer * data.heads + head;
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
  // No more decimals than are true: a score is off by half a step at most, a weight by a quarter of a step.
  const decimals = (error) => Math.max(0, Math.min(3, Math.floor(-Math.log10(2 * error))));
  const step = () => data.scores.step[flat(state.layer, state.head)];
  const isMasked = (i, j) => (state.causal && j > i) || (steps && steps[flat(state.layer, state.head) * size + i * T + j] === MASKED);
  const entropy = (i) => (bits ? bits[flat(state.layer, state.head) * T + i] : entropyBits(rows[i]));

  let rows = [], scores = null, low = 0, high = 1; // of the head that is shown
  function compute() {
    const { layer, head } = state, all = Array.from({ length: T }, (_, i) => i);
    rows = all.map((i) => weightRow(layer, head, i));
    scores = steps ? all.map((i) => scoreRow(layer, head, i)) : null;
    const seen = state.view === "scores" ? scores.flatMap((row, i) => row.filter((_, j) => !isMasked(i, j))) : [];
    [low, high] = seen.length ? [Math.min(...seen), Math.max(...seen)] : [0, 1];
  }
  const weightText = (i, j) => rows[i][j].toFixed(steps ? decimals(step() / 4) : 2);
  const scoreText = (i, j) => scores[i][j].toFixed(decimals(step() / 2));
  const cellText = (i, j) => (isMasked(i, j) ? "masked" : state.view === "scores" ? scoreText(i, j) : weightText(i, j));
  const level = (i, j) => (state.view === "scores" ? (high > low ? (scores[i][j] - low) / (high - low) : 0.5) : Math.sqrt(rows[i][j]));

  // ---- Elements
  const choice = (name, count) => make("select", { "aria-label": name, onchange: (event) => show({ [name.toLowerCase()]: +event.target.value }) },
    ...Array.from({ length: count }, (_, n) => make("option", { value: n }, String(n))));
  const layerChoice = choice("Layer", data.layers), headChoice = choice("Head", data.heads);
  const viewChoice = (value, text) => make("label", {}, make("input", { type: "radio", name: "view", value, onchange: () => show({ view: value }) }), make("span", {}, text));
  const maskChoice = make("input", { type: "checkbox", onchange: () => show({ causal: maskChoice.checked }) });
  const note = make("p", { class: "note", hidden: "" }, "Mask off: the softmax now runs over all keys. The model itself never used these weights.");

  const tokenButtons = data.shown.map((shown, i) => make("button", { type: "button", tabindex: i ? -1 : 0,
    "aria-pressed": "false", title: `${i}: ${shown}`, onmouseenter: () => hover([i, null]), onmouseleave: () => hover(null),
    onfocus: (event) => { if (event.target.matches(":focus-visible")) hover([i, null], true); }, onblur: () => hover(null),
    onclick: () => pin([i, null]) }, tokenText(shown)));
  const text = make("div", { class: "text", role: "group", "aria-label": "Tokens",
    onkeydown: (event) => rove(event, tokenButtons, T, tokenButtons.indexOf(shadow.activeElement)) }, ...tokenButtons);

  const columnHeads = data.shown.map((shown) => make("th", { scope: "col", title: shown }, make("span", {}, tokenText(shown))));
  const rowHeads = data.shown.map((shown) => make("th", { scope: "row", title: shown }, tokenText(shown)));
  const cells = [];
  for (let n = 0; n < size; n++) cells.push(make("td", { class: "cell", role: "gridcell", tabindex: -1 }));
  const body = make("tbody", {}, ...rowHeads.map((th, i) => make("tr", {}, th, ...cells.slice(i * T, i * T + T))));
  const cross = { row: make("div", { class: "cross", hidden: "" }), column: make("div", { class: "cross", hidden: "" }) };
  const table = make("table", { role: "grid", "aria-label": "Attention matrix: rows are queries, columns are keys" },
    make("thead", {}, make("tr", {}, make("td", {}), ...columnHeads)), body);
  const matrix = make("div", { class: "matrix" }, table, cross.row, cross.column);
  const scroll = make("div", { class: "scroll" }, matrix);
  table.querySelector("thead td").append("query ↓ key →");

  const [keyLow, keyHigh, keyText] = [1, 2, 3].map(() => make("span", { class: "label" }));
  const ramp = make("div", { class: "ramp" }), readout = make("div", { class: "readout" });
  const spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  const facts = make("div", { class: "facts" }), bars = make("tbody"), rowTitle = make("p", { class: "label" });

  const maps = [];
  const heads = make("div", { class: "heads", role: "radiogroup", "aria-label": "All heads: rows are layers, columns are heads",
    onkeydown: (event) => rove(event, maps, data.heads, flat(state.layer, state.head),
      (n) => show({ layer: Math.floor(n / data.heads), head: n % data.heads })) });
  heads.style.gridTemplateColumns = `1.5rem repeat(${data.heads}, minmax(12px, 52px))`;
  const number = (n) => make("span", { "aria-hidden": "true" }, String(n));
  heads.append(number(""), ...Array.from({ length: data.heads }, (_, head) => number(head)));
  for (let layer = 0; layer < data.layers; layer++) {
    heads.append(number(layer));
    for (let head = 0; head < data.heads; head++) {
      maps.push(make("button", { type: "button", role: "radio", "aria-label": `Layer ${layer}, head ${head}`, onclick: () => show({ layer, head }) },
        make("canvas", { width: T, height: T })));
      heads.append(maps.at(-1));
    }
  }

  const centre = make("div", {}, scroll, make("div", { class: "key" }, keyLow, ramp, keyHigh, keyText), readout);
  const side = make("div", { class: "side" },
    make("div", {}, make("p", { class: "label" }, "All heads (row: layer, column: head)"), heads),
    make("div", {}, rowTitle, facts, make("table", { class: "bars", "aria-label": "Largest weights of the row" }, bars)));
  const exporter = (name, type, write) => make("button", { type: "button", "aria-label": `Export this head as ${name}`,
    onclick: () => download(`attention_layer${state.layer}_head${state.head}_${state.view}.${name.toLowerCase()}`, type, write()) }, name);

  // Else JupyterLab would take the keys: it looks at the host, which stands for what is focused inside it.
  const long = T > 14, host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  const widget = make("div", { class: long ? "widget long" : "widget", role: "group", "aria-label": data.title },
    make("div", { class: "bar" }, make("p", { class: "title" }, data.title), 
      make("div", { class: "end" }, exporter("SVG", "image/svg+xml", () => svg()), exporter("CSV", "text/csv;charset=utf-8", () => csv()))),
    make("div", { class: "bar" },
      make("label", {}, make("span", { "aria-hidden": "true" }, "Layer"), layerChoice),
      make("label", {}, make("span", { "aria-hidden": "true" }, "Head"), headChoice),
      steps ? make("fieldset", { "aria-label": "Show" }, viewChoice("scores", "Before softmax"), viewChoice("weights", "After softmax")) : null,
      data.maskable ? make("label", {}, maskChoice, "Causal mask") : null),
    note, text, make("div", { class: "main" }, ...(long ? [side, centre] : [centre, side])),
    make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken);
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
    if (Object.keys(change).length) say(`${headName()}, ${state.view}, causal mask ${state.causal ? "on" : "off"}.`);
  }
  const headName = () => `Layer ${state.layer}, head ${state.head}`;

  function draw() {
    const name = host.dataset.theme, numbers = cellSize >= 34;
    cells.forEach((cell, n) => {
      const i = Math.floor(n / T), j = n % T, masked = isMasked(i, j), value = cellText(i, j);
      cell.classList.toggle("masked", masked);
      cell.setAttribute("aria-label", value);
      paint(cell, masked ? null : shade(name, level(i, j)));
      cell.textContent = !numbers || masked ? "" : (state.view === "scores" ? scores[i][j].toFixed(1) : rows[i][j].toFixed(2).replace(/^0/, ""));
    });
    maps.forEach((map, n) => drawMap(map.firstChild, Math.floor(n / data.heads), n % data.heads, name));
    ramp.style.background = `linear-gradient(90deg, ${[0, .25, .5, .75, 1].map((x) => `rgb(${shade(name, x)})`)})`;
    [keyLow.textContent, keyHigh.textContent] = state.view === "scores" ? [low.toFixed(2), high.toFixed(2)] : ["0", "1"];
    keyText.textContent = (state.view === "scores" ? "score" : "weight, coloured by its square root") + (state.causal ? "; hatched: masked" : "");
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

  const faint = (words) => make("span", { class: "note" }, words), short = (k) => tokenText(shorten(data.shown[k], 30));
  // The row and column that are looked at: under the pointer or focus, else pinned, else the last token.
  function details() {
    const place = state.hover || state.pin, [i, j] = place || [T - 1, null];
    const name = host.dataset.theme, row = rows[i];
    data.shown.forEach((_, k) => {
      paint(tokenButtons[k], place && !isMasked(i, k) ? shade(name, Math.sqrt(row[k])) : null);
      tokenButtons[k].classList.toggle("on", !!place && k === i);
      tokenButtons[k].setAttribute("aria-pressed", !!state.pin && state.pin[1] === null && state.pin[0] === k);
      rowHeads[k].classList.toggle("on", !!place && k === i);
      columnHeads[k].classList.toggle("on", !!place && k === (j === null ? i : j));
    });
    place ? placeCross(i, j === null ? i : j) : (cross.row.hidden = cross.column.hidden = true);
    const H = entropy(i);
    rowTitle.replaceChildren("Row of ", short(i), ` (position ${i}) ${!state.hover && state.pin ? "· pinned" : ""}`);
    facts.replaceChildren(make("span", {}, make("b", {}, H.toFixed(2)), "bits of entropy"),
      make("span", {}, make("b", {}, (2 ** H).toFixed(1)), "effective tokens"));
    const order = row.map((weight, k) => [weight, k]).filter(([weight]) => weight > 0).sort((a, b) => b[0] - a[0] || a[1] - b[1]).slice(0, 5);
    bars.replaceChildren(...order.map(([weight, k]) => {
      const bar = make("div");
      bar.style.width = 100 * weight + "%";
      return make("tr", {}, make("td", {}, tokenText(data.shown[k])), make("td", {}, bar), make("td", {}, weightText(i, k)));
    }));
    if (!place) readout.replaceChildren(faint("Point at a token or a cell, or move with the arrow keys. Click or Enter pins; Escape unpins."));
    else if (j === null) readout.replaceChildren(faint("Row: where "), short(i), faint(" looks. Column: who looks at it."));
    else readout.replaceChildren(make("b", {}, isMasked(i, j) ? "masked" : weightText(i, j)), scores && !isMasked(i, j) ? ` from score ${scoreText(i, j)}` : "", make("br"),
      short(i), faint(` (${i}) looks at `), short(j), faint(` (${j})`));
  }
  function placeCross(i, j) {
    const { offsetLeft: left, offsetTop: top } = cells[0], cell = cells[i * T + j], side = cell.offsetWidth;
    for (const [box, ...edges] of [[cross.row, left, cell.offsetTop, side * T, cell.offsetHeight], [cross.column, cell.offsetLeft, top, side, cell.offsetHeight * T]]) {
      box.hidden = false;
      box.classList.toggle("fixed", !!state.pin && !state.hover);
      ["left", "top", "width", "height"].forEach((edge, n) => { box.style[edge] = edges[n] + "px"; });
    }
  }

  let cellSize = 0;
  function fit() {
    const room = scroll.clientWidth - rowHeads.reduce((most, th) => Math.max(most, th.offsetWidth), 0) - 8;
    const next = Math.max(T > 40 ? 14 : 20, Math.min(44, Math.floor(room / T)));
    if (next === cellSize || room <= 0) return;
    cellSize = next;
    matrix.classList.toggle("small", cellSize < 18);
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
    const H = entropy(i), name = (k) => `“${shorten(data.shown[k], 40)}” (${k})`;
    const row = `Row entropy ${H.toFixed(2)} bits, ${(2 ** H).toFixed(1)} tokens effectively.`;
    if (j === null) return `Token ${name(i)}. ${row}`;
    const value = isMasked(i, j) ? "masked" : `weight ${weightText(i, j)}${scores ? `, score ${scoreText(i, j)}` : ""}`;
    return `Query ${name(i)}, key ${name(j)}: ${value}. ${row}`;
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
  function rove(event, items, columns, current, then = () => {}) {
    const column = current % columns, line = current - column;
    const next = {
      ArrowLeft: column > 0 ? current - 1 : current, ArrowRight: column < columns - 1 ? current + 1 : current,
      ArrowUp: current - columns, ArrowDown: current + columns,
      Home: event.ctrlKey ? 0 : line, End: event.ctrlKey ? items.length - 1 : line + columns - 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    if (!items[next]) return;
    for (const item of items) item.tabIndex = item === items[next] ? 0 : -1;
    items[next].focus();
    then(next);
  }

  const cellOf = (event) => { const n = cells.indexOf(event.target.closest("td.cell")); return n < 0 ? null : [Math.floor(n / T), n % T]; };
  body.addEventListener("mouseover", (event) => hover(cellOf(event)));
  body.addEventListener("mouseleave", () => hover(null));
  body.addEventListener("focusin", (event) => {
    const place = cellOf(event);
    if (!place) return;
    cells[state.cursor[0] * T + state.cursor[1]].tabIndex = -1;
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
    } else rove(event, cells, T, i * T + j);
  });
  widget.addEventListener("keydown", (event) => { if (event.key === "Escape" && state.pin) pin(null); });

  // ---- Export
  function csv() {
    const lines = [["layer", "head", "causal_mask", "query", "query_token", "key", "key_token", ...(scores ? ["score"] : []), "weight"]];
    for (let i = 0; i < T; i++) for (let j = 0; j < T; j++) {
      lines.push([state.layer, state.head, +state.causal, i, data.tokens[i], j, data.tokens[j],
        ...(scores ? [scores[i][j] === -Infinity ? "" : +scoreText(i, j)] : []), +weightText(i, j)]);
    }
    return lines.map((line) => line.map(csvField).join(",") + "\r\n").join("");
  }
  function svg() {
    const side = 22, left = 110, top = 140, width = Math.max(left + side * T + 20, 460), height = top + side * T + 50;
    const text = (place, words, more = "") => `<text ${place}${more}>${escapeXml(words)}</text>`;
    const marks = cells.map((_, n) => {
      const i = Math.floor(n / T), j = n % T, fill = isMasked(i, j) ? "#eef1f4" : `rgb(${shade("light", level(i, j))})`;
      return `<rect x="${left + j * side}" y="${top + i * side}" width="21" height="21" fill="${fill}"><title>${cellText(i, j)}</title></rect>`;
    });
    data.shown.forEach((shown, k) => marks.push(
      text(`x="${left - 6}" y="${top + k * side + 15}" text-anchor="end"`, shorten(shown, 12), ' class="t"'),
      text(`transform="translate(${left + k * side + 15} ${top - 6}) rotate(-90)"`, shorten(shown, 12), ' class="t"')));
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img"><title>${escapeXml(data.title)}</title>`
      + '<style>text{font:13px sans-serif;fill:#1c2430}.t{font:12px monospace}</style><rect width="100%" height="100%" fill="#fff"/>'
      + text('x="16" y="26" font-weight="600"', data.title) + text('x="16" y="46"', `${headName()}, ${state.view}${state.causal ? ", causal mask" : ""}; rows: queries, columns: keys`) + marks.join("")
      + text(`x="16" y="${height - 16}"`, state.view === "scores" ? `white ${low.toFixed(2)}, dark ${high.toFixed(2)}` : "white 0, dark 1; colour: square root of the weight") + "</svg>";
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
