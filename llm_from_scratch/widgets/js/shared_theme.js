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
