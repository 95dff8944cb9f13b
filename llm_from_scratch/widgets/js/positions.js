// The positions explorer. No dependencies; llm_from_scratch/widgets/positions.py writes the data it reads.
(() => {
"use strict";
const FORMAT = 1;

// ---- Numbers

// Angle of pair f at a position, in radians. Positions and distances are in tokens.
const angle = (position, f, { d_model, base }) => position * base ** ((-2 * f) / d_model);
const range = (n) => Array.from({ length: n }, (_, i) => i);

// The dot product at a distance, divided by the largest one: a mean of cosines.
const product = (distance, set) => range(set.d_model / 2).reduce((sum, f) => sum + Math.cos(angle(distance, f, set)), 0) / (set.d_model / 2);

function slopes(heads) {
  const power = 2 ** Math.floor(Math.log2(heads));
  return [...range(power).map((h) => 2 ** ((-8 * (h + 1)) / power)), ...range(heads - power).map((h) => 2 ** ((-4 * (2 * h + 1)) / power))];
}

// Four significant digits and a true minus sign, as in Python.
function number(x) {
  if (x === 0) return "0";
  const small = Math.abs(x) < 1e-4 || Math.abs(x) >= 1e6;
  return (small ? x.toExponential(3).replace("+", "") : String(+x.toPrecision(4))).replaceAll("-", "−");
}

// ---- The page's theme (the book, Colab; JupyterLab; VS Code), else the system's

//= shared_theme.js

// ---- Elements and files

//= shared_make.js

const shorten = (text, length) => (Array.from(text).length > length ? Array.from(text).slice(0, length - 1).join("") + "…" : text);
const escapeXml = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

//= shared_download.js

// ---- The view

const COLOURS = {
  light: { paper: "#ffffff", ink: "#1c2430", faint: "#566070", line: "#dde2e8", edge: "#858f9c", accent: "#1b5fae", other: "#a33f00", wash: "#f3f6f9", plus: "#1b5fae", minus: "#c75400" },
  dark: { paper: "#1b1e24", ink: "#e6e9ee", faint: "#a6afbb", line: "#343a44", edge: "#77818f", accent: "#8fc1ff", other: "#ffb27a", wash: "#23272f", plus: "#8fc1ff", minus: "#ffa45e" },
};
const listed = (colours) => Object.entries(colours).map(([key, value]) => `--${key}: ${value};`).join(" ");
const PICTURE = `
text { font: 12px system-ui, sans-serif; fill: var(--ink); } .faint { fill: var(--faint); } .end { text-anchor: end; } .middle { text-anchor: middle; }
.axis { fill: none; stroke: var(--edge); } .grid { fill: none; stroke: var(--line); } .curve { fill: none; stroke: var(--accent); stroke-width: 2.25; stroke-linejoin: round; }
.others { fill: none; stroke: var(--edge); stroke-width: 1; } .now { fill: none; stroke: var(--other); stroke-width: 2; } .dot { fill: var(--other); stroke: none; }
.dial { fill: var(--wash); stroke: var(--edge); } .hand { stroke: var(--accent); stroke-width: 2.5; stroke-linecap: round; }
`;
const STYLE = `
:host { ${listed(COLOURS.light)} display: block; color-scheme: light; }
:host([data-theme=dark]) { ${listed(COLOURS.dark)} color-scheme: dark; }
* { box-sizing: border-box; min-width: 0; }
[hidden] { display: none !important; }
.widget { container-type: inline-size; background: var(--paper); color: var(--ink); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.125rem; margin: .75rem 0; font: .875rem/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; text-align: start; }
p { margin: 0; overflow-wrap: anywhere; }
.title { font-size: 1.0625rem; font-weight: 600; }
.caption, .label { color: var(--faint); }
.caption { margin-top: .75rem; border-top: 1px solid var(--line); padding-top: .75rem; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.end { margin-inline-start: auto; display: flex; gap: .5rem; }
button, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px; min-height: 36px; padding: 0 .625rem; max-width: 100%; }
button { cursor: pointer; } button:hover { background: var(--wash); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin-top: .875rem; align-items: end; }
.controls label { display: grid; gap: .125rem; }
.controls .wide { flex: 1 1 14rem; }
input { width: 100%; min-height: 36px; accent-color: var(--accent); margin: 0; }
.main { display: grid; gap: 1rem; margin-top: .75rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
.main b { display: block; } svg { display: block; width: 100%; max-width: 26rem; height: auto; }
.words { margin-top: .625rem; min-height: 2.9em; }
table { border-collapse: collapse; width: 100%; margin-top: .375rem; } th, td { padding: 2px .75rem 2px 0; text-align: start; font-weight: 400; }
th { color: var(--faint); } details { margin-top: .75rem; } summary { cursor: pointer; color: var(--faint); min-height: 24px; } .scroll { overflow-x: auto; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
${PICTURE}
@media (forced-colors: active) { text { fill: CanvasText; } .axis, .others, .dial { stroke: CanvasText; fill: none; } .curve, .hand, .now { stroke: Highlight; } .dot { fill: Highlight; } }
@media print { .end, .controls { display: none; } .widget { break-inside: avoid; } }
`;
const SCHEMES = { sinusoidal: "Sinusoids (added)", rope: "RoPE (rotation)", alibi: "ALiBi (penalty)" };
const LEVELS = 16; // shades on either side of zero

function PositionExplorer(root, data) {
  const { length } = data, last = length - 1;
  const state = { scheme: data.scheme, d_model: data.d_model, base: data.base, num_heads: data.num_heads, head: 0, position: data.position };
  const distances = range(length);
  const isBias = () => state.scheme === "alibi";

  // The chosen position against s: the dot product, or what ALiBi adds to the score.
  const against = (s) => (isBias() ? -slopes(state.num_heads)[state.head] * Math.abs(state.position - s) : product(state.position - s, state));
  const encoding = (position) => range(state.d_model).map((c) => (c % 2 ? Math.cos : Math.sin)(angle(position, c >> 1, state)));

  // ---- Elements
  const button = (text, label, act) => make("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
  function choice(label, key, options, say) {
    const values = [...new Set([...options, state[key]])].sort((a, b) => a - b);
    const select = make("select", { "aria-label": label, onchange: () => { state[key] = typeof state[key] === "number" ? +select.value : select.value; update(true); } },
      ...values.map((value) => make("option", { value, ...(value === state[key] ? { selected: "" } : {}) }, say(value))));
    return { key, select, label: make("label", {}, make("span", { class: "label" }, label), select) };
  }
  const scheme = choice("Scheme", "scheme", Object.keys(SCHEMES), (key) => SCHEMES[key]);
  const width = choice("Width", "d_model", [4, 8, 16, 32, 64, 128], (n) => `${n} columns`);
  const base = choice("Base", "base", [10, 100, 1000, 10000, 500000], String);
  const heads = choice("Heads", "num_heads", [2, 4, 8, 12, 16], String);
  const head = make("select", { "aria-label": "Head", onchange: () => { state.head = +head.value; update(true); } });
  const headLabel = make("label", {}, make("span", { class: "label" }, "Head"), head);
  const slider = make("input", { type: "range", min: 0, max: last, step: 1, value: state.position, "aria-label": "Position",
    oninput: () => { state.position = +slider.value; update(true); } });
  const shown = make("span", { class: "label" });
  const picture = () => document.createElementNS("http://www.w3.org/2000/svg", "svg"), left = picture(), right = picture(), leftTitle = make("b"), rightTitle = make("b");
  const words = make("p", { class: "words" }), spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  const heading = make("tr"), body = make("tbody");
  // Else JupyterLab would take the keys.
  const host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  shadow.append(make("style", {}, STYLE), make("div", { class: "widget", role: "group", "aria-label": data.title },
    make("div", { class: "bar" }, make("p", { class: "title" }, data.title), make("div", { class: "end" },
      button("SVG", "Export as SVG", () => download("positions.svg", "image/svg+xml", svg())),
      button("CSV", "Export as CSV", () => download("positions.csv", "text/csv;charset=utf-8", csv())))),
    make("div", { class: "controls" }, scheme.label, width.label, base.label, heads.label, headLabel, make("label", { class: "wide" }, shown, slider)),
    make("div", { class: "main" }, make("div", {}, leftTitle, left), make("div", {}, rightTitle, right)), words,
    make("details", {}, make("summary", {}, "Table of values"), make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Values" }, make("table", {}, make("thead", {}, heading), body))),
    make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken));

  // ---- Drawing
  const text = (x, y, label, kind = "") => `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" class="${kind}">${escapeXml(label)}</text>`;
  function shade(level, colours) {
    const part = (hex, n) => parseInt(hex.slice(1 + 2 * n, 3 + 2 * n), 16), end = level > 0 ? colours.plus : colours.minus, share = Math.abs(level) / LEVELS;
    return "#" + [0, 1, 2].map((n) => Math.round(part(colours.paper, n) + (part(end, n) - part(colours.paper, n)) * share).toString(16).padStart(2, "0")).join("");
  }
  // Cells of one shade are one path.
  function heatMap(rows, x, y, wide, high, colours) {
    const paths = new Map();
    rows.forEach((row, r) => row.forEach((value, c) => {
      const level = Math.round(value * LEVELS);
      if (level) paths.set(level, (paths.get(level) || "") + `M${c} ${r}h1v1h-1z`);
    }));
    const cells = [...paths].map(([level, path]) => `<path fill="${shade(level, colours)}" d="${path}"/>`).join("");
    return `<g transform="translate(${x} ${y}) scale(${wide / rows[0].length} ${high / rows.length})" shape-rendering="crispEdges">${cells}</g><rect class="axis" x="${x}" y="${y}" width="${wide}" height="${high}"/>`;
  }
  function drawLeft(colours) {
    const X = 34, Y = 8, W = 258, H = 200, t = state.position;
    if (state.scheme === "rope") {
      const pairs = state.d_model / 2, dials = Math.min(pairs, 12), columns = Math.min(dials, 4);
      return range(dials).map((n) => {
        const f = dials === 1 ? 0 : Math.round((n * (pairs - 1)) / (dials - 1)), a = angle(t, f, state);
        const x = 45 + (n % columns) * 70, y = 36 + Math.floor(n / columns) * 76;
        return `<circle class="dial" cx="${x}" cy="${y}" r="25"/><path class="grid" d="M${x} ${y}h25"/><path class="hand" d="M${x} ${y}l${(23 * Math.cos(a)).toFixed(2)} ${(-23 * Math.sin(a)).toFixed(2)}"/>${text(x, y + 40, `pair ${f}`, "faint middle")}`;
      }).join("");
    }
    const rows = isBias() ? slopes(state.num_heads).map((slope) => distances.map((k) => Math.exp(-slope * k))) : distances.map(encoding);
    const high = H / rows.length, row = isBias() ? state.head : t;
    return heatMap(rows, X, Y, W, H, colours) + `<rect class="now" x="${X}" y="${(Y + row * high).toFixed(2)}" width="${W}" height="${high.toFixed(2)}"/>`
      + text(X - 5, Y + 10, "0", "end faint") + text(X - 5, Y + H, String(rows.length - 1), "end faint") + text(X, Y + H + 16, "0", "faint")
      + text(X + W, Y + H + 16, String(rows[0].length - 1), "end faint") + text(X + W / 2, Y + H + 16, isBias() ? "distance in tokens" : "column of the vector", "middle faint");
  }
  function drawRight() {
    const X = 34, Y = 26, W = 258, H = 182, low = isBias() ? -4 : -1, top = isBias() ? 0 : 1, t = state.position;
    const x = (s) => X + (W * s) / last, y = (v) => Y + (H * (top - v)) / (top - low);
    const line = (values) => values.flatMap((v, s) => (v < low ? [] : `${x(s).toFixed(1)},${y(v).toFixed(1)}`)).join(" ");
    const others = isBias() ? slopes(state.num_heads).map((slope) => `<polyline class="others" points="${line(distances.slice(0, t + 1).map((s) => -slope * (t - s)))}"/>`).join("") : "";
    const values = distances.map(against), drawn = isBias() ? values.slice(0, t + 1) : values;
    const ticks = [top, (top + low) / 2, low].map((v) => `<path class="grid" d="M${X} ${y(v)}h${W}"/>${text(X - 5, y(v) + 4, number(v), "end faint")}`).join("");
    const labels = [0, 16, 32, 48, last].filter((s, n, all) => s <= last && (n === all.length - 1 || s < last - 5)).map((s) => text(x(s), Y + H + 16, String(s), "middle faint")).join("");
    const above = [-32, -16, 16, 32].map((k) => t + k).filter((s) => s >= 0 && s <= last && !(isBias() && s > t)).map((s) => text(x(s), Y - 8, String(Math.abs(s - t)), "middle faint")).join("");
    return ticks + labels + above + text(x(t), Y - 8, "0", "middle") + others + `<path class="now" d="M${x(t).toFixed(1)} ${Y}v${H}"/><polyline class="curve" points="${line(drawn)}"/>`
      + `<circle class="dot" cx="${x(t).toFixed(1)}" cy="${y(values[t]).toFixed(1)}" r="4"/>` + text(X + W / 2, Y + H + 32, isBias() ? "position of the key (above: distance)" : "other position (above: distance)", "middle faint");
  }
  const titles = () => ({
    sinusoidal: ["Sinusoids: a row for each position", "Dot product with every position"],
    rope: [`Turned pairs at position ${state.position}`, "Dot product of equal query and key"],
    alibi: ["Weight left by each head: exp(−slope × distance)", `Added to the score, head ${state.head}`],
  })[state.scheme];

  function describe() {
    const t = state.position;
    if (isBias()) {
      const slope = slopes(state.num_heads)[state.head];
      return `Query at position ${t}, head ${state.head} of ${state.num_heads}: slope ${number(slope)}. A key ${number(Math.LN2 / slope)} tokens back loses half of its weight; the mask hides later keys.`;
    }
    const wave = (f) => number((2 * Math.PI) / angle(1, f, state));
    const at = [1, 4, 16].filter((k) => k <= last).map((k) => `${number(product(k, state))} at ${k}`).join(", ");
    return `Position ${t}, ${state.d_model} columns, base ${state.base}: wavelengths from ${wave(0)} to ${wave(state.d_model / 2 - 1)} tokens. Dot product by distance: 1 at 0, ${at}.`;
  }
  function rows() {
    if (isBias()) return [["Head", "Slope a token", "Weight halves after"], ...slopes(state.num_heads).map((slope, h) => [h, slope, Math.LN2 / slope])];
    const names = state.scheme === "rope" ? ["Pair", "Wavelength", "Angle (radians)", "Turned by (degrees)"] : ["Pair", "Wavelength", "Angle (radians)", "Sine", "Cosine"];
    return [names, ...range(state.d_model / 2).map((f) => {
      const a = angle(state.position, f, state), wave = (2 * Math.PI) / angle(1, f, state);
      return state.scheme === "rope" ? [f, wave, a, ((a * 180) / Math.PI) % 360] : [f, wave, a, Math.sin(a), Math.cos(a)];
    })];
  }

  let speech;
  function update(aloud) {
    if (head.options.length !== state.num_heads) {
      state.head = Math.min(state.head, state.num_heads - 1);
      head.replaceChildren(...range(state.num_heads).map((h) => make("option", { value: h, ...(h === state.head ? { selected: "" } : {}) }, String(h))));
    }
    for (const part of [width, base]) part.label.hidden = isBias();
    for (const label of [heads.label, headLabel]) label.hidden = !isBias();
    shown.textContent = `Position ${state.position} of 0 to ${last}`;
    slider.setAttribute("aria-valuetext", `position ${state.position}`);
    const said = describe(), [leftName, rightName] = titles();
    leftTitle.textContent = leftName;
    rightTitle.textContent = rightName;
    for (const [node, name] of [[left, leftName], [right, rightName]]) {
      for (const [key, value] of [["role", "img"], ["viewBox", "0 0 300 244"], ["aria-label", `${name}. The table below holds the values.`]]) node.setAttribute(key, value);
    }
    left.innerHTML = drawLeft(COLOURS[host.dataset.theme]);
    right.innerHTML = drawRight();
    words.textContent = said;
    const [names, ...lines] = rows();
    heading.replaceChildren(...names.map((name) => make("th", { scope: "col" }, name)));
    body.replaceChildren(...lines.map((line) => make("tr", {}, ...line.map((value, n) => make("td", {}, n ? number(value) : String(value))))));
    if (!aloud) return;
    clearTimeout(speech);
    speech = setTimeout(() => { spoken.textContent = said; }, 200);
  }
  function set(changes) {
    Object.assign(state, changes);
    for (const part of [scheme, width, base, heads]) part.select.value = state[part.key];
    slider.value = state.position;
    update(true);
    head.value = state.head;
  }

  // ---- Export
  function csv() {
    const size = isBias() ? [state.num_heads, state.head, ""] : [state.d_model, "", state.base];
    const table = distances.map((s) => [state.scheme, ...size, state.position, s, Math.abs(state.position - s), against(s)]);
    return [["scheme", isBias() ? "heads" : "columns", "head", "base", "position", "other_position", "distance", isBias() ? "added_to_score" : "dot_product"], ...table].map((line) => line.join(",") + "\r\n").join("");
  }
  function svg() {
    const style = PICTURE.replace(/var\(--(.*?)\)/g, (_, key) => COLOURS.light[key]), [leftName, rightName] = titles();
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 320" width="640" height="320" role="img"><title>${escapeXml(data.title)}</title><style>${style}</style><rect width="100%" height="100%" fill="#fff"/>`
      + text(10, 22, shorten(data.title, 80)) + text(10, 44, leftName, "faint") + text(330, 44, rightName, "faint")
      + `<g transform="translate(0 56)">${drawLeft(COLOURS.light)}</g><g transform="translate(320 56)">${drawRight()}</g></svg>`;
  }

  // ---- Start
  root.append(host);
  followTheme(() => { const now = pageTheme(); if (now !== host.dataset.theme) { host.dataset.theme = now; update(false); } });
  return { state, set, csv, svg, describe, rows, encoding, slopes, curve: () => distances.map(against), angles: (t) => range(state.d_model / 2).map((f) => angle(t, f, state)) };
}

// Mount every root of this kind that has data and no view yet.
for (const root of document.querySelectorAll('[data-llm-widget="positions"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = PositionExplorer(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("The positions explorer could not start; its table stays.", error);
  }
}
})();
