// Which rows are shown, and in what order: plain passes over typed arrays.

let columns = null;
const wanted = {
  kind: 0, status: "all", round: "all", principle: -1, relation: "any", low: 0, high: 1,
  order: "run", words: "",
};

function probabilityAt(principle, place) {
  const width = columns.probabilities.length / Math.max(1, data.principles.length);
  return place === NONE ? data.unknown : columns.probabilities[principle * width + place];
}

// What the judge said of a row under a principle: [left, right] in steps.
function sides(row, principle) {
  if (data.pairwise) {
    const better = probabilityAt(principle, row);
    return [better, better === data.unknown ? better : data.steps - better];
  }
  return [probabilityAt(principle, columns.left[row]), probabilityAt(principle, columns.right[row])];
}

const relations = {
  any: () => true,
  wins: ([left, right]) => known(left) && known(right) && left > right,
  loses: ([left, right]) => known(left) && known(right) && left < right,
  breaks: ([left]) => known(left) && left < data.steps / 2,
  unsure: ([left, right], row) => !known(left) || (columns.right[row] !== NONE && !known(right)),
};

function known(steps) { return steps !== data.unknown; }

function hit(hits, number) { return number !== NONE && hits[number] === 1; }

function contains(hits, row) {
  const { id, prompt, detail, left, right, response_text: said } = columns;
  return hit(hits, prompt[row]) || hit(hits, id[row]) || hit(hits, detail[row])
    || (left[row] !== NONE && hits[said[left[row]]] === 1)
    || (right[row] !== NONE && hits[said[right[row]]] === 1);
}

function filterRows(hits) {
  const { kind, reason, round, confidence } = columns;
  const found = new Uint32Array(data.rows);
  const status = wanted.status === "all" ? -1 : wanted.status === "dropped" ? -2 : +wanted.status;
  const inRound = wanted.round === "all" ? -1 : +wanted.round;
  const sure = wanted.low > 0 || wanted.high < 1;
  const relation = relations[wanted.relation];
  let count = 0;
  for (let row = 0; row < data.rows; row++) {
    if (wanted.kind !== -1 && kind[row] !== wanted.kind) continue;
    if (status >= 0 && reason[row] !== status) continue;
    if (status === -2 && reason[row] === 0) continue;
    if (inRound >= 0 && round[row] !== inRound) continue;
    if (sure && !(confidence[row] >= wanted.low && confidence[row] <= wanted.high)) continue;
    if (wanted.principle >= 0 && wanted.relation !== "any"
      && !relation(sides(row, wanted.principle), row)) continue;
    if (hits && !contains(hits, row)) continue;
    found[count++] = row;
  }
  return inOrder(found.subarray(0, count));
}

// Rows without a figure come last, whichever way it goes.
function inOrder(rows) {
  const [name, down] = wanted.order.split("-");
  if (name === "run") return rows;
  const keys = new Float64Array(rows.length), by = columns[name], sign = down === "down" ? -1 : 1;
  for (let i = 0; i < rows.length; i++) {
    const key = sign * by[rows[i]];
    keys[i] = Number.isNaN(key) ? Infinity : key;
  }
  const places = Uint32Array.from(rows, (_, i) => i).sort((a, b) => keys[a] - keys[b] || a - b);
  return Uint32Array.from(places, (place) => rows[place]);
}
