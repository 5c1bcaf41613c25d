// What happens when the page opens.

function theme() {
  const root = document.documentElement, button = at("theme");
  const dark = () => (root.dataset.theme
    ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const tell = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", dark() ? "Light colours" : "Dark colours");
  };
  try {
    const kept = localStorage.getItem("rlaif-theme");
    if (kept) root.dataset.theme = kept;
  } catch { /* a browser may keep nothing for a file */ }
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("rlaif-theme", root.dataset.theme); } catch { /* as above */ }
    tell();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  tell();
}

function showReasons() {
  for (const button of document.querySelectorAll("button[data-reason]")) {
    button.addEventListener("click", () => {
      at("filters").reset();
      setTimeout(() => {
        at("by-kind").value = "-1";
        at("by-status").value = button.dataset.reason;
        at("by-kind").dispatchEvent(new Event("change"));
        at("by-status").dispatchEvent(new Event("change"));
        at("rows").scrollIntoView();
        at("by-status").focus({ preventScroll: true });
      });
    });
  }
}

async function start() {
  theme();
  if (!data.rows) {
    document.documentElement.dataset.ready = "yes";
    return;
  }
  columns = await readColumns();
  openTexts(columns.length);
  wire();
  await apply();
  showReasons();
  document.addEventListener("keydown", keys);
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  at("count").textContent = `The rows cannot be unpacked by this browser: ${error.message}`;
  throw error;
});
