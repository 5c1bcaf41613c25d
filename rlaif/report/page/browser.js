// The browser of rows: controls → filters → the one screen of cards that is shown.

const SHOWN = 5; // cards on a screen
const view = { rows: new Uint32Array(0), screen: 0, turn: 0, timer: 0 };
const at = (id) => document.getElementById(id);

function wire() {
  const read = {
    kind: (v) => { wanted.kind = +v; }, status: (v) => { wanted.status = v; },
    round: (v) => { wanted.round = v; }, principle: (v) => { wanted.principle = +v; },
    relation: (v) => { wanted.relation = v; }, order: (v) => { wanted.order = v; },
    low: (v) => { wanted.low = v === "" ? 0 : +v; }, high: (v) => { wanted.high = v === "" ? 1 : +v; },
  };
  for (const [name, set] of Object.entries(read)) {
    const control = at(`by-${name}`);
    if (!control) continue;
    control.addEventListener("change", () => { set(control.value); told(); apply(); });
    set(control.value); // a browser may remember what was chosen before a reload
  }
  at("words").addEventListener("input", () => {
    clearTimeout(view.timer);
    document.documentElement.dataset.turn = "typing";
    view.timer = setTimeout(() => { wanted.words = at("words").value; apply(); }, 120);
  });
  wanted.words = at("words").value;
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("filters").addEventListener("reset", () => setTimeout(() => {
    for (const [name, set] of Object.entries(read)) if (at(`by-${name}`)) set(at(`by-${name}`).value);
    wanted.words = "";
    told();
    apply();
  }));
  at("back").addEventListener("click", () => turn(-1));
  at("on").addEventListener("click", () => turn(1));
  told();
}

// A relation asks about a principle: without one it has no meaning.
function told() { at("by-relation").disabled = wanted.principle < 0; }

// Filters, and searches where there are words. First hits are shown before the search has ended.
async function apply() {
  const root = document.documentElement.dataset;
  const mine = ++view.turn, current = () => mine === view.turn;
  root.turn = String(mine); // and settled follows, when its rows are shown
  let hits = null, early = false;
  if (wanted.words) {
    hits = await search(wanted.words, current, (chunks, soFar) => {
      const part = Math.round((100 * chunks) / data.ends.length);
      at("progress").textContent = `searching, ${part} %`;
      if (!early) {
        const rows = filterRows(soFar);
        early = rows.length > 0;
        if (early) show(rows, 0, current);
      }
    });
    if (!current()) return;
  }
  at("progress").textContent = "";
  await show(filterRows(hits), 0, current);
  if (current()) root.settled = String(mine);
}

async function show(rows, screen, current = () => true) {
  const few = rows.subarray(screen * SHOWN, (screen + 1) * SHOWN);
  await unpackFor([...few].flatMap(textsOf));
  if (!current()) return;
  view.rows = rows;
  view.screen = screen;
  const cards = [...few].map((row, i) => card(row, screen * SHOWN + i));
  at("cards").replaceChildren(...cards);
  const screens = Math.max(1, Math.ceil(rows.length / SHOWN)), number = (n) => n.toLocaleString("en");
  const all = `${number(rows.length)} of ${number(data.rows)} rows`;
  at("count").textContent = rows.length ? all : `${all}: nothing fits these filters`;
  at("screen").textContent = `${number(screen + 1)} / ${number(screens)}`;
  at("back").disabled = screen === 0;
  at("on").disabled = screen + 1 >= screens;
}

async function turn(by) {
  const screen = view.screen + by;
  if (screen < 0 || screen * SHOWN >= view.rows.length) return false;
  await show(view.rows, screen);
  return true;
}

// To the next or the previous card; beyond the last one, to the next screen.
async function step(by) {
  const cards = [...at("cards").children];
  const now = cards.indexOf(document.activeElement?.closest(".card"));
  let next = now === -1 ? (by > 0 ? 0 : cards.length - 1) : now + by;
  if (next < 0 || next >= cards.length) {
    if (!(await turn(by))) return;
    next = by > 0 ? 0 : at("cards").children.length - 1;
  }
  at("cards").children[next]?.focus();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && typing) return typing.blur();
  if (typing) return;
  const does = {
    "/": () => at("words").focus(),
    j: () => step(1), k: () => step(-1),
    ArrowRight: () => turn(1), ArrowLeft: () => turn(-1),
  }[event.key];
  if (!does) return;
  event.preventDefault();
  does();
}
