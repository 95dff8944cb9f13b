// Fill in the blank. No dependencies; llm_from_scratch/widgets/fill_blank.py writes the data it reads.
(() => {
"use strict";
const FORMAT = 1;

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
  light: { paper: "#ffffff", ink: "#1c2430", faint: "#566070", line: "#dde2e8", edge: "#858f9c", accent: "#1b5fae", other: "#a33f00", wash: "#f3f6f9" },
  dark: { paper: "#1b1e24", ink: "#e6e9ee", faint: "#a6afbb", line: "#343a44", edge: "#77818f", accent: "#8fc1ff", other: "#ffb27a", wash: "#23272f" },
};
const listed = (colours) => Object.entries(colours).map(([key, value]) => `--${key}: ${value};`).join(" ");
const PICTURE = `
text { font: 13px system-ui, sans-serif; fill: var(--ink); } .faint { fill: var(--faint); } .end { text-anchor: end; }
.bar { fill: var(--accent); } .bar.answer { fill: var(--other); }
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
.top { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.right { margin-inline-start: auto; display: flex; gap: .5rem; }
button, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px; min-height: 36px; padding: 0 .625rem; max-width: 100%; }
select { width: 100%; text-overflow: ellipsis; } .choose { display: grid; gap: .125rem; margin-top: .75rem; }
button { cursor: pointer; } button:hover { background: var(--wash); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.tokens { display: flex; flex-wrap: wrap; gap: .25rem; margin-top: .75rem; }
.tokens button { min-height: 32px; padding: 0 .375rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tokens button[aria-checked=true] { border: 2px solid var(--other); font-weight: 600; }
.plot { margin-top: .75rem; overflow: hidden; } svg { display: block; }
.words { margin-top: .5rem; min-height: 2.9em; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
${PICTURE}
@media (forced-colors: active) { text { fill: CanvasText; } .bar { fill: CanvasText; } .bar.answer { fill: Highlight; } .tokens button[aria-checked=true] { border-color: Highlight; } }
@media print { .right, .choose { display: none; } .widget { break-inside: avoid; } }
`;
const WIDE = 480, ROW = 24, VALUE = 70; // SVG units: the widest picture, one row, room for a number

function FillBlank(root, data) {
  const state = { sentence: data.sentence, place: data.place };
  const fixed = (x, digits) => x.toFixed(digits), here = () => data.sentences[state.sentence], blank = () => here().blanks[state.place];
  const written = (one) => one.tokens.map(([, shown]) => shown).join(" ").replace(/ ##/g, "");

  // ---- Elements
  const button = (text, label, act) => make("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
  const select = make("select", { "aria-label": "Sentence", onchange: () => set({ sentence: +select.value, place: 0 }) },
    ...data.sentences.map((one, n) => make("option", { value: n }, shorten(written(one), 90))));
  const tokens = make("div", { class: "tokens", role: "radiogroup", "aria-label": "Token to hide" });
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg"), plot = make("div", { class: "plot" });
  const words = make("p", { class: "words" }), spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  // Else JupyterLab would take the keys.
  const host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  plot.append(picture);
  shadow.append(make("style", {}, STYLE), make("div", { class: "widget", role: "group", "aria-label": data.title },
    make("div", { class: "top" }, make("p", { class: "title" }, data.title), make("div", { class: "right" },
      button("SVG", "Export as SVG", () => download("fill-blank.svg", "image/svg+xml", svg())),
      button("CSV", "Export as CSV", () => download("fill-blank.csv", "text/csv;charset=utf-8", csv())))),
    make("label", { class: "choose" }, make("span", { class: "label" }, "Sentence"), select),
    tokens, plot, words, make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken));
  tokens.addEventListener("keydown", (event) => {
    const last = here().tokens.length - 1, moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    let place;
    if (event.key in moves) place = (state.place + moves[event.key] + last + 1) % (last + 1);
    else if (event.key === "Home") place = 0;
    else if (event.key === "End") place = last;
    else return;
    event.preventDefault();
    set({ place });
    tokens.children[place].focus();
  });

  // ---- Drawing
  function draw(wide) {
    const names = Math.round(Math.min(120, 0.4 * wide)), most = wide - names - VALUE, letters = Math.floor(names / 8);
    const { top } = blank(), answer = here().tokens[state.place][0], longest = Math.max(top[0][2], 1e-9);
    const markup = top.map(([token, shown, p], n) => {
      const y = 4 + ROW * n, bar = Math.max(1, most * p / longest), mine = token === answer;
      return `<text class="end" x="${names - 8}" y="${y + 16}">${escapeXml(shorten(shown, letters))}</text><rect class="bar${mine ? " answer" : ""}" x="${names}" y="${y + 3}" width="${bar.toFixed(1)}" height="16" rx="2"/><text x="${(names + bar + 6).toFixed(1)}" y="${y + 16}">${fixed(p, 3)}${mine ? " ◂" : ""}</text>`;
    }).join("");
    return { markup, height: 8 + ROW * top.length };
  }
  function describe() {
    const { top, answer: [p, rank], entropy } = blank(), shown = here().tokens[state.place][1];
    const best = top.slice(0, 3).map(([, name, q]) => `“${shorten(name, 20)}” ${fixed(q, 2)}`).join(", ");
    return `Place ${state.place + 1} of ${here().tokens.length}. The model puts ${best}. “${shorten(shown, 20)}” stood there: probability ${fixed(p, 3)}, rank ${rank}. Entropy ${fixed(entropy, 1)} bits.`;
  }
  function fillTokens() {
    tokens.replaceChildren(...here().tokens.map(([, shown], n) => make("button", { type: "button", role: "radio", onclick: () => { set({ place: n }); } }, shorten(shown, 24))));
  }
  let speech;
  function update(aloud) {
    Array.from(tokens.children).forEach((one, n) => {
      const mine = n === state.place, shown = shorten(here().tokens[n][1], 24);
      one.setAttribute("aria-checked", mine);
      one.tabIndex = mine ? 0 : -1;
      one.textContent = mine ? "____" : shown;
      one.setAttribute("aria-label", mine ? `${shown}, hidden` : shown);
    });
    select.value = state.sentence;
    const wide = Math.min(WIDE, plot.clientWidth || WIDE), drawn = draw(wide), said = describe();
    for (const [key, value] of [["role", "img"], ["width", wide], ["height", drawn.height], ["viewBox", `0 0 ${wide} ${drawn.height}`], ["aria-label", "Bars of the likeliest tokens. The words below give the first three."]]) picture.setAttribute(key, value);
    picture.innerHTML = drawn.markup;
    words.textContent = said;
    if (!aloud) return;
    clearTimeout(speech);
    speech = setTimeout(() => { spoken.textContent = said; }, 200);
  }
  function set(changes) {
    const other = "sentence" in changes && changes.sentence !== state.sentence;
    Object.assign(state, changes);
    if (other) fillTokens();
    update(true);
  }

  // ---- Export
  const quoted = (text) => `"${(/^[=+\-@\t\r]/.test(text) ? "'" : "") + text.replaceAll('"', '""')}"`;
  function csv() {
    const lines = data.sentences.flatMap((one, s) => one.blanks.flatMap(({ top, answer, entropy }, t) => top.map(([token, , p], n) => [s, t, quoted(one.tokens[t][0]), answer[0], answer[1], entropy, n + 1, quoted(token), p])));
    return [["sentence", "place", "hidden", "hidden_probability", "hidden_rank", "entropy_bits", "rank", "token", "probability"], ...lines].map((line) => line.join(",") + "\r\n").join("");
  }
  function svg() {
    const style = PICTURE.replace(/var\(--(.*?)\)/g, (_, key) => COLOURS.light[key]), drawn = draw(WIDE);
    const words = here().tokens.map(([, shown], n) => (n === state.place ? "____" : shown)).join(" ").replace(/ ##/g, "");
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDE} ${drawn.height + 56}" width="${WIDE}" height="${drawn.height + 56}" role="img"><title>${escapeXml(clean(data.title))}</title><style>${style}</style><rect width="100%" height="100%" fill="#fff"/>`
      + `<text x="10" y="22">${escapeXml(clean(shorten(data.title, 60)))}</text><text x="10" y="42" class="faint">${escapeXml(clean(shorten(words, 70)))}</text><g transform="translate(0 52)">${clean(drawn.markup)}</g></svg>`;
  }

  // ---- Start
  root.append(host);
  fillTokens();
  new ResizeObserver(() => update(false)).observe(plot);
  followTheme(() => { const now = pageTheme(); if (now !== host.dataset.theme) { host.dataset.theme = now; update(false); } });
  return { state, set, csv, svg, describe };
}

// Mount every root of this kind that has data and no view yet.
for (const root of document.querySelectorAll('[data-llm-widget="fill_blank"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = FillBlank(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("Fill in the blank could not start; its table stays.", error);
  }
}
})();
