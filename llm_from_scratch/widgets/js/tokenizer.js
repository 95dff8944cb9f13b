// The tokenizer explorer. No dependencies; llm_from_scratch/widgets/tokenizer.py writes the data it reads.
// A node is a byte, or the token that grew from it; a join puts the node `j` into the node `i` before it.
(() => {
"use strict";
const FORMAT = 1, DRAWN = 2000, AT_ONCE = 600; // tokens drawn

// ---- The encoding, as in tokenizers/byte_pair.py

const utf8 = (text) => new TextEncoder().encode(text);

// The ids of a merge take as many bits as the largest id before it needs.
function readMerges({ count, packed }) {
  const digits = Array.from(atob(packed), (c) => c.charCodeAt(0).toString(2).padStart(8, "0")).join("");
  let at = 0;
  const read = (bits) => parseInt(digits.slice(at, at += bits), 2);
  return Array.from({ length: count }, (_, rank) => [0, 0].map(() => read(32 - Math.clz32(255 + rank))));
}

// GPT-2's cut into pieces. The classes \p{L}, \p{N} and \s come from Python: a browser's own may be of
// another version of Unicode, and its \s is another set.
function piecePattern(classes) {
  const set = (table) => {
    let at = 0, text = "";
    table.split(",").forEach((step, n) => {
      at += parseInt(step, 36);
      text += n % 2 ? `-\\u{${(at - 1).toString(16)}}` : `\\u{${at.toString(16)}}`;
    });
    return text;
  };
  const L = set(classes.L), N = set(classes.N), S = set(classes.S);
  return new RegExp(`'(?:[sdmt]|ll|ve|re)| ?[${L}]+| ?[${N}]+| ?[^${S}${L}${N}]+|[${S}]+(?![^${S}])|[${S}]+`, "gu");
}

const pairKey = (left, right) => left * 0x1000000 + right;

function Tokenizer(data) {
  const order = [], merges = readMerges(data.merges), made = [], rankOf = new Map();
  for (let byte = 0; byte < 256; byte++) if ((byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad)) order.push(byte);
  for (let byte = 0; byte < 256; byte++) if (!order.includes(byte)) order.push(byte);
  const tokens = order.map((byte) => String.fromCharCode(byte));
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  merges.forEach(([left, right], rank) => {
    const token = tokens[left] + tokens[right];
    if (!idOf.has(token)) {
      idOf.set(token, tokens.length);
      tokens.push(token);
    }
    made.push(idOf.get(token));
    rankOf.set(pairKey(left, right), rank);
  });
  const pattern = piecePattern(data.classes), special = new Map(data.special);
  const longest = [...special.keys()].sort((a, b) => b.length - a.length).map((text) => text.replace(/[\^$\\.*+?()[\]{}|/]/g, "\\$&"));
  const specialPattern = longest.length ? new RegExp(`(${longest.join("|")})`, "u") : null;

  // Returns the nodes before any merge, and the steps: each the joins of one merge.
  function run(text, recognise = false) {
    const lone = /\p{Cs}/u.exec(text);
    if (lone) {
      throw new RangeError(`The text holds the lone surrogate U+${hex(lone[0].charCodeAt(0), 4)} at position ${[...text.slice(0, lone.index)].length}: half of a character, without UTF-8. `
        + "encode refuses it (ValueError in Python).");
    }
    const bytes = utf8(text), nodes = [], id = [], next = [];
    let at = 0;
    (recognise && specialPattern ? text.split(specialPattern) : [text]).forEach((part, n) => {
      if (n % 2) {
        nodes.push({ at, piece: true, special: true });
        id.push(special.get(part));
        next.push(-1);
        at += utf8(part).length;
        return;
      }
      for (const [piece] of part.matchAll(pattern)) {
        const end = at + utf8(piece).length;
        for (let first = at; at < end; at++) {
          nodes.push({ at, piece: at === first, special: false });
          id.push(idOf.get(String.fromCharCode(bytes[at])));
          next.push(at < end - 1 ? nodes.length : -1);
        }
      }
    });
    const first = [...id], before = id.map(() => -1), steps = [];
    next.forEach((j, i) => { if (j >= 0) before[j] = i; });
    const rankAt = (i) => (i < 0 || next[i] < 0 ? Infinity : rankOf.get(pairKey(id[i], id[next[i]])) ?? Infinity);
    const ranks = Float64Array.from(id, (_, i) => rankAt(i)); // of the node with the one after it

    // The lowest rank first, and of its pairs the leftmost.
    for (;;) {
      let rank = Infinity;
      for (const other of ranks) if (other < rank) rank = other;
      if (rank === Infinity) break;
      if (!steps.length || steps.at(-1).rank !== rank) steps.push({ rank, joins: [] });
      for (let i = ranks.indexOf(rank); i >= 0; i = ranks.indexOf(rank, i + 1)) {
        const j = next[i], h = before[i];
        steps.at(-1).joins.push([i, j]);
        id[i] = made[rank];
        id[j] = -1;
        next[i] = next[j];
        if (next[i] >= 0) before[next[i]] = i;
        ranks[j] = Infinity;
        let low = ranks[i] = rankAt(i);
        if (h >= 0) low = Math.min(low, ranks[h] = rankAt(h));
        if (low <= rank) break; // as when two merges make one token
      }
    }
    return { text, bytes, nodes, first, steps, ids: id.filter((i) => i >= 0) };
  }

  // The tokens after so many steps.
  function after({ bytes, nodes, first, steps }, count) {
    const id = [...first], rank = new Map(), fresh = new Set(), found = [];
    steps.slice(0, count).forEach((step, n) => {
      for (const [i, j] of step.joins) {
        id[i] = made[step.rank];
        id[j] = -1;
        rank.set(i, step.rank);
        if (n === count - 1) fresh.add(i);
      }
    });
    id.forEach((token, i) => {
      if (token < 0) return;
      if (found.length) found.at(-1).end = nodes[i].at;
      found.push({ id: token, rank: rank.get(i), fresh: fresh.has(i), piece: nodes[i].piece, special: nodes[i].special, start: nodes[i].at, end: bytes.length });
    });
    return found;
  }
  return { run, after, merges, made, special, pattern, bytesOf: (id) => Uint8Array.from(tokens[id], (c) => c.charCodeAt(0)) };
}

// ---- Tokens as text

const hex = (number, length = 2) => number.toString(16).toUpperCase().padStart(length, "0");
const hexBytes = (bytes) => Array.from(bytes, (byte) => hex(byte)).join(" ");
const NAMED = { " ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\x7f": "␡" };

function visible(letter) {
  const code = letter.codePointAt(0);
  if (NAMED[letter]) return NAMED[letter];
  if (code < 32) return String.fromCharCode(0x2400 + code);
  return /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Z}\ufdd0-\ufdef\ufffe\uffff]/u.test(letter) ? `⟨U+${hex(code, 4)}⟩` : letter;
}

// Whole characters as text; bytes that are a part of one in base 16, between ⟨ and ⟩.
function shown(bytes) {
  let text = "", pending = [];
  const flush = () => {
    if (pending.length) text += `⟨${hexBytes(pending)}⟩`;
    pending = [];
  };
  for (let i = 0; i < bytes.length;) {
    const lead = bytes[i], size = lead < 0x80 ? 1 : lead < 0xc0 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (!size || i + size > bytes.length) {
      pending.push(lead);
      i++;
      continue;
    }
    flush();
    let code = size === 1 ? lead : lead & (0x7f >> size);
    for (let k = 1; k < size; k++) code = (code << 6) | (bytes[i + k] & 63);
    const letter = String.fromCodePoint(code);
    text += (/^$|⟩$/.test(text) && /\p{M}/u.test(letter) ? "◌" : "") + visible(letter); // a mark stands on a letter
    i += size;
  }
  flush();
  return text;
}

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
const thousands = (n) => n.toLocaleString("en");
const count = (n, noun) => `${thousands(n)} ${noun}${n === 1 ? "" : "s"}`;

// RFC 4180, and an apostrophe before what a spreadsheet would run as a formula.
function csvField(value) {
  if (typeof value === "number") return String(value);
  const text = /^\s*[=+\-@]|^[\t\r]/.test(value) ? "'" + value : String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

//= shared_download.js

// ---- The view

const STYLE = `
:host { --paper: #fff; --ink: #1c2430; --faint: #566070; --line: #dde2e8; --edge: #77818f; --accent: #1b5fae; --warn: #a33f00;
  --wash: #f3f6f9; --odd: #e4eefa; --even: #fdf0da; display: block; color-scheme: light; }
:host([data-theme=dark]) { --paper: #1b1e24; --ink: #e6e9ee; --faint: #b4bcc7; --line: #343a44; --edge: #8791a0;
  --accent: #8fc1ff; --warn: #ffb27a; --wash: #23272f; --odd: #1d3350; --even: #43341b; color-scheme: dark; }
* { box-sizing: border-box; min-width: 0; print-color-adjust: exact; }
[hidden] { display: none !important; }
.widget { container-type: inline-size; background: var(--paper); color: var(--ink); border: 1px solid var(--line);
  border-radius: 10px; padding: 1rem 1.125rem; margin: .75rem 0; font: .875rem/1.45 system-ui, sans-serif; text-align: start; }
.title { font-size: 1.0625rem; } b, .title { font-weight: 600; }
p { margin: 0; overflow-wrap: anywhere; }
.caption, .label { color: var(--faint); }
.label { font-size: .8125rem; }
.caption { margin-top: .75rem; border-top: 1px solid var(--line); padding-top: .75rem; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin-top: .75rem; }
.bar:first-child { margin: 0; }
.end { margin-inline-start: auto; display: flex; gap: .5rem; }
button, textarea { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px; }
button { cursor: pointer; min-height: 36px; padding: 0 .625rem; } button:hover { background: var(--wash); }
textarea { display: block; width: 100%; padding: .5rem .625rem; margin-top: .25rem; resize: vertical; min-height: 3rem; font-size: 1rem; }
[aria-disabled=true] { opacity: .45; cursor: default; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
label { display: inline-flex; gap: .5rem; align-items: center; min-height: 36px; }
input[type=checkbox] { width: 18px; height: 18px; margin: 0; accent-color: var(--accent); flex: none; }
.note { margin-top: .5rem; border-inline-start: 4px solid var(--warn); padding-inline-start: .625rem; }
.facts { display: flex; flex-wrap: wrap; gap: .25rem 1.75rem; margin-top: .75rem; color: var(--faint); font-size: .8125rem; }
.facts b { display: block; font-size: 1.25rem; line-height: 1.3; color: var(--ink); }
.steps { display: flex; flex-wrap: wrap; gap: .375rem; align-items: center; margin-top: .875rem; }
.steps .next { background: var(--accent); border-color: var(--accent); color: var(--paper); }
.steps input { flex: 1 1 12rem; min-height: 36px; margin: 0 .25rem; accent-color: var(--accent); }
.mono, .token { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .8125rem; white-space: pre; }
.tokens { display: flex; flex-wrap: wrap; gap: 4px 3px; max-height: 24rem; overflow: auto; margin: .5rem -3px 0; padding: 3px; contain: content; }
.token { display: block; border: 1px solid var(--edge); border-radius: 5px; padding: 1px .375rem 2px; min-width: 1.5rem; background: var(--odd); cursor: default; line-height: 1.5; }
.token:nth-child(even) { background: var(--even); }
.token small { display: block; font-size: .6875rem; line-height: 1.3; }
.gap { margin-inline-end: 8px; } .part { border-style: dashed; } .special { border: 3px double var(--ink); }
.fresh { box-shadow: 0 0 0 2px var(--accent); border-color: var(--accent); } .fresh bdi { font-weight: 700; }
.token[aria-selected=true] { box-shadow: 0 0 0 2px var(--ink); }
.step, .detail { margin-top: .5rem; min-height: 2.9em; }
table { border-collapse: collapse; margin-top: .375rem; } th, td { padding: 2px .875rem 2px 0; text-align: start; font-weight: 400; white-space: nowrap; }
th { color: var(--faint); } details { margin-top: .5rem; } summary { cursor: pointer; color: var(--faint); min-height: 24px; }
.scroll { overflow: auto; max-height: 20rem; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@container (max-width: 20rem) { .edge { display: none; } }
@media (forced-colors: active) { .fresh, .token[aria-selected=true] { outline: 3px solid Highlight; outline-offset: -1px; } }
@media print { .end, .steps, .check { display: none; } .tokens { max-height: none; overflow: visible; } .widget { break-inside: avoid; } }
`;

function TokenizerExplorer(root, data) {
  const tokenizer = Tokenizer(data), state = { text: data.text, recognise: false, step: 0, bytes: false, token: null, typed: true };
  const names = [...tokenizer.special.keys()];
  let run, tokens = [], fault = "", total = 0, playing = null, later;

  // ---- What is typed
  function encode(before, delay) {
    stop();
    total = 0;
    for (const _ of state.text) total++;
    const text = total > data.limit ? Array.from(state.text.slice(0, 2 * data.limit)).slice(0, data.limit).join("") : state.text;
    fault = "";
    try {
      run = tokenizer.run(text, state.recognise);
    } catch (error) {
      fault = error.message;
      run = tokenizer.run("");
    }
    run.letters = Array.from(run.text);
    run.letterAt = []; // of each byte
    run.letters.forEach((letter, n) => {
      const code = letter.codePointAt(0);
      for (let size = 1 + (code > 0x7f) + (code > 0x7ff) + (code > 0xffff); size; size--) run.letterAt.push(n);
    });
    state.step = run.steps.length;
    state.typed = true;
    update(before === undefined ? null : () => `${before} ${count(tokens.length, "token")}. ${total > data.limit || fault ? notes()[0] : ""}`, delay);
  }
  const bytesOf = ({ start, end }) => run.bytes.subarray(start, end);
  const underOf = (token) => (state.bytes ? shorten(hexBytes(bytesOf(token)), 30) : `${token.id}${token.special ? " special" : ""}`);
  // The characters, by place, of which a token holds a part.
  function cutLetters({ start, end }) {
    const at = run.letterAt, ends = [];
    if (start && at[start - 1] === at[start]) ends.push(at[start]);
    if (at[end] === at[end - 1] && ends[0] !== at[end]) ends.push(at[end]);
    return ends;
  }
  function notes() {
    if (fault) return [fault];
    const found = [], inside = names.filter((name) => run.text.includes(name));
    if (total > data.limit) found.unshift(`The text has ${thousands(total)} characters. Only the first ${thousands(data.limit)} are encoded.`);
    if (inside.length && !state.recognise) {
      found.push(`Read as ordinary text, as encode reads it unless told otherwise: ${inside.map((name) => shorten(name, 40)).join(", ")}. Writing it gives nobody the special token.`);
    } else if (inside.length) {
      found.push("Special tokens in the text now count. In a prompt this is a danger: its writer can end the document, or speak for the system.");
    }
    const parts = tokens.filter((token) => token.part);
    if (parts.length) {
      const letters = [...new Set(parts.flatMap(cutLetters).map((n) => run.letters[n]))];
      found.push(`Characters cut into several tokens, shown as bytes in dashed boxes (${parts.length}): ${letters.slice(0, 4).map(visible).join(" ")}${letters.length > 4 ? " and others" : ""}.`);
    }
    if (tokens.length > DRAWN) found.push(`The first ${thousands(DRAWN)} tokens are drawn. The counts and the files hold all.`);
    return found;
  }
  const quoted = (id) => `“\u2068${shorten(shown(tokenizer.bytesOf(id)), 40)}\u2069”`;
  function describe() {
    const { steps, bytes } = run, k = state.step;
    if (!steps.length) return { label: "No merge applies", words: "" };
    if (!k) return { label: `Start: ${count(bytes.length, "byte")}`, words: `${count(steps.length, "merge")} will join neighbours.` };
    if (state.typed) return { label: `Merge ${k} of ${k}`, words: "All merges are applied: this is the encoding. Step back to see how it grew." };
    const { rank, joins } = steps[k - 1], [left, right] = tokenizer.merges[rank];
    return { label: `Merge ${k} of ${steps.length}`, words: `Joins ${quoted(left)} + ${quoted(right)} into ${quoted(tokenizer.made[rank])}, rank ${thousands(rank)}, at ${count(joins.length, "place")}.`
      + (k === steps.length ? " This is the encoding." : "") };
  }
  function detail(n) {
    const token = tokens[n], bytes = bytesOf(token), words = [`Token ${n + 1} of ${tokens.length}: `, make("bdi", { class: "mono" }, shorten(token.shown, 60)), `, id ${token.id}, ${count(bytes.length, "byte")}: `,
      make("span", { class: "mono" }, shorten(hexBytes(bytes), 95)), ". "];
    if (token.special) return [...words, "A special token: its text is never merged."];
    words.push(token.rank === undefined ? "A single byte. " : `Made by the merge of rank ${thousands(token.rank)}. `);
    for (const n of cutLetters(token)) {
      const from = run.letterAt.indexOf(n), size = run.letterAt.lastIndexOf(n) - from + 1;
      const first = Math.max(token.start, from) - from + 1, last = Math.min(token.end, from + size) - from;
      words.push(`Holds ${first === last ? `byte ${first}` : `bytes ${first} to ${last}`} of the ${size} bytes of ${visible(run.letters[n])}. `);
    }
    return words;
  }

  // ---- Elements
  const button = (text, label, act, kind = null) => make("button", { type: "button", "aria-label": label, title: label, class: kind, onclick: act }, text);
  const box = make("textarea", { rows: 3, spellcheck: "false", dir: "auto", "aria-label": "Text to encode",
    oninput: () => { state.text = box.value; encode("", 700); } });
  const recognise = make("input", { type: "checkbox", onchange: () => { state.recognise = recognise.checked; encode(`Special tokens are ${state.recognise ? "recognised" : "ordinary text"}.`); } });
  const reset = button("Reset", "Reset the text", () => { state.text = box.value = data.text; encode("The text is as at first."); });
  const noteBox = make("div"), facts = make("div", { class: "facts" }), stepBox = make("p", { class: "step" });
  const first = button("|◀", "To the bytes", () => go(0), "edge"), previous = button("◀ Previous", "Previous merge", () => go(state.step - 1));
  const next = button("Next ▶", "Next merge", () => go(state.step + 1), "next"), last = button("▶|", "To the encoding", () => go(run.steps.length), "edge");
  const play = button("Play", "Play the merges", () => (playing ? stop(true) : start()));
  const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Merges applied", oninput: () => go(+slider.value) });
  const buttons = make("div", { class: "steps", role: "group", "aria-label": "Merges" }, first, previous, next, last, play, slider);
  const list = make("div", { class: "tokens", role: "listbox", "aria-orientation": "horizontal", "aria-label": "Tokens", onkeydown: rove });
  const detailBox = make("p", { class: "detail" });
  const inBytes = make("input", { type: "checkbox", onchange: () => { state.bytes = inBytes.checked; update(); } });
  const body = make("tbody"), table = make("details", { ontoggle: () => fillTable() }, make("summary", {}, "Table of these tokens"),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of these tokens" }, make("table", {},
      make("thead", {}, make("tr", {}, ...["Position", "Token", "Id", "UTF-8 bytes", "Rank of its merge"].map((text) => make("th", { scope: "col" }, text)))), body)));
  const spoken = make("div", { class: "spoken", role: "status", "aria-live": "polite" });
  // Else JupyterLab would take the keys: it looks at the host, which stands for what is focused inside it.
  const host = make("div", { "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  shadow.append(make("style", {}, STYLE), make("div", { class: "widget", role: "group", "aria-label": data.title },
    make("div", { class: "bar" }, make("p", { class: "title" }, data.title), make("div", { class: "end" },
      button("SVG", "Export as SVG", () => download("tokens.svg", "image/svg+xml", svg())),
      button("CSV", "Export as CSV", () => download("tokens.csv", "text/csv;charset=utf-8", csv())))),
    make("div", { class: "bar" }, make("span", { class: "label", "aria-hidden": "true" }, "Text, to be changed"), make("div", { class: "end" }, reset)), box,
    make("div", { class: "bar check" }, names.length ? make("label", {}, recognise, `Recognise ${names.length > 1 ? "special tokens" : shorten(names[0], 30)}`) : null,
      make("label", {}, inBytes, "Bytes instead of ids")),
    noteBox, facts, buttons, stepBox, list, detailBox,
    table, make("p", { class: "caption" }, data.caption), make("p", { class: "spoken" }, data.alt), spoken));

  // ---- Drawing
  function update(sentence = null, delay = 200) {
    tokens = tokenizer.after(run, state.step);
    for (const token of tokens) {
      token.shown = shown(bytesOf(token));
      token.part = cutLetters(token).length > 0;
      token.fresh &&= !state.typed;
    }
    noteBox.replaceChildren(...notes().map((text) => make("p", { class: "note" }, text)));
    const size = run.bytes.length, ratio = tokens.length ? (size / tokens.length).toFixed(2) : "–";
    facts.replaceChildren(...[[run.letters.length, "characters"], [size, "UTF-8 bytes"], [tokens.length, "tokens"], [ratio, "bytes a token"]]
      .map(([n, name]) => make("span", {}, make("b", {}, thousands(n)), name)));
    const { label, words } = describe();
    stepBox.replaceChildren(make("b", {}, label), ". ", words);
    slider.max = run.steps.length;
    slider.value = state.step;
    slider.setAttribute("aria-valuetext", label);
    for (const element of [first, previous]) element.setAttribute("aria-disabled", !state.step);
    for (const element of [next, last]) element.setAttribute("aria-disabled", state.step === run.steps.length);
    const focused = [...list.children].indexOf(shadow.activeElement);
    state.token = null;
    list.replaceChildren(...tokens.slice(0, AT_ONCE).map(draw));
    clearTimeout(later);
    later = tokens.length > AT_ONCE && setTimeout(() => { list.append(...tokens.slice(0, DRAWN).map(draw).slice(AT_ONCE)); follow(); }, 250);
    follow();
    list.hidden = !tokens.length;
    if (focused >= 0 && tokens.length) list.children[Math.min(focused, list.children.length - 1)].focus({ preventScroll: true });
    else hint();
    fillTable();
    if (sentence) say(sentence, delay);
  }
  function follow() { // bring the new token into the list's own window
    const fresh = list.querySelector(".fresh");
    if (fresh && list.scrollHeight > list.clientHeight) list.scrollTop = fresh.offsetTop - list.clientHeight / 2;
  }
  function draw(token, n) {
    const kind = `token${tokens[n + 1] && tokens[n + 1].piece ? " gap" : ""}${token.part ? " part" : ""}${token.special ? " special" : ""}${token.fresh ? " fresh" : ""}`;
    return make("div", { class: kind, role: "option", "aria-selected": "false", tabindex: n ? -1 : 0 }, make("bdi", {}, shorten(token.shown, 26)), make("small", {}, underOf(token)));
  }
  function hint() {
    detailBox.replaceChildren(make("span", { class: "label" }, tokens.length ? "Point at a token, or move with the arrow keys, to read its bytes and its merge." : "No tokens."));
  }
  function fillTable() {
    if (table.open) body.replaceChildren(...tokens.slice(0, DRAWN).map((token, n) => make("tr", {}, ...[n, make("bdi", { class: "mono" }, token.shown), token.id, hexBytes(bytesOf(token)),
      token.special ? "special token" : token.rank ?? "single byte"].map((cell) => make("td", {}, cell)))));
  }

  // ---- Interaction
  let speech;
  function say(sentence, delay = 200) {
    clearTimeout(speech);
    speech = setTimeout(() => { spoken.textContent = sentence(); }, delay);
  }
  const stepSentence = () => { const { label, words } = describe(); return `${label}. ${words} ${count(tokens.length, "token")}.`; };
  function go(step, aloud = true) {
    const wanted = Math.min(run.steps.length, Math.max(0, step));
    if (aloud) stop();
    if (wanted === state.step) return;
    state.step = wanted;
    state.typed = false;
    update(aloud ? stepSentence : null, 300);
  }
  function start() {
    if (!run.steps.length) return;
    if (state.step === run.steps.length) go(0, false);
    play.textContent = "Pause";
    play.setAttribute("aria-label", play.title = "Pause the merges");
    playing = setInterval(() => {
      go(state.step + 1, false);
      if (state.step === run.steps.length) stop(true);
    }, Math.max(120, Math.min(900, 30000 / run.steps.length)));
  }
  function stop(aloud = false) {
    if (!playing) return;
    clearInterval(playing);
    playing = null;
    play.textContent = "Play";
    play.setAttribute("aria-label", play.title = "Play the merges");
    if (aloud) say(stepSentence);
  }
  function select(n) {
    list.children[state.token]?.setAttribute("aria-selected", "false");
    state.token = n;
    list.children[n].setAttribute("aria-selected", "true");
    detailBox.replaceChildren(...detail(n));
  }
  function rove(event) {
    const n = [...list.children].indexOf(event.target), size = list.children.length;
    const to = { ArrowLeft: n - 1, ArrowUp: n - 1, ArrowRight: n + 1, ArrowDown: n + 1, Home: 0, End: size - 1 }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const target = list.children[to];
    if (!target) return;
    for (const element of list.querySelectorAll('[tabindex="0"]')) element.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  }
  const point = (event) => { const token = event.target.closest(".token"); if (token) select([...list.children].indexOf(token)); };
  for (const type of ["mouseover", "click", "focusin"]) list.addEventListener(type, point);

  // ---- Export
  function csv() {
    const lines = [["position", "token", "id", "utf8_bytes", "rank", "note"], ...tokens.map((token, n) => [n, token.part ? token.shown : new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytesOf(token)), token.id,
      hexBytes(bytesOf(token)), token.rank ?? "", token.special ? "special token" : token.part ? "part of a character" : ""])];
    return lines.map((line) => line.map(csvField).join(",") + "\r\n").join("");
  }
  const columns = (text) => Array.from(text).reduce((sum, letter) => sum + (/[\u2e80-\ud7a3\uf900-\uff60\u{1f000}-\u{3fffd}]/u.test(letter) ? 2 : 1), 0);
  function svg() {
    const width = 760, { label, words } = describe(), parts = [], text = (x, y, kind, content) => `<text class="${kind}" x="${x}" y="${y}">${escapeXml(content)}</text>`;
    let x = 12, y = 62;
    tokens.slice(0, DRAWN).forEach((token, n) => {
      const words = shorten(token.shown, 26), under = underOf(token), wide = 12 + Math.ceil(Math.max(8 * columns(words), 6.7 * under.length));
      if (token.piece && x > 12) x += 6;
      if (x > 12 && x + wide > width - 12) [x, y] = [12, y + 46];
      parts.push(`<rect x="${x}" y="${y}" width="${wide}" height="40" rx="5" fill="${n % 2 ? "#fdf0da" : "#e4eefa"}" stroke="#77818f" stroke-width="${token.fresh || token.special ? 3 : 1}"${token.part ? ' stroke-dasharray="4 3"' : ""}/>`
        + text(x + 6, y + 17, "t", words) + text(x + 6, y + 33, "i", under));
      x += wide + 4;
    });
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y + 52}" width="${width}" height="${y + 52}" role="img"><title>${escapeXml(data.title)}</title>`
      + "<style>text{font:13px sans-serif;fill:#1c2430}.t{font:13px monospace}.i{font:11px monospace;fill:#566070}</style>"
      + `<rect width="100%" height="100%" fill="#fff"/>${text(12, 24, "", data.title)}${text(12, 46, "", shorten(`${label}. ${words}`, 110))}${parts.join("")}</svg>`;
  }

  // ---- Start
  box.value = data.text;
  root.append(host);
  followTheme(() => { host.dataset.theme = pageTheme(); });
  encode();
  return { state, go, csv, svg, notes, describe, shown, tokenizer, tokens: () => tokens, ids: () => tokens.map((token) => token.id) };
}

// Mount every root of this kind that has data and no view yet: this output's own, and no other.
for (const root of document.querySelectorAll('[data-llm-widget="tokenizer"]')) {
  const json = root.querySelector('script[type="application/json"]');
  if (root.api || !json) continue;
  const data = JSON.parse(json.textContent);
  if (data.format !== FORMAT) continue;
  try {
    root.api = TokenizerExplorer(root, data);
    root.querySelector(".llm-widget-fallback").hidden = true;
  } catch (error) {
    console.error("The tokenizer explorer could not start; its table stays.", error);
  }
}
})();
