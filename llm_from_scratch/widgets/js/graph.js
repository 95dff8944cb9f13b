// The graph stepper. No dependencies; llm_from_scratch/widgets/graph.py writes the data it reads.
// A node's `inputs` are the places of its operands; `slot` is which of them an arrow carries.
(() => {
"use strict";
const FORMAT = 1;

// ---- Numbers

const exponent = (op) => Number(op.slice(2));

function apply(op, x) {
  if (op === "+") return x.reduce((a, b) => a + b, 0);
  if (op === "*") return x.reduce((a, b) => a * b, 1);
  if (op.startsWith("**")) return x[0] ** exponent(op);
  return { exp: Math.exp, log: Math.log, tanh: Math.tanh, relu: (v) => (v > 0 ? v : v === v ? 0 : v) }[op](x[0]);
}

// The derivative of the result with respect to the operand in `slot`.
function slope(op, x, result, slot) {
  if (op === "+") return 1;
  if (op === "*") return x.reduce((a, b, n) => (n === slot ? a : a * b), 1);
  if (op.startsWith("**")) return exponent(op) * x[0] ** (exponent(op) - 1);
  return { exp: result, log: 1 / x[0], tanh: 1 - result ** 2, relu: x[0] > 0 ? 1 : 0 }[op];
}

// Four significant digits and a true minus sign, as in Python.
function number(x) {
  if (!Number.isFinite(x)) return "undefined";
  if (x === 0) return "0";
  const small = Math.abs(x) < 1e-4 || Math.abs(x) >= 1e6;
  return (small ? x.toExponential(3).replace("+", "") : String(+x.toPrecision(4))).replaceAll("-", "−");
}
const factor = (x) => (x < 0 ? `(${number(x)})` : number(x));

// ---- The page's theme: what the page says (the book, Colab; JupyterLab; VS Code), else the system

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

const escapeXml = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

// RFC 4180, and an apostrophe before what a spreadsheet would run as a formula.
function csvField(value) {
  if (typeof value === "number") return String(value);
  const text = /^\s*[=+\-@]|^[\t\r]/.test(value) ? "'" + value : String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

//= shared_download.js

// ---- The view

const PICTURE = `
text { font: 12px system-ui, sans-serif; fill: var(--ink); } .k { font-weight: 600; } .o { fill: var(--faint); }
.g, .s { fill: var(--back); } .s { font-weight: 600; paint-order: stroke; stroke: var(--paper); stroke-width: 5px; stroke-linejoin: round; }
.n { fill: var(--wash); stroke: var(--edge); stroke-width: 1; } .open { stroke-dasharray: 3 3; fill: var(--paper); }
.a { fill: none; stroke: var(--edge); stroke-width: 1.5; } .h { fill: var(--edge); }
.now.n { stroke-width: 3; } .now.f.n, .f.a { stroke: var(--accent); } .now.r.n, .r.a { stroke: var(--back); }
.f.a, .r.a { stroke-width: 2.5; } .f.h { fill: var(--accent); } .r.h { fill: var(--back); }
`;
const LIGHT = "--paper: #fff; --ink: #1c2430; --faint: #566070; --line: #dde2e8; --edge: #858f9c; --accent: #1b5fae; --back: #a33f00; --wash: #f3f6f9;";
const STYLE = `
:host { ${LIGHT} display: block; color-scheme: light; }
:host([data-theme=dark]) { --paper: #1b1e24; --ink: #e6e9ee; --faint: #a6afbb; --line: #343a44; --edge: #77818f;
  --accent: #8fc1ff; --back: #ffb27a; --wash: #23272f; color-scheme: dark; }
* { box-sizing: border-box; min-width: 0; }
[hidden] { display: none !important; }
.widget { container-type: inline-size; background: var(--paper); color: var(--ink); border: 1px solid var(--line);
  border-radius: 10px; padding: 1rem 1.125rem; margin: .75rem 0; font: .875rem/1.45 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; text-align: start; }
p { margin: 0; overflow-wrap: anywhere; }
.title { font-size: 1.0625rem; font-weight: 600; }
.caption, .label { color: var(--faint); }
.caption { margin-top: .75rem; border-top: 1px solid var(--line); padding-top: .75rem; }
.label { font-size: .8125rem; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.end { margin-inline-start: auto; display: flex; gap: .5rem; }
button, input { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px; min-height: 36px; padding: 0 .625rem; }
button { cursor: pointer; } button:hover { background: var(--wash); }
.steps { flex-wrap: nowrap; gap: .375rem; } .steps button { flex: auto; padding: 0 .3rem; white-space: nowrap; }
.steps .next { background: var(--accent); border-color: var(--accent); color: var(--paper); font-weight: 600; flex-grow: 3; }
[aria-disabled=true] { opacity: .45; cursor: default; }
:focus { outline: none; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.main { display: grid; gap: 1rem; margin-top: .875rem; grid-template-columns: minmax(0, 1fr) 13.5rem; }
.side { display: grid; gap: .875rem; align-self: start; position: sticky; top: 4rem; }
.graph { overflow: auto; max-height: 52rem; }
@container (max-width: 36rem) { .main { grid-template-columns: minmax(0, 1fr); } .side { display: contents; } .steps { order: -2; } .step { order: -1; } .graph { max-height: 26rem; } }
svg { display: block; margin: 0 auto; }
.step { min-height: 11.5rem; }
.step b { display: block; font-size: 1.0625rem; line-height: 1.35; margin: .125rem 0 .25rem; overflow-wrap: anywhere; }
.step .formula { margin: .125rem 0; padding-inline-start: .75rem; text-indent: -.75rem; }
.step .words { margin-top: .375rem; color: var(--faint); }
.forward { color: var(--accent); } .backward { color: var(--back); }
.inputs { display: grid; grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); gap: .375rem .625rem; margin-top: .375rem; }
.inputs label { display: grid; grid-template-columns: 2.25rem 1fr; gap: .375rem; align-items: center; }
.inputs bdi { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.inputs input { width: 100%; padding: 0 .375rem; }
.inputs input:invalid { border: 2px solid var(--back); }
.inputs button { align-self: end; }
table { border-collapse: collapse; width: 100%; margin-top: .375rem; } th, td { padding: 2px .75rem 2px 0; text-align: start; font-weight: 400; }
th { color: var(--faint); } details { margin-top: .75rem; } summary { cursor: pointer; color: var(--faint); min-height: 24px; } .scroll { overflow-x: auto; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
${PICTURE}
@media (forced-colors: active) { text { fill: CanvasText; stroke: none !important; } .n { fill: Canvas; stroke: CanvasText; } .a { stroke: GrayText; } .h { fill: GrayText; }
  .now.n, .f.a, .r.a { stroke: Highlight !important; } .f.h, .r.h { fill: Highlight !important; } .steps .next { border-width: 2px; } }
@media print { .end, .steps, .inputs, .inputs-title { display: none; } .widget { break-inside: avoid; } .graph { overflow: visible; max-height: none; } }
`;

function GraphStepper(root, data) {
  const { nodes, arrows, output } = data, [wide, high] = data.box;
  const places = nodes.map((_, i) => i), name = (i) => nodes[i].shown;
  const drawn = places.filter((i) => nodes[i].at);
  // Layer by layer, in a layer from left to right: every node after its inputs.
  const inOrder = [...drawn].sort((a, b) => nodes[a].at[1] - nodes[b].at[1] || nodes[a].at[0] - nodes[b].at[0]);
  const steps = [...inOrder.filter((i) => nodes[i].op).map((node) => ({ node, back: false })),
    ...[...inOrder].reverse().sort((a, b) => nodes[b].at[1] - nodes[a].at[1] || nodes[a].at[0] - nodes[b].at[0]).map((node) => ({ node, back: true }))];
  const forwards = steps.filter((step) => !step.back).length;
  const start = nodes.map((node) => node.value), state = { step: 0, leaves: [...start] };
  const users = places.map((i) => places.flatMap((j) => nodes[j].inputs.flatMap((k, slot) => (k === i ? [{ node: j, slot }] : []))));

  let values, grads;
  const operands = (j) => nodes[j].inputs.map((k) => values[k]);
  const local = ({ node, slot }) => slope(nodes[node].op, operands(node), values[node], slot);
  function compute() {
    values = [...state.leaves];
    for (const i of data.order) if (nodes[i].op) values[i] = apply(nodes[i].op, operands(i));
    grads = places.map(() => 0);
    grads[output] = 1;
    for (const i of [...data.order].reverse()) {
      if (i !== output) grads[i] = users[i].reduce((sum, use) => sum + grads[use.node] * local(use), 0);
    }
  }
  // What is known after the steps so far.
  const known = (i) => !nodes[i].op || steps.slice(0, state.step).some((step) => !step.back && step.node === i);
  const reached = (i) => steps.slice(0, state.step).some((step) => step.back && step.node === i);

  // ---- The words and numbers of a step
  const L = name(output), d = (i) => `∂${L}/∂${name(i)}`;
  const term = (k) => (nodes[k].constant ? factor(values[k]) : name(k));
  function formula(i, show) {
    const { op, inputs } = nodes[i], parts = inputs.map(show);
    if (op === "+") return parts.join(" + ");
    if (op === "*") return parts.join(" × ");
    if (op.startsWith("**")) return `${parts[0]} ^ ${factor(exponent(op))}`;
    const inside = parts[0].replace(/^\((.*)\)$/, "$1");
    return op === "relu" ? `max(0, ${inside})` : `${op}(${inside})`;
  }
  const WHY = { "+": "a sum passes the slope on unchanged, so its local slope is", exp: "the slope of exp is its own result,",
    log: "the slope of log is one over its input,", tanh: "the slope of tanh is 1 minus its result squared," };
  function why({ node, slot }) {
    const { op, inputs } = nodes[node], s = number(local({ node, slot }));
    if (op === "*") return `the slope of a product is the other factor, ${inputs.filter((_, n) => n !== slot).map(term).join(" × ")}: ${s}`;
    if (op === "relu") return values[inputs[0]] > 0 ? "ReLU's input is positive, so its slope is 1" : "ReLU's input is not positive, so its slope is 0 and nothing passes";
    if (op.startsWith("**")) return `the slope of a power is its exponent times its input to the power one lower, ${s}`;
    return `${WHY[op]} ${s}`;
  }
  function describe(step = state.step) {
    if (step === 0) {
      return { label: `Start: ${steps.length} steps`, title: "The inputs are given", lines: [],
        words: `${forwards} steps forward compute ${L}. ${steps.length - forwards} steps back give its slope in every value.` };
    }
    const { node: i, back } = steps[step - 1];
    const label = back ? `Back ${step - forwards} of ${steps.length - forwards}` : `Forward ${step} of ${forwards}`;
    if (!back) {
      const wrong = Number.isFinite(values[i]) ? "" : " This value is undefined or out of range; change an input.";
      return { label, back, title: `${name(i)} = ${number(values[i])}`, lines: [`${name(i)} = ${formula(i, term)}`, `= ${formula(i, (k) => factor(values[k]))}`, `= ${number(values[i])}`],
        words: `${users[i].length > 1 ? `${name(i)} will be used ${users[i].length} times.` : i === output ? `This is the output: the way forward ends.` : ""}${wrong}` };
    }
    if (i === output) return { label, back, title: `${d(i)} = 1`, lines: [], words: `The walk back begins: the slope of ${L} with respect to itself is 1.` };
    const uses = users[i], twice = uses.length > 1;
    const lines = [`${d(i)} = ${uses.map(({ node }) => `${d(node)} · ∂${name(node)}/∂${name(i)}`).join(" + ")}`,
      `= ${uses.map((use) => `${factor(grads[use.node])} × ${factor(local(use))}`).join(" + ")}`, `= ${number(grads[i])}`];
    if (twice && new Set(uses.map((use) => use.node)).size < uses.length) lines[0] += ", once for each operand";
    const because = uses.map((use) => `${why(use)}; the upstream slope at ${name(use.node)} is ${number(grads[use.node])}.`);
    return { label, back, lines, title: `${d(i)} = ${number(grads[i])}`,
      words: (twice ? `${name(i)} is used ${uses.length} times: the contributions add up. ` : "Local slope times upstream slope: ")
        + because.map((text) => (twice ? text[0].toUpperCase() + text.slice(1) : text)).join(" ") };
  }

  // ---- Elements
  const button = (text, label, act, kind = null) => make("button", { type: "button", "aria-label": label, title: label, class: kind, onclick: act }, text);
  const first = button("|◀", "To the start", () => go(0)), previous = button("◀ Back", "Back one step", () => go(state.step - 1));
  const next = button("Next ▶", "Next step", () => go(state.step + 1), "next"), last = button("▶|", "To the end", () => go(steps.length));
  const buttons = make("div", { class: "bar steps", role: "group", "aria-label": "Steps; the arrow keys work too", onkeydown: keys }, first, previous, next, last);
  const stepBox = make("div", { class: "step" }), spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  const svgNode = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: `0 0 ${data.size[0]} ${data.size[1]}`, width: data.size[0], height: data.size[1], role: "img" })) svgNode.setAttribute(key, value);
  const graph = make("div", { class: "graph", tabindex: 0, role: "region", "aria-label": "Graph; left and right arrow keys step", onkeydown: keys }, svgNode);
  const fields = drawn.filter((i) => !nodes[i].op).map((i) => {
    const input = make("input", { type: "number", step: "any", required: "", value: start[i], "aria-label": `Value of ${name(i)}`,
      oninput: () => { if (input.value !== "" && Number.isFinite(+input.value)) set(i, +input.value); },
      onblur: () => { if (input.value === "") input.value = state.leaves[i]; } });
    return { i, input, label: make("label", {}, make("bdi", { title: name(i), "aria-hidden": "true" }, name(i)), input) };
  });
  const reset = button("Reset", "Reset the inputs", () => { state.leaves = [...start]; for (const { i, input } of fields) input.value = start[i]; update("The inputs are as at first. "); });
  const body = make("tbody");
  // Else JupyterLab would take the keys: it looks at the host, which stands for what is focused inside it.
  const host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  shadow.append(make("style", {}, STYLE), make("div", { class: "widget", role: "group", "aria-label": data.title },
    make("div", { class: "bar" }, make("p", { class: "title" }, data.title), make("div", { class: "end" },
      button("SVG", "Export as SVG", () => download("graph.svg", "image/svg+xml", svg())),
      button("CSV", "Export as CSV", () => download("graph.csv", "text/csv;charset=utf-8", csv())))),
    make("div", { class: "main" }, graph, make("div", { class: "side" }, buttons, stepBox,
      make("div", {}, make("p", { class: "label inputs-title" }, "Inputs, to be changed"), make("div", { class: "inputs" }, ...fields.map((field) => field.label), reset)))),
    make("details", {}, make("summary", {}, "Table of the values so far"), make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Values so far" }, make("table", {},
      make("thead", {}, make("tr", {}, ...["Node", "Made by", "Value", `Slope of ${L}`].map((text) => make("th", { scope: "col" }, text)))), body))),
    make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken));

  // ---- Drawing
  function curve(points) {
    return points.slice(1).reduce((path, [x, y], n) => {
      const half = (points[n][1] + y) / 2;
      return `${path}C${points[n][0]} ${half} ${x} ${half} ${x} ${y}`;
    }, `M${points[0]}`);
  }
  function drawing() {
    const now = state.step ? steps[state.step - 1] : null;
    const lit = ({ from, to }) => (now ? (now.back ? (from === now.node ? " r" : "") : to === now.node ? " f" : "") : "");
    const sorted = [...arrows].sort((a, b) => lit(a).length - lit(b).length);
    const lines = sorted.map((arrow) => {
      const [x, y] = lit(arrow) === " r" ? arrow.points[0] : arrow.points.at(-1), tip = lit(arrow) === " r" ? 8 : -8;
      return `<path class="a${lit(arrow)}" d="${curve(arrow.points)}"/><path class="h${lit(arrow)}" d="M${x} ${y}l-4.5 ${tip}h9z"/>`;
    }).join("");
    const boxes = drawn.map((i) => {
      const [x, y] = nodes[i].at, left = x - wide / 2 + 7, right = x + wide / 2 - 7;
      const mark = now && now.node === i ? ` now ${now.back ? "r" : "f"}` : known(i) ? "" : " open";
      const text = (kind, px, py, words, end) => `<text class="${kind}" x="${px}" y="${py}"${end ? ' text-anchor="end"' : ""}>${escapeXml(words)}</text>`;
      return `<g><title>${escapeXml(name(i))}</title><rect class="n${mark}" x="${x - wide / 2}" y="${y - high / 2}" width="${wide}" height="${high}" rx="7"/>`
        + text("k", left, y - 11, shorten(name(i), 6)) + text("o", right, y - 11, shorten(nodes[i].label, 5), true)
        + (known(i) ? text("v", left, y + 5, number(values[i])) : "") + (reached(i) ? text("g", right, y + 20, number(grads[i]), true) : "") + "</g>";
    }).join("");
    // The local slopes stand on the arrows of a step back.
    const slopes = now && now.back ? sorted.filter(lit).map((arrow) => {
      const n = Math.floor((arrow.points.length - 1) / 2), [a, b] = [arrow.points[n], arrow.points[n + 1]];
      return `<text class="s" x="${(a[0] + b[0]) / 2 + 7}" y="${(a[1] + b[1]) / 2 + 4}">×${escapeXml(number(local({ node: arrow.to, slot: arrow.slot })))}</text>`;
    }).join("") : "";
    return lines + boxes + slopes;
  }

  let speech;
  function update(before = "", aloud = true) {
    compute();
    const { label, back, title, lines, words } = describe();
    svgNode.innerHTML = drawing();
    svgNode.setAttribute("aria-label", `${label}. ${title}. The table below holds the values.`);
    stepBox.replaceChildren(make("p", { class: `label ${state.step ? (back ? "backward" : "forward") : ""}` }, label), make("b", {}, title),
      ...lines.map((line) => make("p", { class: "formula" }, line)), make("p", { class: "words" }, words));
    for (const [element, off] of [[first, state.step === 0], [previous, state.step === 0], [next, state.step === steps.length], [last, state.step === steps.length]]) element.setAttribute("aria-disabled", off);
    body.replaceChildren(...data.order.map((i) => make("tr", {}, ...[name(i), nodes[i].op ? formula(i, term) : nodes[i].constant ? "constant" : "input",
      known(i) ? number(values[i]) : "", reached(i) ? number(grads[i]) : ""].map((text) => make("td", {}, text)))));
    if (!aloud) return;
    clearTimeout(speech);
    const said = `${before}${label}: ${title.replace(/∂(.*)\/∂(.*) = /, "slope of $1 in $2 is ")}. ${words}`;
    speech = setTimeout(() => { spoken.textContent = said; }, 150);
  }
  function go(step) {
    const wanted = Math.min(steps.length, Math.max(0, step));
    if (wanted === state.step) return;
    state.step = wanted;
    update();
    const [x, y] = nodes[steps[Math.max(0, wanted - 1)].node].at; // bring the node into the graph's own window
    graph.scrollTo(x - graph.clientWidth / 2, y - graph.clientHeight / 2);
  }
  function set(i, value) {
    state.leaves[i] = value;
    update(`${name(i)} is now ${number(value)}. `);
  }
  function keys(event) {
    const target = { ArrowLeft: state.step - 1, ArrowRight: state.step + 1, Home: 0, End: steps.length }[event.key];
    if (target === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    go(target);
  }

  // ---- Export
  function csv() {
    const table = [["node", "made_by", "value", "gradient"], ...data.order.map((i) => [nodes[i].name, nodes[i].op ? formula(i, term) : nodes[i].constant ? "constant" : "input",
      known(i) ? values[i] : "", reached(i) ? grads[i] : ""])];
    return table.map((line) => line.map(csvField).join(",") + "\r\n").join("");
  }
  function svg() {
    const colours = Object.fromEntries(LIGHT.split(";").filter((pair) => pair.includes(":")).map((pair) => pair.split(":").map((part) => part.trim())));
    const style = PICTURE.replace(/var\((.*?)\)/g, (_, key) => colours[key]), { label, title } = describe();
    const width = Math.max(data.size[0], 360), height = data.size[1] + 56;
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img"><title>${escapeXml(data.title)}</title><style>${style}</style>`
      + `<rect width="100%" height="100%" fill="#fff"/><text class="k" x="8" y="20">${escapeXml(data.title)}</text><text x="8" y="40">${escapeXml(`${label}: ${title}`)}</text>`
      + `<g transform="translate(0 56)">${drawing()}</g></svg>`;
  }

  // ---- Start
  root.append(host);
  followTheme(() => { host.dataset.theme = pageTheme(); });
  update("", false);
  return { state, steps, go, set, csv, svg, csvField, describe, apply, slope, number, values: () => values, grads: () => grads };
}

// Mount every root of this kind that has data and no view yet: this output's own, and no other.
for (const root of document.querySelectorAll('[data-llm-widget="graph"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = GraphStepper(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("The graph stepper could not start; its table stays.", error);
  }
}
})();
