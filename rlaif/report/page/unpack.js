// Packed columns and texts → bytes. Blocks are base64 of deflated bytes, each in a tag of its own.

const data = JSON.parse(document.getElementById("data").textContent);
const NONE = 0xffffffff; // in a column of numbers: there is none

function bytesOf(id) {
  const tag = document.getElementById(id);
  const text = tag.textContent.trim();
  tag.remove(); // the packed text is not needed again
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function inflate(id) {
  const packed = new Blob([bytesOf(id)]).stream();
  const whole = packed.pipeThrough(new DecompressionStream("deflate"));
  return new Response(whole).arrayBuffer();
}

async function column(name, Type) {
  return new Type(await inflate(`column-${name}`));
}

async function readColumns() {
  const types = {
    kind: Uint8Array, round: Uint16Array, reason: Uint16Array, margin: Float32Array,
    confidence: Float32Array, id: Uint32Array, prompt: Uint32Array, detail: Uint32Array,
    left: Uint32Array, right: Uint32Array, response_text: Uint32Array, probabilities: Uint8Array,
    length: Uint32Array,
  };
  const names = Object.keys(types);
  const found = await Promise.all(names.map((name) => column(name, types[name])));
  return Object.fromEntries(names.map((name, i) => [name, found[i]]));
}
