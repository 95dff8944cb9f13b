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
  for (const query of ["print", "(prefers-color-scheme: dark)"]) matchMedia(query).addEventListener("change", listener);
  listener();
}

// ---- Elements and files

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const shorten = (text, length) => (Array.from(text).length > length ? Array.from(text).slice(0, length - 1).join("") + "…" : text);
// What XML does not allow: lone surrogates and control characters.
const clean = (text) => String(text).replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
const escapeXml = (text) => clean(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

function download(name, type, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- The view

const COLOURS = {
  light: { paper: "#ffffff", ink: "#1c2430", faint: "#566070", line: "#dde2e8", edge: "#858f9c", accent: "#1b5fae", other: "#a33f00", third: "#00704f", wash: "#f3f6f9" },
  dark: { paper: "#1b1e24", ink: "#e6e9ee", faint: "#a6afbb", line: "#343a44", edge: "#77818f", accent: "#8fc1ff", other: "#ffb27a", third: "#6fd3ae", wash: "#23272f" },
};
const listed = (colours) => Object.entries(colours).map(([key, value]) => `--${key}: ${value};`).join(" ");
