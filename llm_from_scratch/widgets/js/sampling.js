// The sampling playground. No dependencies; llm_from_scratch/widgets/sampling.py writes the data it reads.
// Tokens stand in the order of their logits, most likely first; r is a rank in that order, V their number.
(() => {
"use strict";
const FORMAT = 1;

// ---- Numbers

function decode(base64, Type) {
  return new Type(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
}

function softmax(scores) {
  const powers = Float64Array.from(scores, (score) => Math.exp(score - scores[0]));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

// Temperature, top-k, top-p, min-p, in this order, each on what the one before left. Since the tokens are
// sorted, each filter keeps a first part; `kept` says how many are left after it.
function filter(logits, { temperature, top_k, top_p, min_p }) {
  const scores = logits.map((logit) => (logit - logits[0]) / temperature);
  const before = softmax(scores), kept = { top_k: logits.length };
  if (top_k) kept.top_k = Math.min(top_k, logits.length);
  kept.top_p = kept.top_k;
  if (top_p < 1) {
    const probabilities = softmax(scores.subarray(0, kept.top_k));
    let sum = 0, r = 0;
    while (r < kept.top_k && (r === 0 || sum < top_p)) sum += probabilities[r++];
    kept.top_p = r;
  }
  kept.min_p = kept.top_p;
  if (min_p > 0) while (kept.min_p > 1 && scores[kept.min_p - 1] < Math.log(min_p)) kept.min_p--;
  const probabilities = new Float64Array(logits.length);
  probabilities.set(softmax(scores.subarray(0, kept.min_p)));
  return { before, probabilities, kept };
}

const entropyBits = (weights) => weights.reduce((sum, w) => (w > 0 ? sum - w * Math.log2(w) : sum), 0);

// The generator mulberry32: numbers in [0, 1), the same for the same seed everywhere.
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 4294967296;
  };
}

// Draw by the inverse of the cumulative sum.
function draw(probabilities, kept, count, seed) {
  const sums = new Float64Array(kept), counts = new Float64Array(probabilities.length), next = generator(seed);
  let total = 0;
  for (let r = 0; r < kept; r++) sums[r] = total += probabilities[r];
  for (let n = 0; n < count; n++) {
    const place = next() * total;
    let low = 0, high = kept - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle] > place) high = middle; else low = middle + 1;
    }
    counts[low]++;
  }
  return counts;
}

// Draws against theory: total variation, and chi-square over cells of at least 5 expected draws. Many rare
// tokens vary much by chance alone, so `usual` is the mean total variation of fair draws: half the sum of the
// mean absolute deviations of the counts, each as of a Poisson number, narrowed to a binomial one.
function compare(probabilities, kept, counts, count) {
  let variation = 0, usual = 0, chi2 = 0, cells = 0, seen = 0, expected = 0;
  for (let r = 0; r < kept; r++) {
    const p = probabilities[r], mean = p * count, whole = Math.floor(mean);
    variation += Math.abs(counts[r] / count - p) / 2;
    if (mean > 0) usual += Math.exp((whole + 1) * Math.log(mean) - mean - logGamma(whole + 1)) * Math.sqrt(Math.max(0, 1 - p)) / count;
  }
  let left = 1;
  for (let r = 0; r < kept; r++) {
    seen += counts[r];
    expected += probabilities[r] * count;
    left -= probabilities[r];
    // Close a cell when it is full and what comes after it can fill another.
    if (r === kept - 1 || (expected >= 5 && left * count >= 5)) {
      if (expected > 0) chi2 += (seen - expected) ** 2 / expected;
      cells++;
      seen = expected = 0;
    }
  }
  const freedom = cells - 1;
  return { variation, usual, chi2, freedom, p: freedom > 0 && count >= 5 ? 1 - gammaP(freedom / 2, chi2 / 2) : null };
}

// The regularised lower incomplete gamma function: its series below a + 1, its continued fraction above.
function gammaP(a, x) {
  if (x <= 0) return 0;
  const front = Math.exp(a * Math.log(x) - x - logGamma(a));
  if (x < a + 1) {
    let term = 1 / a, sum = term;
    for (let n = 1; n < 10000 && term > sum * 1e-15; n++) sum += term *= x / (a + n);
    return sum * front;
  }
  let b = x + 1 - a, c = 1e300, d = 1 / b, fraction = d;
  for (let n = 1; n < 10000; n++) {
    const numerator = -n * (n - a);
    b += 2;
    d = 1 / (numerator * d + b);
    c = b + numerator / c;
    fraction *= c * d;
    if (Math.abs(c * d - 1) < 1e-15) break;
  }
  return 1 - front * fraction;
}

// Stirling's series, after moving the argument above 8.
function logGamma(x) {
  let shift = 0;
  for (; x < 8; x++) shift -= Math.log(x);
  const y = 1 / (x * x);
  return shift + (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI)
    + (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y / 1680))) / x;
}

// ---- The page's theme, elements and files

// What the page says (the book, Colab; JupyterLab; VS Code), else what the system prefers. Paper is light.
//= shared_theme.js

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

const tokenText = (shown) => make("bdi", { class: "token", title: shown }, shown);
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
  --wash: #f3f6f9; --bar: #2b6cb0; --ghost: #cfdbe8; --dot: #b34700; display: block; color-scheme: light; }
:host([data-theme=dark]) { --paper: #1b1e24; --ink: #e6e9ee; --faint: #a6afbb; --line: #343a44; --edge: #77818f;
  --accent: #8fc1ff; --wash: #23272f; --bar: #6faae6; --ghost: #39475a; --dot: #ffb27a; color-scheme: dark; }
* { box-sizing: border-box; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
[hidden] { display: none !important; }
.widget { container-type: inline-size; background: var(--paper); color: var(--ink); border: 1px solid var(--line);
  border-radius: 10px; padding: 1rem 1.125rem; margin: .75rem 0;
  font: .875rem/1.45 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; text-align: start; }
p { margin: 0; }
.title { font-size: 1.0625rem; font-weight: 600; letter-spacing: -.005em; }
.caption, .note, .label, th { color: var(--faint); }
.caption { margin-top: .75rem; border-top: 1px solid var(--line); padding-top: .75rem; max-width: 44rem; }
.label, th { font-size: .8125rem; }
.token { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .8125rem; white-space: pre; }
.prompt { margin-top: .75rem; padding: .5rem .75rem; background: var(--wash); border-radius: 6px; overflow-wrap: anywhere; white-space: pre-wrap; }
.prompt b { border-bottom: 2px solid var(--bar); font-weight: 600; padding: 0 .25em; }
.settings { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .25rem 2rem; margin-top: .75rem; }
.setting { display: grid; grid-template-columns: 6.5rem minmax(0, 1fr) 5.25rem; gap: .75rem; align-items: center; min-height: 44px; }
input { accent-color: var(--accent); }
input[type=range] { width: 100%; min-height: 28px; margin: 0; cursor: pointer; }
input[type=number], button { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge);
  border-radius: 6px; min-height: 36px; padding: 0 .5rem; width: 100%; }
button { width: auto; padding: 0 .75rem; cursor: pointer; }
button:hover { background: var(--wash); }
:focus { outline: none; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); gap: .5rem 1rem; margin: .875rem 0; color: var(--faint); font-size: .8125rem; }
.facts b { display: block; font-size: 1.375rem; line-height: 1.3; font-weight: 600; color: var(--ink); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; min-width: 34rem; margin: 0; table-layout: fixed; }
th, td { padding: 2px .5rem 2px 0; border: 0; background: none; color: inherit; text-align: end; vertical-align: middle; font-weight: 400; height: 26px; }
thead th { color: var(--faint); border-bottom: 1px solid var(--line); }
th:first-child { width: 8.5rem; text-align: start; }
tbody th .token { display: block; overflow: hidden; text-overflow: ellipsis; color: var(--ink); }
.w { width: 6.25rem; } .n { width: 4.25rem; } .d { width: 4.5rem; } th.barhead, td.barhead { text-align: start; padding-inline-start: .5rem; }
tr.dropped td, tr.dropped th .token { color: var(--faint); }
tr.dropped th .token { text-decoration: line-through; }
tr.rest th { font-size: .875rem; color: var(--ink); }
tr.rest > * { border-top: 1px solid var(--line); }
td .label { white-space: nowrap; }
.logit { display: flex; align-items: center; gap: .375rem; justify-content: flex-end; }
.track { position: relative; height: 14px; }
.track > span { position: absolute; top: 0; left: 0; height: 100%; border-radius: 2px; }
.ghost { background: var(--ghost); } .theory { background: var(--bar); top: 3px !important; height: 8px !important; }
.drawn { width: 9px; height: 9px !important; top: 2.5px !important; margin-left: -4.5px; border-radius: 50% !important; background: var(--dot); box-shadow: 0 0 0 1.5px var(--paper); }
.small { width: 2.5rem; height: 8px; position: relative; flex: none; }
.small i { position: absolute; height: 100%; background: var(--faint); opacity: .55; border-radius: 1px; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .25rem 0 .5rem; }
.key span span { display: inline-block; width: 18px; height: 8px; border-radius: 2px; margin-inline-end: .375rem; }
.key .drawn { width: 9px; height: 9px; margin-left: 0; position: relative; top: 1px !important; }
.key .theory, .key .ghost { position: relative; top: 0 !important; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; }
.draws { margin-top: .75rem; padding-top: .75rem; border-top: 1px solid var(--line); } .scroll + button { margin-top: .5rem; }
.bar label { display: inline-flex; gap: .5rem; align-items: center; } .bar input { width: 6.5rem; }
.bar .end { margin-inline-start: auto; flex: none; display: flex; gap: .5rem; }
.verdict { margin-top: .5rem; min-height: 1.5em; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@container (max-width: 38rem) { .settings { grid-template-columns: minmax(0, 1fr); } }
@container (max-width: 30rem) { table { min-width: 25.5rem; } th:first-child { width: 5.25rem; } .small { display: none; } .w { width: 3rem; } .n { width: 4rem; } .d { width: 3.75rem; } }
@container (max-width: 22rem) { .setting { grid-template-columns: 5.5rem minmax(0, 1fr) 4.5rem; gap: .5rem; } }
@media (forced-colors: active) { .theory, .small i { background: Highlight; forced-color-adjust: none; } .ghost { border: 1px solid; } .drawn { background: CanvasText; forced-color-adjust: none; } }
@media print { .settings input[type=range], button, .spoken { display: none; } .widget { break-inside: avoid; } .scroll { overflow: visible; } }
`;

const SETTINGS = [
  { name: "temperature", text: "Temperature", min: 0.05, max: 5, low: 0.05, high: 3, step: 0.05, off: 1 },
  { name: "top_k", text: "Top-k", min: 0, step: 1, off: 0, hint: "0 keeps all" },
  { name: "top_p", text: "Top-p", min: 0.001, max: 1, low: 0.01, high: 1, step: 0.01, off: 1, hint: "1 keeps all" },
  { name: "min_p", text: "Min-p", min: 0, max: 1, low: 0, high: 1, step: 0.01, off: 0, hint: "0 keeps all" },
];

function SamplingPlayground(root, data) {
  const V = data.size, named = data.ids.length;
  const logits = new Float64Array(V), exact = decode(data.logits, Float32Array);
  logits.set(exact);
  decode(data.tail, Uint16Array).forEach((steps, n) => { logits[exact.length + n] = data.tailLow + steps * data.tailStep; });
  const settings = { ...data.settings }, start = { ...settings };
  let lines = Math.min(named, 12), result, counts, comparison;

  // ---- Elements
  const inputs = {};
  const rowsOf = SETTINGS.map(({ name, text, min, max = V, low = min, high = Math.min(V, 100), step, hint }) => {
    const change = (event) => { if (event.target.value !== "") set({ [name]: Math.min(max, Math.max(min, +event.target.value)) }); };
    const range = make("input", { type: "range", min: low, max: high, step, "aria-label": hint ? `${text}; ${hint}` : text, oninput: change });
    const number = make("input", { type: "number", min, max, step: name === "top_k" ? 1 : "any", "aria-label": `${text}, exact value`, oninput: change, onchange: () => update() });
    inputs[name] = [range, number];
    return make("div", { class: "setting" }, make("span", {}, text, hint ? make("br") : null, hint ? make("span", { class: "label" }, hint) : null), range, number);
  });
  const whole = (name, text, max) => {
    const input = make("input", { type: "number", min: 0, max, step: 1, "aria-label": text, onchange: () => update(),
      oninput: () => { if (input.value !== "") set({ [name]: Math.min(max, Math.max(0, Math.round(+input.value))) }); } });
    inputs[name] = [input];
    return make("label", {}, make("span", { "aria-hidden": "true" }, text), input);
  };
  const button = (text, name, act) => make("button", { type: "button", "aria-label": name, onclick: act }, text);
  const facts = make("div", { class: "facts" }), body = make("tbody"), verdict = make("p", { class: "verdict" });
  const spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  const more = button("", null, () => { lines = lines >= named ? Math.min(named, 12) : Math.min(named, lines * 4); update(); });
  const head = make("tr", {}, ...[["Token", ""], ["Logit", "w"], ["Probability", "barhead"], ["Theory", "n"], ["Draws", "d"], ["Expected", "d"]]
    .map(([text, kind]) => make("th", { scope: "col", class: kind }, text)));
  const swatch = (kind, text) => make("span", { class: "label" }, make("span", { class: kind }), text);

  // Else JupyterLab would take the keys: it looks at the host, which stands for what is focused inside it.
  const host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  shadow.append(make("style", {}, STYLE), make("div", { class: "widget", role: "group", "aria-label": data.title },
    make("div", { class: "bar" }, make("p", { class: "title" }, data.title), make("div", { class: "end" },
      button("Reset", "Reset all settings", () => set(start)),
      button("SVG", "Export as SVG", () => download("sampling.svg", "image/svg+xml", svg())),
      button("CSV", "Export as CSV", () => download("sampling.csv", "text/csv;charset=utf-8", csv())))),
    data.prompt === null ? null : make("p", { class: "prompt" }, make("bdi", {}, data.prompt), make("b", { "aria-label": "next token" }, "?")),
    make("div", { class: "settings" }, ...rowsOf),
    facts,
    make("div", { class: "key" }, swatch("theory", "probability"), swatch("ghost", "softmax of the logits alone"), swatch("drawn", "share of the draws")),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of the most likely tokens" },
      make("table", {}, make("thead", {}, head), body)),
    named > 12 ? more : null,
    make("div", { class: "bar draws" }, whole("draws", "Draws", 100000), whole("seed", "Seed", 4294967295),
      button("Next seed", null, () => set({ seed: (settings.seed + 1) % 4294967296 }))),
    verdict,
    make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken));

  // ---- Drawing
  const plain = softmax(logits);
  const sum = (values, from) => values.subarray(from).reduce((a, b) => a + b, 0);
  const decimals = (p) => (p === 0 ? "0" : p >= 0.0005 ? p.toFixed(4) : p.toExponential(1));

  function set(change) {
    Object.assign(settings, change);
    settings.top_k = Math.round(settings.top_k);
    update(change);
  }

  let speech;
  function update(change) {
    result = filter(logits, settings);
    const kept = result.kept.min_p;
    counts = draw(result.probabilities, kept, settings.draws, settings.seed);
    comparison = compare(result.probabilities, kept, counts, settings.draws);
    for (const [name, list] of Object.entries(inputs)) {
      for (const input of list) if (input !== shadow.activeElement || input.type === "range" || !change || !(name in change)) input.value = settings[name];
    }
    inputs.top_k[0].setAttribute("aria-valuetext", settings.top_k ? `${settings.top_k} tokens` : "off");
    const H = entropyBits(result.probabilities), mass = result.before.subarray(0, kept).reduce((a, b) => a + b, 0);
    facts.replaceChildren(...[[H.toFixed(2), "bits of entropy"], [(2 ** H).toFixed(1), "effective choices"],
      [kept.toLocaleString("en"), `of ${V.toLocaleString("en")} tokens kept`], [(100 * mass).toFixed(1) + " %", "of the probability kept"]]
      .map(([number, text]) => make("span", {}, make("b", {}, number), text)));
    drawRows();
    more.textContent = lines >= named ? "Fewer tokens" : "More tokens";
    verdict.replaceChildren(...(settings.draws ? [
      `${settings.draws.toLocaleString("en")} draws with seed ${settings.seed}: total variation from theory ${comparison.variation.toFixed(3)} (fair draws: about ${comparison.usual.toFixed(3)})`,
      comparison.p === null ? "." : `; chi-square ${comparison.chi2.toFixed(1)} with ${comparison.freedom} degrees of freedom, p = ${comparison.p.toFixed(3)}.`] : ["No draws."]));
    if (!change) return;
    clearTimeout(speech);
    speech = setTimeout(() => {
      spoken.textContent = `Entropy ${H.toFixed(2)} bits, ${(2 ** H).toFixed(1)} choices effectively, ${kept} tokens kept. `
        + `Most likely: “${shorten(data.shown[0], 40)}”, ${result.probabilities[0].toFixed(3)}.`;
    }, 400);
  }

  function rowData(r) {
    return { name: data.shown[r], logit: logits[r], p: result.probabilities[r], ghost: plain[r], count: counts[r],
      dropped: r >= result.kept.top_k ? "top-k" : r >= result.kept.top_p ? "top-p" : r >= result.kept.min_p ? "min-p" : null };
  }
  function restData(from) {
    return { name: `all other ${(V - from).toLocaleString("en")}`, logit: null, p: sum(result.probabilities, from),
      ghost: sum(plain, from), count: sum(counts, from), dropped: null };
  }

  function drawRows() {
    const rows = Array.from({ length: lines }, (_, r) => rowData(r));
    if (V > lines) rows.push(restData(lines));
    const longest = Math.max(...rows.slice(0, lines).flatMap((row) => [row.p, row.ghost, settings.draws ? row.count / settings.draws : 0]));
    const low = Math.min(0, logits[lines - 1]), high = Math.max(0, logits[0]), span = high - low || 1;
    body.replaceChildren(...rows.map((row) => {
      const rest = row.logit === null, wide = (kind, share) => {
        const bar = make("span", { class: kind });
        bar.style.width = 100 * share / longest + "%";
        return bar;
      };
      const track = rest ? make("span", { class: "label" }, `softmax alone: ${decimals(row.ghost)}`)
        : make("div", { class: "track" }, wide("ghost", row.ghost), wide("theory", row.p));
      if (!rest && settings.draws && row.p) {
        const dot = make("span", { class: "drawn" });
        dot.style.left = 100 * row.count / settings.draws / longest + "%";
        track.append(dot);
      }
      const small = make("i");
      if (!rest) {
        small.style.left = 100 * (Math.min(0, row.logit) - low) / span + "%";
        small.style.width = 100 * Math.abs(row.logit) / span + "%";
      }
      return make("tr", { class: row.dropped ? "dropped" : rest ? "rest" : null },
        make("th", { scope: "row" }, rest ? row.name : tokenText(row.name)),
        make("td", {}, rest ? "" : make("div", { class: "logit" }, make("span", { class: "small", "aria-hidden": "true" }, small), row.logit.toFixed(2))),
        make("td", { class: "barhead" }, track),
        make("td", {}, row.dropped ? row.dropped : decimals(row.p)),
        make("td", {}, settings.draws ? row.count.toLocaleString("en") : "–"),
        make("td", {}, settings.draws ? (row.p * settings.draws).toFixed(1) : "–"));
    }));
  }

  // ---- Export
  function csv() {
    const table = [["rank", "id", "token", "logit", "probability_before", "probability", "dropped_by", "draws", "expected"]];
    const round = (x) => +x.toPrecision(7);
    for (let r = 0; r < named; r++) {
      const row = rowData(r);
      table.push([r + 1, data.ids[r], data.tokens[r], round(row.logit), round(row.ghost), round(row.p), row.dropped || "", row.count, round(row.p * settings.draws)]);
    }
    if (V > named) {
      const row = restData(named);
      table.push(["", "", row.name, "", round(row.ghost), round(row.p), "", row.count, round(row.p * settings.draws)]);
    }
    return table.map((line) => line.map(csvField).join(",") + "\r\n").join("");
  }

  function svg() {
    const rows = Array.from({ length: lines }, (_, r) => rowData(r));
    if (V > lines) rows.push(restData(lines));
    const longest = Math.max(...rows.slice(0, lines).map((row) => Math.max(row.p, row.ghost, settings.draws ? row.count / settings.draws : 0)));
    const left = 150, width = 640, room = width - left - 90, height = 90 + 24 * rows.length;
    const marks = rows.map((row, n) => {
      const y = 66 + 24 * n, x = (share) => (room * share / longest).toFixed(1);
      return `<text x="${left - 8}" y="${y + 14}" text-anchor="end" class="t">${escapeXml(shorten(row.name, 18))}</text>`
        + (row.logit === null ? "" : `<rect x="${left}" y="${y + 2}" width="${x(row.ghost)}" height="16" fill="#cfdbe8"/><rect x="${left}" y="${y + 5}" width="${x(row.p)}" height="10" fill="#2b6cb0"/>`)
        + (settings.draws && row.p && row.logit !== null ? `<circle cx="${left + +x(row.count / settings.draws)}" cy="${y + 10}" r="4.5" fill="#b34700"/>` : "")
        + `<text x="${width - 78}" y="${y + 14}">${row.dropped || decimals(row.p)}</text>`;
    }).join("");
    const say = `temperature ${settings.temperature}, top-k ${settings.top_k || "off"}, top-p ${settings.top_p}, min-p ${settings.min_p}; ${settings.draws} draws, seed ${settings.seed}`;
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img"><title>${escapeXml(data.title)}</title>`
      + `<style>text{font:13px sans-serif;fill:#1c2430}.t{font:12px monospace}</style><rect width="100%" height="100%" fill="#fff"/>`
      + `<text x="16" y="26" font-weight="600">${escapeXml(data.title)}</text><text x="16" y="46">${say}</text>${marks}</svg>`;
  }

  // ---- Start
  root.append(host);
  followTheme(() => { host.dataset.theme = pageTheme(); });
  update();
  return { settings, set, logits, filter, draw, compare, gammaP, generator, softmax, csv, svg, csvField,
    result: () => result, counts: () => counts, comparison: () => comparison };
}

// Mount every root of this kind that has data and no view yet: this output's own, and no other.
for (const root of document.querySelectorAll('[data-llm-widget="sampling"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = SamplingPlayground(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("The sampling playground could not start; its table stays.", error);
  }
}
})();
