// The projection explorer. No dependencies; llm_from_scratch/widgets/projection.py writes the data it reads.
// `near[i]` are the places of the nearest neighbours of word i, nearest first; `similar[i]` how near each is.
(() => {
"use strict";
const FORMAT = 1;

// Two decimals and a true minus sign, as in Python.
function number(x) {
  return x.toFixed(2).replace("-0.00", "0.00").replace("-", "−");
}

// ---- The page's theme (the book, Colab; JupyterLab; VS Code), else the system's

function pageTheme() {
  const { documentElement: html, body } = document;
  if (matchMedia("print").matches) return "light";
  const named = `${html.dataset.theme || html.getAttribute("theme") || body.dataset.vscodeThemeKind || ""}`;
  if (/dark|light/.test(named)) return /dark/.test(named) ? "dark" : "light";
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "true" ? "light" : "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function followTheme(listener) {
  const watcher = new MutationObserver(listener);
  for (const element of [document.documentElement, document.body]) watcher.observe(element, { attributes: true });
  for (const name of ["print", "(prefers-color-scheme: dark)"]) matchMedia(name).addEventListener("change", listener);
  listener();
}

// ---- Elements and files

//= shared_make.js

const shorten = (text, most) => (Array.from(text).length > most ? Array.from(text).slice(0, most - 1).join("") + "…" : text);

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
  setTimeout(() => URL.revokeObjectURL(link.href), 9999);
}

// ---- The view

const PICTURE = `
text { font: 12px system-ui, sans-serif; fill: var(--faint); stroke: var(--paper); stroke-width: 3px; paint-order: stroke; stroke-linejoin: round; }
.p { fill: var(--edge); } .l { stroke: var(--back); stroke-width: 1.5; } .near.p { fill: var(--back); } .now.p { fill: var(--accent); }
text.near { fill: var(--back); } text.now { fill: var(--accent); font-weight: 700; } .found.p { stroke: var(--ink); stroke-width: 2; }
`;
const LIGHT = "--paper: #fff; --ink: #1c2430; --faint: #566070; --line: #dde2e8; --edge: #858f9c; --accent: #1b5fae; --back: #a33f00; --wash: #f3f6f9;";
const STYLE = `
:host { ${LIGHT} display: block; color-scheme: light; }
:host([data-theme=dark]) { --paper: #1b1e24; --ink: #e6e9ee; --faint: #a6afbb; --line: #343a44; --edge: #77818f;
  --accent: #8fc1ff; --back: #ffb27a; --wash: #23272f; color-scheme: dark; }
* { box-sizing: border-box; min-width: 0; }
.widget { container-type: inline-size; background: var(--paper); color: var(--ink); border: 1px solid var(--line);
  border-radius: 10px; padding: 1rem; margin: .75rem 0; font: .875rem/1.45 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
p { margin: 0; overflow-wrap: anywhere; }
.title { font-size: 1.0625rem; font-weight: 600; }
.caption, .label, th { color: var(--faint); } .label { font-size: .8125rem; }
.caption { margin-top: .75rem; border-top: 1px solid var(--line); padding-top: .75rem; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.end { margin-inline-start: auto; display: flex; gap: .5rem; }
button, input { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px; min-height: 36px; padding: 0 .625rem; }
button:hover { background: var(--wash); } input { width: 100%; margin: .25rem 0; }
:focus { outline: none; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.main { display: grid; gap: 1rem; margin-top: .875rem; grid-template-columns: minmax(0, 1fr) 13rem; }
.side { align-self: start; }
@container (max-width: 36rem) { .main { grid-template-columns: minmax(0, 1fr); } .side { order: -1; } }
svg { display: block; width: 100%; border: 1px solid var(--line); border-radius: 6px; cursor: pointer; }
table { border-collapse: collapse; width: 100%; } caption { text-align: start; font-weight: 600; overflow-wrap: anywhere; padding-bottom: .25rem; }
th, td { padding: 0 .5rem 0 0; text-align: start; font-weight: 400; } th:last-child, td:last-child { text-align: end; padding: 0; }
td button { border: 0; min-height: 28px; padding: 0 .25rem; max-width: 9.5rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--accent); }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
${PICTURE}
@media (forced-colors: active) { text { fill: CanvasText; stroke: none; } .p { fill: GrayText; } .near.p { fill: CanvasText; } .now.p, text.now { fill: Highlight; } .l { stroke: CanvasText; } }
@media print { .end, .search { display: none; } .widget { break-inside: avoid; } }
`;

function ProjectionExplorer(root, data) {
  const { words, shown, at, near, similar } = data;
  const places = words.map((_, i) => i), state = { chosen: data.chosen, found: [], query: "" };
  const lower = shown.map((text) => text.toLowerCase());
  const [low, high] = [Math.min, Math.max].map((end) => [0, 1].map((k) => end(...at.map((p) => p[k]))));

  // ---- Search: the same word first, then beginnings, then parts
  function search(text) {
    const query = text.trim().toLowerCase();
    if (!query) return [];
    const rank = (i) => (lower[i] === query ? 0 : lower[i].startsWith(query) ? 1 : lower[i].includes(query) ? 2 : 3);
    return places.filter((i) => rank(i) < 3).sort((a, b) => rank(a) - rank(b) || a - b);
  }

  // ---- Drawing, in pixels of the width at hand: names stay readable on a phone
  function fit(width, height) {
    const scale = Math.min(...[width, height].map((room, k) => (high[k] > low[k] ? (room - 56) / (high[k] - low[k]) : Infinity)));
    const from = (p, k) => (scale < Infinity ? (p[k] - low[k] / 2 - high[k] / 2) * scale : 0);
    return at.map((p) => [width / 2 + from(p, 0), height / 2 - from(p, 1)]);
  }
  function drawing(width, height) {
    const pixel = fit(width, height), mine = near[state.chosen], found = new Set(state.found), taken = [];
    const pick = (i, now, other, rest) => (i === state.chosen ? now : mine.includes(i) ? other : rest), round = (x) => Math.round(x * 10) / 10;
    const kind = (i) => pick(i, " now", " near", "") + (found.has(i) ? " found" : "");
    // The chosen word, its neighbours and what was found get their names first.
    const order = [...new Set([state.chosen, ...mine, ...state.found, ...places])], names = [];
    for (const i of order) {
      const [x, y] = pixel[i], text = shorten(shown[i], 16), wide = 7.2 * Array.from(text).length;
      const left = x + 7 + wide < width ? x + 6 : x - 6 - wide, box = [left, y - 8, left + wide, y + 8];
      const free = left > 0 && taken.every((b) => box[0] > b[2] || box[2] < b[0] || box[1] > b[3] || box[3] < b[1]);
      if (!free && i !== state.chosen) continue;
      taken.push(box);
      names.push(`<text class="${kind(i)}" x="${round(left < x ? x - 6 : left)}" y="${round(y + 4)}"${left < x ? ' text-anchor="end"' : ""}>${escapeXml(text)}</text>`);
    }
    const [cx, cy] = pixel[state.chosen].map(round);
    const lines = mine.map((k) => `<path class="l" d="M${cx} ${cy}L${pixel[k].map(round).join(" ")}"/>`);
    const dots = [...order].reverse().map((i) => `<circle class="p${kind(i)}" cx="${round(pixel[i][0])}" cy="${round(pixel[i][1])}" r="${pick(i, 6, 4.5, 3)}"/>`);
    return lines.join("") + dots.join("") + names.reverse().join("");
  }

  // ---- Elements
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  picture.setAttribute("role", "img");
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const away = fit(box.width, box.height).map((p) => Math.hypot(p[0] - x, p[1] - y));
    const nearest = away.indexOf(Math.min(...away));
    if (away[nearest] < 30) choose(nearest);
  });
  const plot = make("div", { tabindex: 0, role: "region", "aria-label": "Picture; arrow keys move", onkeydown: walk }, picture);
  const input = make("input", { type: "search", autocomplete: "off", oninput: find, onkeydown: step });
  const label = make("label", { class: "search" }, make("span", { class: "label" }, "Search (up, down: next one found)"), input);
  const status = make("p", { class: "label" }), spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  const heading = make("caption"), body = make("tbody");
  const table = make("table", {}, heading, make("thead", {}, make("tr", {}, ...["Nearest", data.measure].map((text) => make("th", { scope: "col" }, text)))), body);
  const host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  const button = (text, name, act) => make("button", { type: "button", "aria-label": name, onclick: act }, text);
  shadow.append(make("style", {}, STYLE), make("div", { class: "widget", role: "group", "aria-label": data.title },
    make("div", { class: "bar" }, make("p", { class: "title" }, data.title), make("div", { class: "end" },
      button("SVG", "Export as SVG", () => download("projection.svg", "image/svg+xml", svg())),
      button("CSV", "Export as CSV", () => download("projection.csv", "text/csv;charset=utf-8", csv())))),
    make("div", { class: "main" }, make("div", {}, plot, make("p", { class: "label" }, `Across: ${data.axes[0]}. Up: ${data.axes[1]}. One scale for both.`)),
      make("div", { class: "side" }, make("div", {}, label, status), table)),
    make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken));

  // ---- What happens
  let speech;
  function draw() {
    const width = Math.max(200, plot.clientWidth || 560), height = Math.round(Math.min(460, Math.max(300, width * 0.8)));
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("height", height);
    picture.innerHTML = drawing(width, height);
  }
  function update(before = "", aloud = true) {
    const i = state.chosen;
    draw();
    picture.setAttribute("aria-label", `${words.length} words; ${shown[i]} is chosen. The table holds its nearest neighbours.`);
    heading.replaceChildren(make("bdi", {}, shown[i]));
    body.replaceChildren(...near[i].map((k, n) => make("tr", {},
      make("td", {}, make("button", { type: "button", title: shown[k], onclick: () => { choose(k); table.querySelector("button").focus(); } }, make("bdi", {}, shown[k]))),
      make("td", {}, number(similar[i][n])))));
    status.textContent = !state.query.trim() ? `${words.length} words` : state.found.length ? `${state.found.indexOf(i) + 1 || "–"} of ${state.found.length} found` : "no word found";
    if (!aloud) return;
    clearTimeout(speech);
    speech = setTimeout(() => { spoken.textContent = `${before}${shown[i]}. Nearest: ${near[i].map((k) => shown[k]).join(", ")}.`; }, 200);
  }
  function choose(i) {
    state.chosen = i;
    update();
  }
  function find() {
    state.query = input.value;
    state.found = search(input.value);
    if (state.found.length) state.chosen = state.found[0];
    update(!state.query.trim() ? "" : state.found.length ? `${state.found.length} found. ` : "No word found. Still chosen: ");
  }
  function step(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const list = state.found.length ? state.found : places, now = list.indexOf(state.chosen);
    choose(list[(Math.max(now, by > 0 ? -1 : 0) + by + list.length) % list.length]);
  }
  // The nearest point that lies more in the key's direction than across it.
  function walk(event) {
    const to = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!to || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    let best = -1, least = Infinity;
    for (const i of places) {
      const x = at[i][0] - at[state.chosen][0], y = at[i][1] - at[state.chosen][1];
      const ahead = x * to[0] + y * to[1], aside = Math.abs(x * to[1] - y * to[0]);
      if (ahead > 0 && ahead >= aside && ahead + aside < least) [best, least] = [i, ahead + aside];
    }
    if (best >= 0) choose(best);
  }

  // ---- Export
  function csv() {
    const head = ["word", ...data.axes, ...near[0].flatMap((_, n) => [`neighbour ${n + 1}`, `${data.measure} ${n + 1}`])];
    const rows = places.map((i) => [words[i], ...at[i], ...near[i].flatMap((k, n) => [words[k], similar[i][n]])]);
    return [head, ...rows].map((row) => row.map(csvField).join(",") + "\r\n").join("");
  }
  function svg() {
    const style = PICTURE.replace(/var\((.*?)\)/g, (_, key) => LIGHT.match(key + ": (.*?);")[1]);
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 580" width="720" height="580" role="img"><title>${escapeXml(data.title)}</title><style>${style}</style>`
      + `<rect width="100%" height="100%" fill="#fff"/><text x="12" y="22">${escapeXml(data.title)}</text><text x="12" y="566">${escapeXml(`Across: ${data.axes[0]}. Up: ${data.axes[1]}.`)}</text>`
      + `<g transform="translate(0 30)">${drawing(720, 510)}</g></svg>`;
  }

  // ---- Start
  root.append(host);
  followTheme(() => { host.dataset.theme = pageTheme(); });
  update("", false);
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(plot);
  return { state, search, choose, csv, svg, fit: (i) => fit(plot.clientWidth, picture.clientHeight)[i] };
}

// Mount every root of this kind that has data and no view yet: this output's own, and no other.
for (const root of document.querySelectorAll('[data-llm-widget="projection"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = ProjectionExplorer(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("The projection explorer could not start; the table stays.", error);
  }
}
})();
