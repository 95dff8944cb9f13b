// The training scrubber. No dependencies; llm_from_scratch/widgets/scrubber.py writes the data it reads.
// `series`, `bars` and `samples` are lists of [name, one value a checkpoint]; a missing number is null.
(() => {
"use strict";
const FORMAT = 1;

//= shared_page.js
const PICTURE = `
text { font: 12px system-ui, sans-serif; fill: var(--ink); stroke: var(--paper); stroke-width: 3px; paint-order: stroke; stroke-linejoin: round; } .faint { fill: var(--faint); } .e { text-anchor: end; } .m { text-anchor: middle; }
.grid { stroke: var(--line); } .ref { stroke: var(--edge); stroke-dasharray: 2 3; } .now { stroke: var(--ink); stroke-width: 1.5; }
.l { fill: none; stroke-width: 2; } .s0 { stroke: var(--accent); } .s1 { stroke: var(--other); stroke-dasharray: 7 3; } .s2 { stroke: var(--third); stroke-dasharray: 2 3; } .s3 { stroke: var(--ink); stroke-dasharray: 9 3 2 3; }
.d { stroke-width: 2; fill: var(--paper); stroke-dasharray: none; } .bar { fill: var(--accent); } .last { stroke: var(--ink); stroke-width: 2; }
`;
const STYLE = `
:host { ${listed(COLOURS.light)} display: block; color-scheme: light; }
:host([data-theme=dark]) { ${listed(COLOURS.dark)} color-scheme: dark; }
* { box-sizing: border-box; min-width: 0; }
.widget { background: var(--paper); color: var(--ink); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.125rem; margin: .75rem 0; font: .875rem/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; text-align: start; container-type: inline-size; }
p { margin: 0; overflow-wrap: anywhere; }
.title { font-size: 1.0625rem; font-weight: 600; }
.caption, .label { color: var(--faint); }
.caption { margin-top: .75rem; border-top: 1px solid var(--line); padding-top: .75rem; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.end { margin-inline-start: auto; display: flex; gap: .5rem; }
button { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px; min-height: 36px; padding: 0 .625rem; cursor: pointer; }
button:hover:enabled { background: var(--wash); } button:disabled { color: var(--faint); cursor: default; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin-top: .875rem; align-items: end; }
.controls label { display: grid; gap: .125rem; flex: 1 1 10rem; }
input { width: 100%; min-height: 36px; accent-color: var(--accent); margin: 0; }
.main { display: grid; gap: 1rem; grid-template-columns: repeat(2, minmax(0, 1fr)); margin-top: .75rem; }
@container (max-width: 40rem) { .main { grid-template-columns: minmax(0, 1fr); } }
svg { display: block; width: 100%; }
.sample { margin-top: .75rem; padding: .5rem .75rem; background: var(--wash); border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere; min-height: 5.5em; }
.sample b { font-weight: 600; }
.words { margin-top: .625rem; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
${PICTURE}
@media (forced-colors: active) { text { fill: CanvasText; stroke: none; } .l, .d, .now, .last { stroke: CanvasText; } .d { fill: Canvas; } .grid, .ref { stroke: GrayText; } .bar rect, rect.bar { fill: Highlight; } }
@media print { .end, .controls { display: none; } .widget { break-inside: avoid; } }
`;
const HIGH = 240, ROW = 26;

function Scrubber(root, data) {
  const { steps, series, bars, samples, references, unit } = data, last = steps.length - 1, state = { at: data.at };
  const fixed = (x) => (x === null ? "–" : x.toFixed(data.digits).replace("-", "−"));
  const place = data.log_x ? (x) => Math.log1p(Math.max(x - steps[0], 0)) : (x) => x;
  const named = (n) => `${data.x_name} ${steps[n].toLocaleString("en")}`;
  const button = (text, label, act) => make("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
  const svgElement = () => document.createElementNS("http://www.w3.org/2000/svg", "svg");

  // ---- Elements
  const slider = make("input", { type: "range", min: 0, max: last, step: 1, "aria-label": "Checkpoint", oninput: () => set(+slider.value) }), sliderLabel = make("span", { class: "label" });
  const back = button("‹ Back", "One checkpoint back", () => set(state.at - 1)), forth = button("Next ›", "One checkpoint forward", () => set(state.at + 1));
  const curve = svgElement(), chart = svgElement();
  const texts = samples.map(() => make("p", { class: "sample" }));
  const words = make("p", { class: "words" }), spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  const main = make("div", { class: "main" });
  if (series.length) main.append(curve);
  if (bars.length) main.append(chart);
  // Else JupyterLab would take the keys.
  const host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  shadow.append(make("style", {}, STYLE), make("div", { class: "widget", role: "group", "aria-label": data.title },
    make("div", { class: "bar" }, make("p", { class: "title" }, data.title), make("div", { class: "end" },
      button("SVG", "Export as SVG", () => download("scrubber.svg", "image/svg+xml", svg())),
      button("CSV", "Export as CSV", () => download("scrubber.csv", "text/csv;charset=utf-8", csv())))),
    make("div", { class: "controls" }, back, forth, make("label", {}, sliderLabel, slider)),
    main, words, ...texts, make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken));
  curve.addEventListener("click", (event) => {
    const box = curve.getBoundingClientRect(), { x } = scales(box.width), at = (event.clientX - box.left);
    const away = steps.map((step) => Math.abs(x(step) - at));
    set(away.indexOf(Math.min(...away)));
  });

  // ---- The learning curve, in pixels of the width at hand
  function scales(width) {
    const values = [...series.flatMap(([, ys]) => ys), ...references.map(([, y]) => y)].filter((y) => y !== null);
    let low = Math.min(...values), high = Math.max(...values);
    if (!(high > low)) { low -= 0.5; high += 0.5; }
    const room = high - low, left = 44, right = width - 12, bottom = HIGH - 40, top = 14;
    low -= (references.length ? 0.14 : 0.04) * room; high += 0.04 * room;
    const from = place(steps[0]), to = place(steps[last]);
    return { low, high, left, right, bottom, top,
      x: (step) => (to > from ? left + 6 + (right - left - 12) * (place(step) - from) / (to - from) : (left + right) / 2),
      y: (value) => bottom - (bottom - top) * (value - low) / (high - low) };
  }
//= shared_ticks.js
  function drawCurve(width) {
    const { low, high, left, right, bottom, top, x, y } = scales(width), r = (v) => Math.round(v * 10) / 10;
    let out = "";
    for (const tick of ticks(low, high)) out += `<path class="grid" d="M${left} ${r(y(tick))}H${r(right)}"/><text class="faint e" x="${left - 6}" y="${r(y(tick) + 4)}">${String(tick).replace("-", "−")}</text>`;
    let taken = Infinity;
    for (let n = last; n >= 0; n--) { // from the end, so that the last checkpoint has its number
      const at = x(steps[n]), half = 6 + 3.6 * String(steps[n]).length;
      if (at + half > taken) continue;
      taken = at - half;
      out += `<text class="faint m" x="${r(at)}" y="${bottom + 16}">${steps[n]}</text>`;
    }
    out += `<text class="faint m" x="${r((left + right) / 2)}" y="${bottom + 33}">${escapeXml(data.x_name)}</text>`;
    // A name stands above its line, or below where the line above is near.
    let above = -Infinity;
    [...references].sort((a, b) => b[1] - a[1]).forEach(([name, value]) => {
      const at = y(value), under = at - above < 15;
      above = at;
      out += `<path class="ref" d="M${left} ${r(at)}H${r(right)}"/><text class="faint" x="${left + 4}" y="${r(at + (under ? 13 : -4))}">${escapeXml(shorten(name, 30))}</text>`;
    });
    out += `<path class="now" d="M${r(x(steps[state.at]))} ${top}V${bottom}"/>`;
    series.forEach(([name, values], k) => {
      let pen = "M";
      const path = values.map((value, n) => { if (value === null) { pen = "M"; return ""; } const word = `${pen}${r(x(steps[n]))} ${r(y(value))}`; pen = "L"; return word; }).join("");
      out += `<path class="l s${k}" d="${path}"/>`;
      const value = values[state.at];
      if (value !== null) out += `<circle class="d s${k}" cx="${r(x(steps[state.at]))}" cy="${r(y(value))}" r="4.5"/>`;
      out += `<path class="l s${k}" d="M${r(right - 34)} ${top + 4 + 16 * k}h26"/><text class="e" x="${r(right - 40)}" y="${top + 8 + 16 * k}">${escapeXml(shorten(name, 28))}</text>`;
    });
    return out;
  }

  // ---- The bars: now, and a stroke where they end
  function drawBars(width) {
    const r = (v) => Math.round(v * 10) / 10, most = Math.max(1e-9, ...bars.flatMap(([, ys]) => ys.filter((y) => y !== null)));
    const left = Math.min(130, 0.4 * width), room = Math.max(20, width - left - 48);
    return bars.map(([name, values], k) => {
      const y = 18 + ROW * k, value = values[state.at], end = values[last];
      const bar = value === null ? "" : `<rect class="bar" x="${r(left)}" y="${y}" width="${r(room * Math.max(value, 0) / most)}" height="16"/>`;
      const mark = end === null ? "" : `<path class="last" d="M${r(left + room * Math.max(end, 0) / most)} ${y - 2}v20"/>`;
      return `<text class="e" x="${r(left - 6)}" y="${y + 12}">${escapeXml(shorten(name, Math.max(8, Math.floor(left / 7))))}</text>${bar}${mark}<text x="${r(left + room * Math.max(value ?? 0, end ?? 0, 0) / most + 6)}" y="${y + 12}">${fixed(value)}</text>`;
    }).join("") + `<text class="faint" x="2" y="${34 + ROW * bars.length}">${escapeXml(unit)}; stroke: the end</text>`;
  }
  const barsHigh = () => 42 + ROW * bars.length;

  function describe() {
    const parts = series.filter(([, ys]) => ys[state.at] !== null).map(([name, ys]) => `${name} ${fixed(ys[state.at])}`);
    return `${named(state.at)}${parts.length ? `: ${parts.join(", ")} ${unit}` : ""}.`;
  }
  function barWords() { return bars.map(([name, ys]) => `${name} ${fixed(ys[state.at])}`).join(", "); }

  let speech;
  function paint(picture, width, height, markup, label) {
    for (const [key, value] of [["role", "img"], ["viewBox", `0 0 ${width} ${height}`], ["height", height], ["aria-label", label]]) picture.setAttribute(key, value);
    picture.innerHTML = markup;
  }
  function update(aloud) {
    slider.value = state.at;
    sliderLabel.textContent = `${named(state.at)} of ${steps[last].toLocaleString("en")}`;
    slider.setAttribute("aria-valuetext", named(state.at));
    back.disabled = state.at === 0;
    forth.disabled = state.at === last;
    const half = series.length && bars.length && main.clientWidth > 560, width = Math.max(240, half ? (main.clientWidth - 16) / 2 : main.clientWidth || 640);
    if (series.length) paint(curve, width, HIGH, drawCurve(width), `Curves. ${describe()}`);
    if (bars.length) paint(chart, width, barsHigh(), drawBars(width), `Bars at ${named(state.at)}: ${barWords()}`);
    samples.forEach(([prompt, written], k) => texts[k].replaceChildren(make("b", {}, prompt), written[state.at]));
    words.textContent = describe();
    if (!aloud) return;
    clearTimeout(speech);
    speech = setTimeout(() => { spoken.textContent = `${describe()} ${samples.map(([prompt, written]) => shorten(prompt + written[state.at], 160)).join(" ")}`; }, 200);
  }
  function set(at) {
    state.at = Math.max(0, Math.min(last, at));
    update(true);
  }

  // ---- Export
  const quoted = (text) => `"${(/^\s*[=+\-@]|^[\t\r]/.test(text) ? "'" : "") + text.replaceAll('"', '""')}"`;
  function csv() {
    const columns = [...series, ...bars, ...samples];
    const head = [data.x_name, ...columns.map(([name]) => name)].map(quoted);
    const rows = steps.map((step, n) => [step, ...columns.map(([, values]) => (values[n] === null ? "" : typeof values[n] === "number" ? values[n] : quoted(values[n])))]);
    return [head, ...rows].map((row) => row.join(",") + "\r\n").join("");
  }
  function svg() {
    const style = PICTURE.replace(/var\(--(.*?)\)/g, (_, key) => COLOURS.light[key]), width = 480;
    const high = 56 + (series.length ? HIGH : 0) + (bars.length ? barsHigh() : 0);
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${high}" width="${width}" height="${high}" role="img"><title>${escapeXml(data.title)}</title><style>${style}</style><rect width="100%" height="100%" fill="#fff"/>`
      + `<text x="10" y="22">${escapeXml(shorten(data.title, 60))}</text><text x="10" y="42" class="faint">${escapeXml(shorten(describe(), 74))}</text>`
      + `${series.length ? `<g transform="translate(0 50)">${drawCurve(width)}</g>` : ""}${bars.length ? `<g transform="translate(0 ${50 + (series.length ? HIGH : 0)})">${drawBars(width)}</g>` : ""}</svg>`;
  }

  // ---- Start
  root.append(host);
  followTheme(() => { const now = pageTheme(); if (now !== host.dataset.theme) host.dataset.theme = now; });
  let wide = 0;
  new ResizeObserver(() => { if (main.clientWidth !== wide) { wide = main.clientWidth; update(false); } }).observe(main);
  update(false);
  return { state, set, csv, svg, describe };
}

// Mount every root of this kind that has data and no view yet.
for (const root of document.querySelectorAll('[data-llm-widget="scrubber"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = Scrubber(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("The scrubber could not start; its table stays.", error);
  }
}
})();
