// The batching timeline. No dependencies; llm_from_scratch/widgets/batching.py writes the data it reads.
(() => {
"use strict";
const FORMAT = 1;

// ---- The schedule: the rules of inference.Scheduler, as in widgets/batching_replay.py

function replay(requests, { slots, chunk, batching }) {
  const fixed = batching === "static", texts = [], steps = [], waits = [], ends = [];
  const coming = requests.map((_, number) => number).sort((a, b) => requests[a][0] - requests[b][0] || a - b);
  let waiting = [], running = [];
  while (coming.length || waiting.length || running.length) {
    const step = steps.length + 1;
    while (coming.length && requests[coming[0]][0] < step) waiting.push(coming.shift());
    if (!fixed || !running.length) {
      while (waiting.length && running.length < slots) {
        let slot = 0;
        while (running.some((text) => text.slot === slot)) slot++;
        const request = waiting.shift(), [, unread, left] = requests[request];
        running.push(texts[request] = { request, slot, start: step, unread, left, first: 0, end: 0 });
      }
    }
    waits.push([...waiting]);
    let room = chunk;
    steps.push(running.map((text) => {
      const { request, slot } = text;
      if (text.end) return { request, slot, kind: "padding", read: 0 };
      const read = text.unread === 1 ? 1 : Math.min(text.unread, room);
      if (text.unread > 1) room -= read;
      text.unread -= read;
      if (text.unread) return { request, slot, kind: read ? "prefill" : "held", read };
      const kind = text.first ? "decode" : "first";
      text.first ||= step;
      text.unread = 1;
      if (!--text.left) text.end = step;
      return { request, slot, kind, read };
    }));
    for (const text of running.filter((each) => each.end === step)) {
      ends.push(text.request);
      if (fixed) continue;
      // The last text takes the place of the one that ended, so the order of reading is the scheduler's.
      const place = running.indexOf(text), last = running.pop();
      if (last !== text) running[place] = last;
    }
    if (fixed && running.every((text) => text.end)) running = [];
  }
  const spans = texts.map(({ request, slot, start, first, end }) => ({ slot, start, first, end, waited: start - 1 - requests[request][0] }));
  const tokens = requests.reduce((sum, [, , answer]) => sum + answer, 0), waited = spans.map((span) => span.waited);
  const counts = {
    steps: steps.length, tokens, used: tokens / (slots * steps.length), tokens_per_step: tokens / steps.length,
    mean_wait: waited.reduce((sum, n) => sum + n, 0) / waited.length, worst_wait: Math.max(...waited),
  };
  return { steps, waiting: waits, spans, ends, counts };
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
  light: { paper: "#ffffff", ink: "#1c2430", faint: "#566070", line: "#dde2e8", edge: "#858f9c", accent: "#1b5fae", wash: "#f3f6f9", hatch: "#b4bcc6" },
  dark: { paper: "#1b1e24", ink: "#e6e9ee", faint: "#a6afbb", line: "#343a44", edge: "#77818f", accent: "#8fc1ff", wash: "#23272f", hatch: "#4d5663" },
};
// Six hues, the fill of a drawn token and the frame of a prompt; the letter tells the seventh request from the first.
const HUES = {
  light: [["#cfe3f7", "#1b5fae"], ["#fbe0b5", "#8f5a00"], ["#c9ecd9", "#0b7350"], ["#efd5eb", "#8a3d7c"], ["#fbd3c4", "#a33f00"], ["#ece5ae", "#6b6400"]],
  dark: [["#234a73", "#8fc1ff"], ["#5f4515", "#ffc766"], ["#1c5842", "#6fd9ae"], ["#5d3157", "#e9a6dd"], ["#70351f", "#ffb27a"], ["#524d14", "#e0d66a"]],
};
for (const theme of ["light", "dark"]) HUES[theme].forEach(([fill, frame], n) => Object.assign(COLOURS[theme], { [`fill${n}`]: fill, [`frame${n}`]: frame }));
const listed = (colours) => Object.entries(colours).map(([key, value]) => `--${key}: ${value};`).join(" ");
const PICTURE = `
text { font: 12px system-ui, sans-serif; fill: var(--ink); } .faint { fill: var(--faint); } .mid { text-anchor: middle; } .end { text-anchor: end; }
.hatch { fill: none; stroke: var(--hatch); } .now { fill: none; stroke: var(--ink); stroke-width: 2; } .over { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
.prefill, .held { fill: var(--paper); } .first, .prefill { stroke-width: 2; } .held { stroke-dasharray: 3 2; }
${HUES.light.map((_, n) => `.decode.n${n}, .first.n${n} { fill: var(--fill${n}); } .first.n${n}, .prefill.n${n}, .held.n${n} { stroke: var(--frame${n}); }`).join("\n")}
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
.bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.files { margin-inline-start: auto; display: flex; gap: .5rem; }
button, select, .number { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px; min-height: 36px; padding: 0 .625rem; max-width: 100%; }
button { cursor: pointer; } button:hover:enabled { background: var(--wash); } button:disabled { color: var(--faint); cursor: default; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin-top: .75rem; align-items: end; }
.controls label { display: grid; gap: .125rem; } .controls .wide { flex: 1 1 10rem; } .play { min-width: 4.5rem; }
[type=range] { width: 100%; min-height: 36px; accent-color: var(--accent); margin: 0; }
.number { width: 3.375rem; min-height: 32px; padding: 0 .125rem 0 .375rem; font-variant-numeric: inherit; }
.grid { margin-top: .75rem; overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; } svg { display: block; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .5rem 0 0; padding: 0; list-style: none; }
.legend li { display: flex; gap: .375rem; align-items: center; } .legend svg { flex: none; }
.words { margin-top: .625rem; min-height: 2.9em; }
table { border-collapse: collapse; width: 100%; } th, td { padding: 3px 0 3px .625rem; text-align: end; font-weight: 400; vertical-align: middle; } td { white-space: nowrap; }
th:first-child, td:first-child { text-align: start; padding-inline-start: 2px; } th { color: var(--faint); vertical-align: bottom; } tbody th { color: var(--ink); vertical-align: middle; }
tbody tr { border-top: 1px solid var(--line); } .on { font-weight: 600; color: var(--ink); }
.scroll { overflow-x: auto; margin-top: .75rem; padding: 2px; } .chip { display: inline-block; min-width: 1.5rem; text-align: center; border-radius: 4px; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
${HUES.light.map((_, n) => `.chip${n} { background: var(--fill${n}); }`).join(" ")}
${PICTURE}
@media (forced-colors: active) { text, .faint { fill: CanvasText; } .prefill, .held { fill: Canvas; } rect.prefill, rect.held, rect.first { stroke: CanvasText !important; }
  rect.decode, rect.first { fill: Highlight !important; } .over { stroke: Canvas; } .drawn { fill: HighlightText; } .hatch { stroke: GrayText; } .now { stroke: CanvasText; } }
@media (max-width: 420px) { .widget { padding: .75rem; } th, td { padding-inline-start: .375rem; } .number { width: 3rem; } }
@media print { .files, .controls { display: none; } .widget { break-inside: avoid; } }
`;
const CELL = 20, ROW = 24, LEFT = 62, TOP = 30; // a cell's side, a row's height, room for names and for numbers
const KINDS = { decode: "drew a token", first: "ended its prompt and drew the first token", prefill: "read prompt tokens", held: "waited for other prompts", padding: "ended, pads its batch", idle: "empty slot" };
const HATCHED = { padding: 1, idle: 1 }, MODES = ["static", "continuous"], FIELDS = ["arrival", "prompt", "answer"], PACE = 600; // ms a step
const COUNTS = [
  ["Steps until the last answer ends", (c) => c.steps],
  ["Slots of all steps that drew a token", (c) => `${(100 * c.used).toFixed(1)} %`],
  ["Tokens a step", (c) => c.tokens_per_step.toFixed(2)],
  ["Mean wait for a slot (steps)", (c) => c.mean_wait.toFixed(2)],
  ["Longest wait for a slot (steps)", (c) => c.worst_wait],
];

function BatchingTimeline(root, data) {
  const start = () => ({ slots: data.slots, chunk: data.prefill_chunk, batching: data.batching, requests: data.requests.map((one) => [...one]) });
  const state = { ...start(), step: 0 };
  const name = (number) => data.names[number], hue = (number) => number % HUES.light.length;
  const run = (settings) => replay(settings.requests, settings);
  let both, shown, timer = null;
  function compute() {
    both = Object.fromEntries(MODES.map((batching) => [batching, run({ ...state, batching })]));
    shown = both[state.batching];
  }
  compute();
  state.step = shown.steps.length;

  // ---- Elements
  const button = (text, label, act, look = null) => make("button", { type: "button", "aria-label": label, title: label, class: look, onclick: act }, text);
  function choice(label, key, values, say = String) {
    const select = make("select", { "aria-label": label, onchange: () => set({ [key]: typeof state[key] === "number" ? +select.value : select.value }) },
      ...values.map((value) => make("option", { value }, say(value))));
    return { key, select, label: make("label", {}, make("span", { class: "label" }, label), select) };
  }
  const sorted = (values) => [...new Set(values)].sort((a, b) => a - b);
  const choices = [
    choice("Batching", "batching", MODES), choice("Slots", "slots", Array.from({ length: data.max_slots }, (_, n) => n + 1)),
    choice("Prompt tokens a step", "chunk", sorted([1, 2, 4, 8, 16, 32, 64, 128, data.prefill_chunk])),
  ];
  const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Step", oninput: () => set({ step: +slider.value }) });
  const sliderLabel = make("span", { class: "label" });
  const back = button("‹ Back", "One step back", () => set({ step: state.step - 1 })), forth = button("Step ›", "One step forward", () => set({ step: state.step + 1 }));
  const play = button("Play", "Play", () => (timer === null ? begin() : set({ step: state.step })), "play");
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const grid = make("div", { class: "grid", tabindex: 0, role: "region", "aria-label": "Slots and steps, scrolls sideways" });
  const words = make("p", { class: "words" }), spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  const heads = MODES.map((mode) => make("th", { scope: "col" }, mode)), countCells = COUNTS.map(() => MODES.map(() => make("td")));
  const legend = make("ul", { class: "legend" });
  for (const [kind, meaning] of Object.entries(KINDS)) {
    const item = make("li", {}, meaning), swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [key, value] of [["width", 20], ["height", 20], ["aria-hidden", "true"]]) swatch.setAttribute(key, value);
    swatch.innerHTML = sample(kind, 0, 0);
    item.prepend(swatch);
    legend.append(item);
  }
  const lines = data.requests.map((_, number) => {
    const inputs = FIELDS.map((field, n) => {
      const [min, max] = data.limits[field];
      const input = make("input", { type: "number", class: "number", min, max, step: 1, "aria-label": `Request ${name(number)}: ${field}`, onchange: () => edit(number, n, input) });
      return input;
    });
    return { inputs, times: [0, 1, 2, 3].map(() => make("td")) };
  });
  function edit(number, field, input) {
    const [min, max] = data.limits[FIELDS[field]], value = input.value === "" ? NaN : Math.round(Number(input.value));
    const requests = state.requests.map((one) => [...one]);
    if (Number.isFinite(value)) requests[number][field] = Math.max(min, Math.min(max, value));
    set({ requests });
  }
  // Else JupyterLab would take the keys.
  const host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  const headings = (names) => names.map((text) => make("th", { scope: "col" }, text));
  grid.append(picture);
  shadow.append(make("style", {}, STYLE), make("div", { class: "widget", role: "group", "aria-label": data.title },
    make("div", { class: "bar" }, make("p", { class: "title" }, data.title), make("div", { class: "files" },
      button("SVG", "Export as SVG", () => download("batching.svg", "image/svg+xml", svg())),
      button("CSV", "Export as CSV", () => download("batching.csv", "text/csv;charset=utf-8", csv())))),
    make("div", { class: "controls" }, ...choices.map((one) => one.label)),
    make("div", { class: "controls" }, back, forth, play, make("label", { class: "wide" }, sliderLabel, slider)),
    grid, legend, words,
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Counts" }, make("table", {},
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Whole run"), ...heads)),
      make("tbody", {}, ...COUNTS.map(([label], n) => make("tr", {}, make("th", { scope: "row" }, label), ...countCells[n]))))),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Requests" }, make("table", {},
      make("thead", {}, make("tr", {}, ...headings(["Request", "Arrives after step", "Prompt (tokens)", "Answer (tokens)", "Starts in step", "First token in step", "Ends in step", "Waits (steps)"]))),
      make("tbody", {}, ...lines.map(({ inputs, times }, number) => make("tr", {},
        make("th", { scope: "row" }, make("span", { class: `chip chip${hue(number)}` }, name(number))), ...inputs.map((input) => make("td", {}, input)), ...times))))),
    make("div", { class: "controls" }, button("Reset", "Reset all settings", () => set(start()))),
    make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken));

  // ---- Drawing
  function hatch(x, y) {
    return `M${x} ${y + 10}l10 -10M${x} ${y + 20}l19 -19M${x + 9} ${y + 20}l10 -10`;
  }
  function cell(kind, request, x, y) {
    return `<rect class="${kind} n${hue(request)}" x="${x + 1}" y="${y + 1}" width="${CELL - 2}" height="${CELL - 2}" rx="2"/>`;
  }
  function mark(kind, request, x, y) {
    return `<text class="mid${{ decode: " drawn", first: " drawn", prefill: "" }[kind] ?? " faint over"}" x="${x + CELL / 2}" y="${y + 15}">${name(request)}</text>`;
  }
  function sample(kind, x, y) {
    const letter = kind === "padding" ? mark(kind, 0, x, y) : "";
    return kind in HATCHED ? `<path class="hatch" d="${hatch(x, y)}"/>${letter}` : cell(kind, 0, x, y);
  }
  function draw(last) {
    // Both kinds of batching on one axis, so that switching shows which is shorter.
    const total = shown.steps.length, columns = Math.max(...MODES.map((mode) => both[mode].steps.length)), foot = TOP + ROW * state.slots;
    let cells = "", letters = "", hatches = "", labels = `<text class="faint" x="6" y="20">step</text><text class="faint" x="6" y="${foot + 17}">waiting</text>`;
    for (let slot = 0; slot < state.slots; slot++) labels += `<text x="6" y="${TOP + ROW * slot + 15}">slot ${slot + 1}</text>`;
    for (let step = 1; step <= columns; step++) {
      const x = LEFT + CELL * (step - 1);
      if (step === 1 || step % 5 === 0) labels += `<text class="mid faint" x="${x + CELL / 2}" y="20">${step}</text>`;
      if (step > last) continue;
      const used = new Map(shown.steps[step - 1].map((one) => [one.slot, one])), queue = shown.waiting[step - 1].length;
      for (let slot = 0; slot < state.slots; slot++) {
        const one = used.get(slot), y = TOP + ROW * slot;
        if (one) letters += mark(one.kind, one.request, x, y);
        if (!one || one.kind in HATCHED) hatches += hatch(x, y);
        else cells += cell(one.kind, one.request, x, y);
      }
      labels += `<text class="mid${queue ? "" : " faint"}" x="${x + CELL / 2}" y="${foot + 17}">${queue}</text>`;
    }
    if (last > 0 && last < total) letters += `<rect class="now" x="${LEFT + CELL * (last - 1) - 1}" y="${TOP - 3}" width="${CELL + 1}" height="${foot - TOP + 1}" rx="3"/>`;
    return { markup: `${cells}<path class="hatch" d="${hatches}"/>${letters}${labels}`, width: LEFT + CELL * columns + 8, height: foot + 28 };
  }

  function describe() {
    const total = shown.steps.length, head = `Step ${state.step} of ${total}, ${state.batching} batching. `;
    if (!state.step) return head + "Nothing has run yet.";
    const here = [...shown.steps[state.step - 1]].sort((a, b) => a.slot - b.slot), queue = shown.waiting[state.step - 1];
    const list = (kind) => here.filter((one) => one.kind === kind).map((one) => name(one.request) + (kind === "prefill" ? ` (${one.read})` : "")).join(", ");
    const parts = Object.entries({ decode: "Next token", first: "End of the prompt and first token", prefill: "Tokens of a prompt", held: "Held back by other prompts", padding: "Ended, padding" })
      .map(([kind, label]) => [label, list(kind)]).filter(([, names]) => names).map(([label, names]) => `${label}: ${names}.`);
    const empty = state.slots - here.length, ended = shown.spans.flatMap((span, n) => (span.end === state.step ? [name(n)] : []));
    if (empty) parts.push(`${empty} slot${empty === 1 ? " is" : "s are"} empty.`);
    if (queue.length) parts.push(`Waiting: ${queue.map(name).join(", ")}.`);
    if (ended.length) parts.push(`${ended.join(", ")} end${ended.length === 1 ? "s" : ""} here.`);
    return head + parts.join(" ");
  }

  let speech;
  function update(aloud) {
    const total = shown.steps.length, drawn = draw(state.step), said = describe();
    slider.max = total;
    slider.value = state.step;
    sliderLabel.textContent = `Step ${state.step} of ${total}`;
    slider.setAttribute("aria-valuetext", `step ${state.step} of ${total}`);
    back.disabled = state.step === 0;
    forth.disabled = state.step === total;
    play.textContent = timer === null ? "Play" : "Pause";
    for (const key of ["aria-label", "title"]) play.setAttribute(key, play.textContent);
    for (const { key, select } of choices) select.value = String(state[key]);
    for (const [key, value] of [["role", "img"], ["viewBox", `0 0 ${drawn.width} ${drawn.height}`], ["width", drawn.width], ["height", drawn.height], ["aria-label", "Slots by steps. The words below say what this step did."]]) picture.setAttribute(key, value);
    picture.innerHTML = drawn.markup;
    words.textContent = said;
    MODES.forEach((mode, column) => {
      heads[column].className = mode === state.batching ? "on" : "";
      COUNTS.forEach(([, show], row) => {
        countCells[row][column].textContent = show(both[mode].counts);
        countCells[row][column].className = mode === state.batching ? "on" : "";
      });
    });
    lines.forEach(({ inputs, times }, number) => {
      const { start: begun, first, end, waited } = shown.spans[number];
      inputs.forEach((input, n) => { input.value = state.requests[number][n]; });
      [begun, first, end, waited].forEach((time, n) => { times[n].textContent = time; });
    });
    if (!aloud) return;
    const x = LEFT + CELL * state.step; // keep this step in sight
    if (x > grid.scrollLeft + grid.clientWidth || x - 3 * CELL < grid.scrollLeft) grid.scrollLeft = x - grid.clientWidth / 2;
    clearTimeout(speech);
    // While it plays, speech would come later than the picture.
    if (timer === null) speech = setTimeout(() => { spoken.textContent = said; }, 200);
  }
  function halt() {
    clearInterval(timer);
    timer = null;
  }
  function begin() {
    if (state.step === shown.steps.length) state.step = 0;
    timer = setInterval(() => {
      state.step++;
      if (state.step >= shown.steps.length || !host.isConnected) halt();
      update(true);
    }, PACE);
    update(true);
  }
  function set(changes) {
    halt();
    Object.assign(state, changes);
    compute();
    // Another setting shows its whole schedule; the step is kept only where it was chosen.
    const total = shown.steps.length;
    state.step = "step" in changes ? Math.max(0, Math.min(state.step, total)) : total;
    update(true);
  }

  // ---- Export
  function csv() {
    const rows = shown.steps.flatMap((cells, n) => cells.map(({ slot, request, kind, read }) => [n + 1, slot + 1, name(request), kind, read, Number(kind === "first" || kind === "decode")]));
    return [["step", "slot", "request", "kind", "tokens_read", "tokens_drawn"], ...rows].map((row) => row.join(",") + "\r\n").join("");
  }
  function svg() {
    const style = PICTURE.replace(/var\(--(.*?)\)/g, (_, key) => COLOURS.light[key]), drawn = draw(state.step), width = Math.max(drawn.width, 560);
    const keys = Object.entries(KINDS).map(([kind, meaning], n) => {
      const x = 10 + 270 * (n % 2), y = drawn.height + 56 + 26 * Math.floor(n / 2);
      return `${sample(kind, x, y)}<text x="${x + 26}" y="${y + 15}">${meaning}</text>`;
    }).join("");
    const high = drawn.height + 140, about = `${state.batching} batching, ${state.slots} slots, at most ${state.chunk} prompt tokens a step`;
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${high}" width="${width}" height="${high}" role="img"><title>${escapeXml(clean(data.title))}</title><style>${style}</style><rect width="100%" height="100%" fill="#fff"/>`
      + `<text x="10" y="22">${escapeXml(clean(shorten(data.title, 60)))}</text><text x="10" y="42" class="faint">${about}</text><g transform="translate(4 48)">${drawn.markup}</g>${keys}</svg>`;
  }

  // ---- Start
  root.append(host);
  followTheme(() => { const now = pageTheme(); if (now !== host.dataset.theme) { host.dataset.theme = now; update(false); } });
  return { state, set, csv, svg, describe, playing: () => timer !== null, replay: (settings) => run({ ...state, ...settings }) };
}

// Mount every root of this kind that has data and no view yet.
for (const root of document.querySelectorAll('[data-llm-widget="batching"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = BatchingTimeline(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("The batching timeline could not start; its tables stay.", error);
  }
}
})();
