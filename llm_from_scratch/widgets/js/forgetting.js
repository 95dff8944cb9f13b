// Forgetting and gain. No dependencies; llm_from_scratch/widgets/forgetting.py writes the data it reads.
// `paths` is a list of { name, at_name, at, new, old, samples }, one value a checkpoint, the first of each the
// same model; `samples` is a list of [prompt, one text a checkpoint]; `points` a list of [name, new, old].
(() => {
"use strict";
const FORMAT = 1;

//= shared_page.js
const PICTURE = `
text { font: 12px system-ui, sans-serif; fill: var(--ink); stroke: var(--paper); stroke-width: 3px; paint-order: stroke; stroke-linejoin: round; }
.faint { fill: var(--faint); } .e { text-anchor: end; } .m { text-anchor: middle; } .b { font-weight: 600; fill: var(--accent); }
.grid { stroke: var(--line); } .level { stroke: var(--edge); stroke-dasharray: 4 3; } .better { fill: var(--wash); }
.path { fill: none; stroke: var(--edge); stroke-width: 1.25; stroke-linejoin: round; } .path.chosen { stroke: var(--accent); stroke-width: 2.5; }
.dot { fill: var(--accent); } .now { fill: var(--paper); stroke: var(--accent); stroke-width: 3; } .start { fill: var(--ink); } .point { fill: var(--other); }
`;
const STYLE = `
:host { ${listed(COLOURS.light)} display: block; color-scheme: light; }
:host([data-theme=dark]) { ${listed(COLOURS.dark)} color-scheme: dark; }
* { box-sizing: border-box; min-width: 0; }
.widget { background: var(--paper); color: var(--ink); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.125rem; margin: .75rem 0;
  font: .875rem/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; text-align: start; container-type: inline-size; }
p, dl, dd, fieldset { margin: 0; overflow-wrap: anywhere; }
.title { font-size: 1.0625rem; font-weight: 600; }
.caption, .label, dt, legend { color: var(--faint); }
.caption { margin-top: .75rem; border-top: 1px solid var(--line); padding-top: .75rem; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.end { margin-inline-start: auto; display: flex; gap: .5rem; }
button { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px; min-height: 36px; padding: 0 .625rem; cursor: pointer; }
button:hover:enabled { background: var(--wash); } button:disabled { color: var(--faint); cursor: default; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.main { display: grid; gap: .75rem 1.25rem; grid-template-columns: minmax(0, 1fr) minmax(9rem, 14rem); margin-top: .75rem; }
.pair { display: grid; gap: .5rem 1rem; grid-template-columns: repeat(2, minmax(0, 1fr)); }
@container (max-width: 36rem) { .main { grid-template-columns: minmax(0, 1fr); } }
@container (max-width: 26rem) { .pair { grid-template-columns: minmax(0, 1fr); } }
svg { display: block; width: 100%; cursor: crosshair; }
fieldset { border: 0; padding: 0; } legend { padding: 0; }
.choice { display: flex; gap: .5rem; align-items: center; min-height: 30px; cursor: pointer; padding: .125rem 0; }
.choice input { flex: none; accent-color: var(--accent); margin: 0; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin-top: .75rem; align-items: end; }
.controls label { display: grid; gap: .125rem; flex: 1 1 10rem; }
.controls input { width: 100%; min-height: 36px; accent-color: var(--accent); margin: 0; }
dl { margin-top: .75rem; } dd b { font-size: 1.25rem; font-weight: 600; }
.sample { padding: .5rem .75rem; background: var(--wash); border-radius: 6px; white-space: pre-wrap; min-height: 5.5em; }
.sample b { font-weight: 600; } .before { margin-top: .75rem; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
${PICTURE}
@media (forced-colors: active) { text { fill: CanvasText; stroke: none; } .path, .level { stroke: GrayText; } .path.chosen, .now { stroke: Highlight; } .dot { fill: Highlight; } .now { fill: Canvas; }
  .start, .point { fill: CanvasText; } .better { fill: none; } .grid { stroke: GrayText; } }
@media print { .end, .controls { display: none; } .widget { break-inside: avoid; } }
`;
const HIGH = 330;

function Forgetting(root, data) {
  const { paths, points, unit, old_name: oldName, new_name: newName } = data, state = { path: data.path, at: data.at };
  const start = { x: paths[0].new[0], y: paths[0].old[0] }, chosen = () => paths[state.path], last = () => chosen().at.length - 1;
  const fixed = (x) => x.toFixed(data.digits).replace("-", "−");
  const signed = (x) => { const text = fixed(x); return /[1-9]/.test(text) ? (x > 0 ? `+${text}` : text) : text.replace("−", ""); };
  const named = (path, n) => `${path.at_name} ${path.at[n].toLocaleString("en")}`;
  // Both relative to the start: what the new domain gained is good, what the old one lost is not.
  const gain = (path, n) => start.x - path.new[n], loss = (path, n) => path.old[n] - start.y;
  const button = (text, label, act) => make("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);

  // ---- Elements
  const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Checkpoint", oninput: () => set({ at: +slider.value }) }), sliderLabel = make("span", { class: "label" });
  const back = button("‹ Back", "One checkpoint back", () => set({ at: state.at - 1 })), forth = button("Next ›", "One checkpoint forward", () => set({ at: state.at + 1 }));
  const radios = paths.map((path, k) => make("input", { type: "radio", name: "path", value: k, onchange: () => set({ path: k }) }));
  const choices = make("fieldset", {}, make("legend", {}, "Way of adapting"), ...paths.map((path, k) => make("label", { class: "choice" }, radios[k], `${k + 1}  ${path.name}`)));
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg"), plane = make("div", {}, picture);
  const gained = make("dd"), lost = make("dd"), texts = make("div");
  const spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  // Else JupyterLab would take the keys.
  const host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  shadow.append(make("style", {}, STYLE), make("div", { class: "widget", role: "group", "aria-label": data.title },
    make("div", { class: "bar" }, make("p", { class: "title" }, data.title), make("div", { class: "end" },
      button("SVG", "Export as SVG", () => download("forgetting.svg", "image/svg+xml", svg())),
      button("CSV", "Export as CSV", () => download("forgetting.csv", "text/csv;charset=utf-8", csv())))),
    make("div", { class: "main" }, plane, choices),
    make("div", { class: "controls" }, back, forth, make("label", {}, sliderLabel, slider)),
    make("dl", { class: "pair" }, make("div", {}, make("dt", {}, `Gained: ${newName}`), gained), make("div", {}, make("dt", {}, `Lost: ${oldName}`), lost)),
    texts, make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken));
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect(), { x, y } = scales(box.width);
    let nearest = { away: Infinity };
    paths.forEach((path, k) => path.at.forEach((_, n) => {
      const away = Math.hypot(x(path.new[n]) - (event.clientX - box.left), y(path.old[n]) - (event.clientY - box.top)) + (k === state.path ? 0 : 4);
      if (n && away < nearest.away) nearest = { away, path: k, at: n };
    }));
    if (nearest.path !== undefined) set({ path: nearest.path, at: nearest.at });
  });

  // ---- The plane, in pixels of the width at hand
  function scales(width) {
    const range = (values) => {
      const low = Math.min(...values), high = Math.max(...values), room = Math.max(high - low, 1e-3);
      return [low - 0.12 * room, high + 0.1 * room]; // room for the names of the regions
    };
    const xs = range([...paths.flatMap((path) => path.new), ...points.map((point) => point[1])]);
    const ys = range([...paths.flatMap((path) => path.old), ...points.map((point) => point[2])]);
    const left = 44, right = width - 10, top = 12, bottom = HIGH - 42;
    return { xs, ys, left, right, top, bottom, x: (v) => left + (right - left) * (v - xs[0]) / (xs[1] - xs[0]), y: (v) => bottom - (bottom - top) * (v - ys[0]) / (ys[1] - ys[0]) };
  }
//= shared_ticks.js
  function draw(width) {
    const { xs, ys, left, right, top, bottom, x, y } = scales(width), r = (v) => Math.round(v * 10) / 10, x0 = r(x(start.x)), y0 = r(y(start.y));
    const said = (v) => String(v).replace("-", "−");
    let out = `<rect class="better" x="${left}" y="${y0}" width="${r(x0 - left)}" height="${r(bottom - y0)}"/>`, taken = -Infinity;
    for (const tick of ticks(...ys)) out += `<path class="grid" d="M${left} ${r(y(tick))}H${r(right)}"/><text class="faint e" x="${left - 6}" y="${r(y(tick) + 4)}">${said(tick)}</text>`;
    for (const tick of ticks(...xs)) {
      const at = r(x(tick)), half = 5 + 3.5 * said(tick).length;
      out += `<path class="grid" d="M${at} ${top}V${bottom}"/>`;
      if (at - half < taken) continue;
      taken = at + half;
      out += `<text class="faint m" x="${at}" y="${bottom + 16}">${said(tick)}</text>`;
    }
    const letters = Math.floor(width / 8);
    out += `<text class="faint m" x="${r((left + right) / 2)}" y="${bottom + 34}">${escapeXml(shorten(`loss, ${newName} (${unit})`, letters))}</text>`;
    out += `<path class="level" d="M${x0} ${top}V${bottom}"/><path class="level" d="M${left} ${y0}H${r(right)}"/>`;
    out += `<text class="faint" x="${left + 6}" y="${top + 12}">${escapeXml(shorten(`loss, ${oldName}`, letters))}</text>`;
    if (x0 - left > 150) {
      if (bottom - y0 > 18) out += `<text class="faint" x="${left + 6}" y="${bottom - 6}">both better than before</text>`;
      if (y0 - top > 60) out += `<text class="faint e" x="${x0 - 6}" y="${top + 30}">new better, old worse</text>`;
    }
    const line = (path) => path.at.map((_, n) => `${r(x(path.new[n]))} ${r(y(path.old[n]))}`).join("L");
    const order = [...paths.keys()].filter((k) => k !== state.path);
    for (const k of [...order, state.path]) out += `<path class="path${k === state.path ? " chosen" : ""}" d="M${line(paths[k])}"/>`;
    points.forEach(([name, px, py]) => {
      const at = r(x(px)), high = r(y(py)), far = at > (left + right) / 2;
      out += `<path class="point" d="M${at} ${high - 6}l6 10h-12z"/><text${far ? ' class="e"' : ""} x="${at + (far ? -9 : 9)}" y="${high + 4}">${escapeXml(shorten(name, 24))}</text>`;
    });
    out += `<rect class="start" x="${x0 - 5}" y="${y0 - 5}" width="10" height="10"/><text class="e" x="${x0 - 9}" y="${y0 + 16}">start</text>`;
    const now = chosen();
    now.at.forEach((_, n) => { if (n) out += `<circle class="dot" cx="${r(x(now.new[n]))}" cy="${r(y(now.old[n]))}" r="3.5"/>`; });
    const placed = []; // ends that lie together have their numbers one below the other
    for (const k of [state.path, ...order]) {
      const path = paths[k], n = path.at.length - 1, at = x(path.new[n]) - (k === state.path ? 14 : 9);
      let high = y(path.old[n]) + 4;
      while (placed.some(([px, py]) => Math.abs(px - at) < 10 && Math.abs(py - high) < 12)) high += 13;
      placed.push([at, high]);
      out += `<text class="m${k === state.path ? " b" : ""}" x="${r(at)}" y="${r(high)}">${k + 1}</text>`;
    }
    return `${out}<circle class="now" cx="${r(x(now.new[state.at]))}" cy="${r(y(now.old[state.at]))}" r="6"/>`;
  }

  function describe() {
    const path = chosen(), n = state.at;
    return `${path.name}, ${named(path, n)}: ${newName} gained ${signed(gain(path, n))}, ${oldName} lost ${signed(loss(path, n))} ${unit}.`;
  }
  let speech;
  function update(aloud) {
    const path = chosen(), n = state.at, width = Math.max(220, plane.clientWidth || 480);
    radios.forEach((radio, k) => { radio.checked = k === state.path; });
    slider.max = last();
    slider.value = n;
    sliderLabel.textContent = `${named(path, n)} of ${path.at[last()].toLocaleString("en")}`;
    slider.setAttribute("aria-valuetext", named(path, n));
    back.disabled = n === 0;
    forth.disabled = n === last();
    const label = `Plane of two losses, lower left is better. ${describe()}`;
    for (const [key, value] of [["role", "img"], ["viewBox", `0 0 ${width} ${HIGH}`], ["height", HIGH], ["aria-label", label]]) picture.setAttribute(key, value);
    picture.innerHTML = draw(width);
    gained.replaceChildren(make("b", {}, signed(gain(path, n))), ` ${unit} (loss ${fixed(start.x)} → ${fixed(path.new[n])})`);
    lost.replaceChildren(make("b", {}, signed(loss(path, n))), ` ${unit} (loss ${fixed(start.y)} → ${fixed(path.old[n])})`);
    texts.replaceChildren(...path.samples.map(([prompt, written]) => make("div", { class: "pair before" }, ...[0, n].map((k, side) =>
      make("div", {}, make("p", { class: "label" }, side ? named(path, k) : "before"), make("p", { class: "sample" }, make("b", {}, prompt), written[k]))))));
    if (!aloud) return;
    clearTimeout(speech);
    speech = setTimeout(() => { spoken.textContent = `${describe()} ${path.samples.map(([prompt, written]) => shorten(prompt + written[n], 160)).join(" ")}`; }, 200);
  }
  function set(changes) {
    const atEnd = state.at === last();
    Object.assign(state, changes);
    if ("path" in changes && !("at" in changes) && atEnd) state.at = last(); // paths of unlike length: end stays end
    state.at = Math.max(0, Math.min(last(), state.at));
    update(true);
  }

  // ---- Export
  const quoted = (text) => `"${(/^\s*[=+\-@]|^[\t\r]/.test(text) ? "'" : "") + text.replaceAll('"', '""')}"`;
  function csv() {
    const prompts = [...new Set(paths.flatMap((path) => path.samples.map(([prompt]) => prompt)))];
    const head = [...["path", "checkpoint", "new_loss", "old_loss", "gained", "lost"], ...prompts].map(quoted);
    const rows = paths.flatMap((path) => path.at.map((at, n) => {
      const written = new Map(path.samples.map(([prompt, all]) => [prompt, all[n]]));
      const numbers = [at, path.new[n], path.old[n], ...[gain(path, n), loss(path, n)].map((v) => +v.toFixed(6))];
      return [quoted(path.name), ...numbers, ...prompts.map((prompt) => quoted(written.get(prompt) ?? ""))];
    }));
    return [head, ...rows].map((row) => row.join(",") + "\r\n").join("");
  }
  function svg() {
    const style = PICTURE.replace(/var\(--(.*?)\)/g, (_, key) => COLOURS.light[key]), width = 560, high = 64 + HIGH + 18 * paths.length;
    const names = paths.map((path, k) => `<text x="54" y="${70 + HIGH + 18 * k}"${k === state.path ? ' class="b"' : ""}>${k + 1}  ${escapeXml(shorten(path.name, 60))}</text>`).join("");
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${high}" width="${width}" height="${high}" role="img"><title>${escapeXml(data.title)}</title><style>${style}</style>`
      + `<rect width="100%" height="100%" fill="#fff"/><text x="10" y="22">${escapeXml(shorten(data.title, 70))}</text>`
      + `<text x="10" y="42" class="faint">${escapeXml(shorten(describe(), 84))}</text><g transform="translate(0 50)">${draw(width)}</g>${names}</svg>`;
  }

  // ---- Start
  root.append(host);
  followTheme(() => { const now = pageTheme(); if (now !== host.dataset.theme) host.dataset.theme = now; });
  let wide = 0;
  new ResizeObserver(() => { if (plane.clientWidth !== wide) { wide = plane.clientWidth; update(false); } }).observe(plane);
  update(false);
  return { state, set, csv, svg, describe };
}

// Mount every root of this kind that has data and no view yet.
for (const root of document.querySelectorAll('[data-llm-widget="forgetting"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = Forgetting(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("The explorer of forgetting could not start; its table stays.", error);
  }
}
})();
