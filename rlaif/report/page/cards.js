// A row as a card. Texts of a run go in as text, never as markup.

function make(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

// The text, with the words that were searched for marked.
function fill(place, whole, words) {
  const lower = whole.toLowerCase(), word = words.toLowerCase();
  if (!word || lower.length !== whole.length) {
    place.textContent = whole;
    return place;
  }
  let from = 0;
  for (let at = lower.indexOf(word); at !== -1; at = lower.indexOf(word, from)) {
    place.append(whole.slice(from, at), make("mark", "", whole.slice(at, at + word.length)));
    from = at + word.length;
  }
  place.append(whole.slice(from));
  return place;
}

function textsOf(row) {
  const said = (place) => (place === NONE ? NONE : columns.response_text[place]);
  const { id, prompt, detail, left, right } = columns;
  return [id[row], prompt[row], detail[row], said(left[row]), said(right[row])];
}

function reasonOf(row) {
  return data.reasons.find((reason) => reason.number === columns.reason[row]);
}

function card(row, place) {
  const [id, prompt, detail, left, right] = textsOf(row).map(text);
  const made = make("article", "card");
  made.tabIndex = -1;
  made.append(head(row, place, id));
  if (detail) made.append(fill(make("p", "detail"), detail, wanted.words));
  if (prompt) made.append(said("Prompt", prompt, "prompt"));
  if (columns.left[row] !== NONE) {
    const two = make("div", columns.right[row] === NONE ? "one" : "two");
    const [first, second] = names(row);
    two.append(said(first, left, "chosen"));
    if (columns.right[row] !== NONE) two.append(said(second, right, "rejected"));
    made.append(two, strips(row, first.toLowerCase(), second.toLowerCase()));
  }
  made.setAttribute("aria-label", `Row ${place + 1}`);
  return made;
}

// A record without a pair is shown with the two ends of its scores or, if it has none, of its list.
function names(row) {
  if (!Number.isNaN(columns.margin[row])) {
    return columns.kind[row] === 1 ? ["Pick", ""] : ["Chosen", "Rejected"];
  }
  return scored(row) ? ["Highest score", "Lowest score"] : ["First", "Last"];
}

function scored(row) {
  return !data.pairwise
    && data.principles.some((_, principle) => sides(row, principle).some(known));
}

function head(row, place, id) {
  const made = make("header", "card-head"), reason = reasonOf(row);
  made.append(make("span", "place", (place + 1).toLocaleString("en")));
  const kept = reason.number === 0;
  const why = kept ? "kept" : `${reason.stage}: ${reason.reason}`;
  made.append(make("span", kept ? "badge" : "badge out", why));
  if (data.rounds.length > 1) {
    made.append(make("span", "fact", `round ${data.rounds[columns.round[row]]}`));
  }
  const margin = columns.margin[row], confidence = columns.confidence[row];
  if (!Number.isNaN(margin)) made.append(make("span", "fact", `margin ${margin.toFixed(2)}`));
  if (!Number.isNaN(confidence)) {
    made.append(make("span", "fact", `probability ${confidence.toFixed(3)}`));
  }
  made.append(fill(make("code", "id"), id, wanted.words));
  return made;
}

function said(label, words, name) {
  const made = make("section", `said ${name}`);
  made.append(make("h4", "", label));
  made.append(words ? fill(make("p", "words"), words, wanted.words) : make("p", "empty", "empty"));
  return made;
}

function strips(row, first, second) {
  const made = make("div", "strips"), both = columns.right[row] !== NONE && !data.pairwise;
  made.setAttribute("role", "list");
  data.principles.forEach((name, principle) => {
    const [left, right] = sides(row, principle);
    const strip = make("div", principle === wanted.principle ? "strip asked" : "strip");
    strip.setAttribute("role", "listitem");
    strip.append(make("span", "name", name), track(left, both ? right : data.unknown));
    strip.append(make("span", "p left", shown(left)));
    if (both) strip.append(make("span", "p right", shown(right)));
    strip.title = both ? `${name}: ${shown(left)} ${first}, ${shown(right)} ${second}`
      : `${name}: ${shown(left)}`;
    made.append(strip);
  });
  return made;
}

function shown(steps) { return known(steps) ? (steps / data.steps).toFixed(2) : "–"; }

function track(left, right) {
  const made = make("span", "track");
  made.setAttribute("aria-hidden", "true");
  if (known(left) && known(right)) {
    const line = make("i", "between");
    line.style.left = `${(100 * Math.min(left, right)) / data.steps}%`;
    line.style.width = `${(100 * Math.abs(left - right)) / data.steps}%`;
    made.append(line);
  }
  for (const [steps, name] of [[right, "dot right"], [left, "dot left"]]) {
    if (!known(steps)) continue;
    const dot = make("i", name);
    dot.style.left = `${(100 * steps) / data.steps}%`;
    made.append(dot);
  }
  return made;
}
