// ---- The page's theme (the book, Colab; JupyterLab; VS Code), else the system's

//= shared_theme.js

// ---- Elements and files

//= shared_make.js

const shorten = (text, length) => (Array.from(text).length > length ? Array.from(text).slice(0, length - 1).join("") + "…" : text);
// What XML does not allow: lone surrogates and control characters.
const clean = (text) => String(text).replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
const escapeXml = (text) => clean(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

//= shared_download.js

// ---- The view

const COLOURS = {
  light: { paper: "#ffffff", ink: "#1c2430", faint: "#566070", line: "#dde2e8", edge: "#858f9c", accent: "#1b5fae", other: "#a33f00", third: "#00704f", wash: "#f3f6f9" },
  dark: { paper: "#1b1e24", ink: "#e6e9ee", faint: "#a6afbb", line: "#343a44", edge: "#77818f", accent: "#8fc1ff", other: "#ffb27a", third: "#6fd3ae", wash: "#23272f" },
};
const listed = (colours) => Object.entries(colours).map(([key, value]) => `--${key}: ${value};`).join(" ");
