// The beam tree. No dependencies; llm_from_scratch/widgets/beam_tree.py writes the data it reads.
(() => {
"use strict";
const FORMAT = 1;

// ---- The search, on the table: the rules of decoding.beam_search

function search(data, { beams: K, penalty, stopping }) {
  const { table, max_new_tokens: last } = data, stop = new Set(data.stop_ids);
  const nodes = [{ parent: null, token: null, step: 0, logProbability: 0, total: 0, state: "kept" }];
  const width = K * Math.max(2, 1 + stop.size), score = (total, n) => total / n ** penalty;
  let beams = [{ key: "", node: 0 }], finished = [];
  for (let step = 1; step <= last; step++) {
    const found = beams.flatMap(({ key, node }, order) => {
      const [ids, values] = table[key];
      return ids.map((token, n) => ({ order, token, parent: node, step, logProbability: values[n], total: nodes[node].total + values[n], key: key ? `${key} ${token}` : `${token}` }));
    });
    found.sort((a, b) => b.total - a.total || a.order - b.order || a.token - b.token);
    beams = [];
    found.slice(0, width).forEach((one, rank) => {
      const node = nodes.length;
      one.state = "dropped";
      if (stop.has(one.token) || step === last) {
        if (rank < K) {
          one.state = "ended";
          finished.push({ ids: one.key.split(" ").map(Number), node, total: one.total, score: score(one.total, step) });
        }
      } else if (beams.length < K) {
        one.state = "kept";
        beams.push({ key: one.key, node });
      }
      nodes.push(one);
    });
    finished = finished.sort((a, b) => b.score - a.score).slice(0, K);
    if (!beams.length) break;
    if (finished.length < K) continue;
    const bound = score(nodes[beams[0].node].total, stopping === "never" && penalty > 0 ? last : step);
    if (stopping === "true" || bound <= finished[K - 1].score) break;
  }
  return { nodes, finished, steps: nodes[nodes.length - 1].step };
}

function pathTo(nodes, number) {
  const path = new Set();
  for (let n = number; n !== null && n !== undefined; n = nodes[n].parent) path.add(n);
  return path;
}

// ---- The page's theme (the book, Colab; JupyterLab; VS Code), else the system's

//= shared_theme.js

// ---- Elements and files

//= shared_make.js

const shorten = (text, length) => (Array.from(text).length > length ? Array.from(text).slice(0, length - 1).join("") + "…" : text);
// What XML does not allow: lone surrogates and control characters.
const clean = (text) => String(text).replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
const escapeXml = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

//= shared_download.js

// ---- The view

const COLOURS = {
  light: { paper: "#ffffff", ink: "#1c2430", faint: "#566070", line: "#dde2e8", edge: "#858f9c", accent: "#1b5fae", other: "#a33f00", wash: "#f3f6f9", keptfill: "#e8f0fa", endfill: "#fdf0e4" },
  dark: { paper: "#1b1e24", ink: "#e6e9ee", faint: "#a6afbb", line: "#343a44", edge: "#77818f", accent: "#8fc1ff", other: "#ffb27a", wash: "#23272f", keptfill: "#1f3148", endfill: "#43301f" },
};
const listed = (colours) => Object.entries(colours).map(([key, value]) => `--${key}: ${value};`).join(" ");
const PICTURE = `
text { font: 12px system-ui, sans-serif; fill: var(--ink); } .faint { fill: var(--faint); } .end { text-anchor: end; }
.edge { fill: none; stroke: var(--edge); } .win { fill: none; stroke: var(--accent); stroke-width: 2.5; }
.kept { fill: var(--keptfill); stroke: var(--accent); } .ended { fill: var(--endfill); stroke: var(--other); } .dropped { fill: var(--paper); stroke: var(--edge); stroke-dasharray: 4 3; }
.best { stroke-width: 3; } .square { fill: var(--other); } .dot { fill: var(--ink); }
`;
const STYLE = `
:host { ${listed(COLOURS.light)} display: block; color-scheme: light; }
:host([data-theme=dark]) { ${listed(COLOURS.dark)} color-scheme: dark; }
* { box-sizing: border-box; min-width: 0; }
.widget { background: var(--paper); color: var(--ink); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.125rem; margin: .75rem 0; font: .875rem/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; text-align: start; }
p { margin: 0; overflow-wrap: anywhere; }
.title { font-size: 1.0625rem; font-weight: 600; }
.caption, .label { color: var(--faint); }
.caption { margin-top: .75rem; border-top: 1px solid var(--line); padding-top: .75rem; }
.prompt { margin-top: .5rem; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.end { margin-inline-start: auto; display: flex; gap: .5rem; }
button, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px; min-height: 36px; padding: 0 .625rem; max-width: 100%; }
button { cursor: pointer; } button:hover:enabled { background: var(--wash); } button:disabled { color: var(--faint); cursor: default; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin-top: .875rem; align-items: end; }
.controls label { display: grid; gap: .125rem; }
.controls .wide { flex: 1 1 10rem; }
input { width: 100%; min-height: 36px; accent-color: var(--accent); margin: 0; }
.tree { margin-top: .75rem; overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; } svg { display: block; }
.words { margin-top: .625rem; min-height: 4.4em; }
table { border-collapse: collapse; width: 100%; margin-top: .375rem; } th, td { padding: 2px .75rem 2px 0; text-align: start; font-weight: 400; vertical-align: top; }
td:nth-child(n+3), th:nth-child(n+3) { text-align: end; } td:nth-child(2) { overflow-wrap: anywhere; min-width: 9rem; }
th { color: var(--faint); } .scroll { overflow-x: auto; margin-top: .5rem; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
${PICTURE}
@media (forced-colors: active) { text { fill: CanvasText; } .kept, .ended, .dropped { fill: Canvas; stroke: CanvasText; } .edge { stroke: CanvasText; } .win, .best { stroke: Highlight; } .dot, .square { fill: CanvasText; } }
@media print { .end, .controls { display: none; } .widget { break-inside: avoid; } }
`;
const WIDE = 132, HIGH = 32, BOX = 112; // one step, one row, the width of a node
const STOPPING = { true: "at once (True)", false: "best beam no better (False)", never: "no beam can win (\"never\")" };

function BeamTree(root, data) {
  const state = { beams: data.num_beams, penalty: data.length_penalty, stopping: String(data.early_stopping), step: 0 };
  const token = (id) => data.texts[id][0], shown = (id) => data.texts[id][1];
  const written = (one) => one.ids.map(shown).join(""), fixed = (x, digits) => x.toFixed(digits).replace("-", "−");
  const greedyOf = () => search(data, { ...state, beams: 1 }).finished[0];
  let result = search(data, state);
  state.step = result.steps;

  // ---- Elements
  const button = (text, label, act) => make("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
  function choice(label, key, values, say) {
    const select = make("select", { "aria-label": label, onchange: () => set({ [key]: typeof state[key] === "number" ? +select.value : select.value }) },
      ...values.map((value) => make("option", { value, ...(value === state[key] ? { selected: "" } : {}) }, say(value))));
    return { key, select, label: make("label", {}, make("span", { class: "label" }, label), select) };
  }
  const sorted = (values) => [...new Set(values)].sort((a, b) => a - b);
  const beams = choice("Beams", "beams", Array.from({ length: data.max_beams }, (_, n) => n + 1), (n) => (n === 1 ? "1 (greedy)" : String(n)));
  const penalty = choice("Length penalty", "penalty", sorted([-1, 0, 0.5, 1, 1.5, 2, state.penalty]), (n) => String(n).replace("-", "−"));
  const stopping = choice("Stop when enough have ended", "stopping", Object.keys(STOPPING), (key) => STOPPING[key]);
  const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Step", oninput: () => set({ step: +slider.value }) });
  const sliderLabel = make("span", { class: "label" });
  const back = button("‹ Back", "One step back", () => set({ step: state.step - 1 })), forth = button("Step ›", "One step forward", () => set({ step: state.step + 1 }));
  const tree = make("div", { class: "tree", tabindex: 0, role: "region", "aria-label": "Tree, scrolls sideways" });
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const words = make("p", { class: "words" }), spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" }), body = make("tbody");
  // Else JupyterLab would take the keys.
  const host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  tree.append(picture);
  shadow.append(make("style", {}, STYLE), make("div", { class: "widget", role: "group", "aria-label": data.title },
    make("div", { class: "bar" }, make("p", { class: "title" }, data.title), make("div", { class: "end" },
      button("SVG", "Export as SVG", () => download("beam-tree.svg", "image/svg+xml", svg())),
      button("CSV", "Export as CSV", () => download("beam-tree.csv", "text/csv;charset=utf-8", csv())))),
    make("p", { class: "prompt" }, make("span", { class: "label" }, "Prompt: "), shorten(data.prompt, 300)),
    make("div", { class: "controls" }, back, forth, make("label", { class: "wide" }, sliderLabel, slider), beams.label, penalty.label, stopping.label),
    tree, words,
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Finished texts" }, make("table", {},
      make("thead", {}, make("tr", {}, ...["Search", "Text", "Tokens", "Log-prob.", "Score"].map((name) => make("th", { scope: "col" }, name)))), body)),
    make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken));

  // ---- Drawing
  const over = () => state.step === result.steps;
  function draw() {
    const { nodes, finished } = result, rows = {}, place = [], winner = over() && finished.length ? pathTo(nodes, finished[0].node) : new Set();
    const greedy = greedyOf(), greedyKeys = new Set();
    if (greedy) greedy.ids.forEach((_, n) => greedyKeys.add(greedy.ids.slice(0, n + 1).join(" ")));
    let edges = "", boxes = "", highest = 1;
    nodes.forEach((node, number) => {
      if (node.step > state.step) return;
      const row = rows[node.step] || 0, x = 10 + WIDE * node.step, y = 10 + HIGH * row;
      rows[node.step] = row + 1;
      highest = Math.max(highest, row + 1);
      place[number] = [x, y];
      if (node.parent !== null) {
        const [px, py] = place[node.parent];
        edges += `<path class="${winner.has(number) ? "win" : "edge"}" d="M${px + BOX} ${py + 13}L${x} ${y + 13}"/>`;
      }
      const label = node.token === null ? "prompt" : shorten(shown(node.token), 8);
      boxes += `<rect class="${node.state}${winner.has(number) ? " best" : ""}" x="${x}" y="${y}" width="${BOX}" height="26" rx="4"/><text x="${x + 7}" y="${y + 17}"${node.state === "dropped" ? ' class="faint"' : ""}>${escapeXml(label)}</text>`;
      if (node.token !== null) boxes += `<text class="end${node.state === "dropped" ? " faint" : ""}" x="${x + BOX - 6}" y="${y + 17}">${fixed(node.total, 2)}</text>`;
      if (node.state === "ended") boxes += `<rect class="square" x="${x + BOX - 4}" y="${y - 4}" width="8" height="8"/>`;
      if (greedyKeys.has(node.key)) boxes += `<circle class="dot" cx="${x}" cy="${y + 13}" r="3.5"/>`;
    });
    return { markup: edges + boxes, width: 20 + BOX + WIDE * state.step, height: 18 + HIGH * highest };
  }

  function describe() {
    const { nodes, finished } = result, here = nodes.filter((node) => node.step === state.step);
    const list = (kind) => here.filter((node) => node.state === kind).map((node) => `“${shown(node.token)}” (${fixed(node.total, 2)})`).join(", ");
    const start = `Step ${state.step} of ${result.steps}, ${state.beams} beam${state.beams === 1 ? "" : "s"}. `;
    if (!state.step) return start + "Only the prompt is there.";
    const parts = [["Kept", list("kept")], ["Ended", list("ended")], ["Dropped", list("dropped")]].filter(([, names]) => names).map(([kind, names]) => `${kind}: ${names}.`).join(" ");
    return start + parts + (over() && finished.length ? ` The search is over; the best text is “${written(finished[0])}”, score ${fixed(finished[0].score, 3)}.` : "");
  }
  function rows() {
    const greedy = greedyOf(), line = (how, one) => [how, written(one), one.ids.length, fixed(one.total, 3), fixed(one.score, 3)];
    return [...result.finished.map((one) => line("beam search", one)), ...(greedy ? [line("greedy", greedy)] : [])];
  }

  let speech;
  function update(aloud) {
    slider.max = result.steps;
    slider.value = state.step;
    sliderLabel.textContent = `Step ${state.step} of ${result.steps}`;
    slider.setAttribute("aria-valuetext", `step ${state.step} of ${result.steps}`);
    back.disabled = state.step === 0;
    forth.disabled = over();
    const drawn = draw(), said = describe();
    for (const [key, value] of [["role", "img"], ["viewBox", `0 0 ${drawn.width} ${drawn.height}`], ["width", drawn.width], ["height", drawn.height], ["aria-label", "Tree of candidates. The words below say what this step did."]]) picture.setAttribute(key, value);
    picture.innerHTML = drawn.markup;
    if (aloud) tree.scrollLeft = tree.scrollWidth;
    words.textContent = said;
    body.replaceChildren(...rows().map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, String(cell))))));
    if (!aloud) return;
    clearTimeout(speech);
    speech = setTimeout(() => { spoken.textContent = said; }, 200);
  }
  function set(changes) {
    Object.assign(state, changes);
    result = search(data, state);
    // Another setting shows its whole search; the step is kept only where it was chosen.
    state.step = "step" in changes ? Math.max(0, Math.min(state.step, result.steps)) : result.steps;
    for (const part of [beams, penalty, stopping]) part.select.value = String(state[part.key]);
    update(true);
  }

  // ---- Export
  const quoted = (text) => `"${(/^[=+\-@\t\r]/.test(text) ? "'" : "") + text.replaceAll('"', '""')}"`;
  function csv() {
    const lines = result.nodes.map((node, number) => [number, node.parent === null ? "" : node.parent, node.step, node.token === null ? "" : node.token, quoted(node.token === null ? data.prompt : token(node.token)), node.logProbability, node.total, node.state]);
    return [["node", "parent", "step", "token_id", "token", "log_probability", "total", "state"], ...lines].map((line) => line.join(",") + "\r\n").join("");
  }
  function svg() {
    const style = PICTURE.replace(/var\(--(.*?)\)/g, (_, key) => COLOURS.light[key]), drawn = draw(), width = Math.max(drawn.width, 420);
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${drawn.height + 56}" width="${width}" height="${drawn.height + 56}" role="img"><title>${escapeXml(clean(data.title))}</title><style>${style}</style><rect width="100%" height="100%" fill="#fff"/>`
      + `<text x="10" y="22">${escapeXml(clean(shorten(data.title, 60)))}</text><text x="10" y="42" class="faint">${state.beams} beams, length penalty ${state.penalty}, step ${state.step}</text><g transform="translate(0 52)">${clean(drawn.markup)}</g></svg>`;
  }

  // ---- Start
  root.append(host);
  followTheme(() => { const now = pageTheme(); if (now !== host.dataset.theme) { host.dataset.theme = now; update(false); } });
  return { state, set, csv, svg, describe, rows, search: (settings) => search(data, { ...state, ...settings }) };
}

// Mount every root of this kind that has data and no view yet.
for (const root of document.querySelectorAll('[data-llm-widget="beam_tree"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = BeamTree(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("The beam tree could not start; its table stays.", error);
  }
}
})();
