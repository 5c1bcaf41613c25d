// Texts by number. A chunk is unpacked when one of its texts is shown, or when a search gets to it.

const texts = { starts: null, chunks: [], waiting: [], lower: [] };

function openTexts(lengths) {
  texts.starts = new Float64Array(lengths.length + 1); // beyond 4 GB a whole number stays whole
  for (let i = 0; i < lengths.length; i++) texts.starts[i + 1] = texts.starts[i] + lengths[i];
}

function chunkOf(number) {
  let low = 0, high = data.ends.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (number < data.ends[middle]) high = middle; else low = middle + 1;
  }
  return low;
}

function firstOf(chunk) { return chunk ? data.ends[chunk - 1] : 0; }

async function unpack(chunk) {
  if (texts.chunks[chunk] !== undefined) return;
  if (!texts.waiting[chunk]) {
    texts.waiting[chunk] = inflate(`chunk-${chunk}`).then((bytes) => {
      // Without ignoreBOM a text that begins with one would shift all behind it.
      texts.chunks[chunk] = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
    });
  }
  await texts.waiting[chunk];
}

async function unpackFor(numbers) {
  const chunks = new Set(numbers.filter((n) => n !== NONE).map(chunkOf));
  await Promise.all([...chunks].map(unpack));
}

function text(number) {
  if (number === NONE) return "";
  const chunk = chunkOf(number), base = texts.starts[firstOf(chunk)];
  return texts.chunks[chunk].slice(texts.starts[number] - base, texts.starts[number + 1] - base);
}

// Marks in `hits` the texts of a chunk that contain the word, which is in lower case.
function searchChunk(chunk, word, hits) {
  const whole = texts.chunks[chunk], first = firstOf(chunk), end = data.ends[chunk];
  const lower = texts.lower[chunk] ??= whole.toLowerCase();
  if (lower.length !== whole.length) { // İ becomes two: places have moved, so text by text
    for (let n = first; n < end; n++) if (text(n).toLowerCase().includes(word)) hits[n] = 1;
    return;
  }
  const base = texts.starts[first];
  let n = first, at = lower.indexOf(word);
  while (at !== -1) {
    while (texts.starts[n + 1] - base <= at) n++;
    const stop = texts.starts[n + 1] - base;
    if (at + word.length <= stop) { // else it begins in one text and ends in the next
      hits[n] = 1;
      at = lower.indexOf(word, stop);
    } else {
      at = lower.indexOf(word, at + 1);
    }
  }
}

const pause = () => new Promise((go) => setTimeout(go));

// Which texts contain the words; null where the search was overtaken by another one.
async function search(words, current, tell) {
  const hits = new Uint8Array(texts.starts.length - 1), word = words.toLowerCase();
  let since = performance.now();
  for (let chunk = 0; chunk < data.ends.length; chunk++) {
    await unpack(chunk);
    if (!current()) return null;
    searchChunk(chunk, word, hits);
    if (performance.now() - since > 60) { // often enough to look alive, seldom enough to be quick
      tell(chunk + 1, hits);
      await pause();
      since = performance.now();
    }
  }
  return current() ? hits : null;
}
