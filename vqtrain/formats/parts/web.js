// A tokenizer in the browser: a picture, its tokens, its reconstruction, and what edits change.
const byId = (id) => document.getElementById(id);
const MAP_SIDE = 640;      // px of the map of tokens, about
const AROUND_TOKENS = 2;   // tokens around the selected one in the small pictures
const CAP_DB = 100;        // of PSNR, as everywhere in vqtrain
const CHANGE_GAIN = 4;     // how much brighter changes are drawn than they are
// A GPU that gives fewer of the example's ids than this share computes something else.
const LEAST_EQUAL = 0.9;
// The share of a turn between the hues of consecutive ids, as in vqtrain's own pictures.
const GOLDEN = (Math.sqrt(5) - 1) / 2;
const COLORS = 1024;

// ---- Files and sessions.

async function bytes(name) {
  const url = page.parts[name];
  let stream;
  if (url === null) {
    const text = byId(`part-${name}`).textContent;
    const binary = atob(text);
    stream = new Blob([Uint8Array.from(binary, (letter) => letter.charCodeAt(0))]).stream();
  } else {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`the server has no ${url} (${response.status})`);
    stream = response.body;
  }
  if (url === null || url.endsWith(".gz")) stream = stream.pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const runtime = { ort: null, device: "", encoder: null, decoder: null };

async function loadRuntime() {
  const url = page.parts["ort.js"];
  if (url !== null && location.protocol === "file:") {
    throw new Error("opened from a disk, browsers load no modules: serve this folder, or export with single_file=true");
  }
  const script = url === null
    ? URL.createObjectURL(new Blob([await bytes("ort.js")], { type: "text/javascript" }))
    : new URL(url, document.baseURI).href;
  const ort = await import(script);
  ort.env.wasm.wasmBinary = await bytes("ort.wasm.gz");
  // Threads need memory that they share, which a page has only if its server says so.
  if (!globalThis.crossOriginIsolated) ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  runtime.ort = ort;
}

async function hasGpu() {
  try {
    return Boolean(navigator.gpu && (await navigator.gpu.requestAdapter()));
  } catch {
    return false;
  }
}

async function openSessions(device) {
  const graphs = [await bytes("encoder.onnx"), await bytes("decoder.onnx")];
  // Warnings are not shown: what the GPU has no operation for, such as int64, is left to the CPU.
  const options = { executionProviders: device === "webgpu" ? ["webgpu", "wasm"] : ["wasm"], logSeverityLevel: 3 };
  runtime.encoder = await runtime.ort.InferenceSession.create(new Uint8Array(graphs[0]), options);
  runtime.decoder = await runtime.ort.InferenceSession.create(new Uint8Array(graphs[1]), options);
  runtime.device = device;
}

async function run(session, tensor) {
  const outputs = await session.run({ [session.inputNames[0]]: tensor });
  return outputs[session.outputNames[0]];
}

// ---- Pictures: canvases of whole pixels, in the sizes that the tokenizer takes.

function canvasOf(width, height) {
  const canvas = make("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}

const contextOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });

function fitted(bitmap) {
  const [unitHigh, unitWide] = page.unit;
  const { width, height } = bitmap;
  let wide, high, scale;
  if (page.size) {
    [high, wide] = page.size;
    scale = Math.max(high / height, wide / width);
  } else {
    // Smaller pictures stay as they are, but for those without enough tokens.
    const needed = Math.max((page.least * unitHigh) / height, (page.least * unitWide) / width);
    scale = Math.max(Math.min(1, Number(byId("longest").value) / Math.max(width, height)), needed);
    high = Math.floor(Math.round(height * scale) / unitHigh) * unitHigh;
    wide = Math.floor(Math.round(width * scale) / unitWide) * unitWide;
  }
  const canvas = canvasOf(wide, high);
  const context = contextOf(canvas);
  context.fillStyle = "white";  // below what is transparent
  context.fillRect(0, 0, wide, high);
  context.imageSmoothingQuality = "high";
  const [drawnWide, drawnHigh] = [Math.round(width * scale), Math.round(height * scale)];
  // The center is kept, as Tokenizer.preprocess keeps it.
  const [left, top] = [Math.floor((drawnWide - wide) / 2), Math.floor((drawnHigh - high) / 2)];
  context.drawImage(bitmap, -left, -top, drawnWide, drawnHigh);
  return context.getImageData(0, 0, wide, high);
}

function toTensor(image) {
  const { data, width, height } = image;
  const count = width * height;
  const values = new Float32Array(page.channels * count);
  for (let n = 0; n < count; n += 1) {
    const [red, green, blue] = [data[4 * n], data[4 * n + 1], data[4 * n + 2]];
    if (page.channels === 3) {
      values[n] = red / 127.5 - 1;
      values[count + n] = green / 127.5 - 1;
      values[2 * count + n] = blue / 127.5 - 1;
    } else {
      // Gray as Pillow computes it.
      values[n] = ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16) / 127.5 - 1;
    }
  }
  return new runtime.ort.Tensor("float32", values, [1, page.channels, height, width]);
}

function toImage(tensor) {
  const [, channels, height, width] = tensor.dims;
  const count = width * height;
  const image = new ImageData(width, height);  // its values are rounded and clamped
  for (let n = 0; n < count; n += 1) {
    for (let channel = 0; channel < 3; channel += 1) {
      image.data[4 * n + channel] = (tensor.data[(channel % channels) * count + n] + 1) * 127.5;
    }
    image.data[4 * n + 3] = 255;
  }
  return image;
}

function grayOf(image) {
  const gray = new ImageData(image.width, image.height);
  for (let n = 0; n < image.data.length; n += 4) {
    const [red, green, blue] = [image.data[n], image.data[n + 1], image.data[n + 2]];
    gray.data.fill((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16, n, n + 3);
    gray.data[n + 3] = 255;
  }
  return gray;
}

function painted(image) {
  const canvas = canvasOf(image.width, image.height);
  contextOf(canvas).putImageData(image, 0, 0);
  return canvas;
}

function psnr(image, other) {
  let sum = 0;
  let count = 0;
  for (let n = 0; n < image.data.length; n += 4) {
    for (let channel = 0; channel < 3; channel += 1) {
      sum += (image.data[n + channel] - other.data[n + channel]) ** 2;
      count += 1;
    }
  }
  return Math.min(CAP_DB, 10 * Math.log10((255 * 255 * count) / sum));
}

function changes(image, other) {
  const drawn = new ImageData(image.width, image.height);
  let pixels = 0;
  let most = 0;
  for (let n = 0; n < image.data.length; n += 4) {
    let largest = 0;
    for (let channel = 0; channel < 3; channel += 1) {
      const by = Math.abs(image.data[n + channel] - other.data[n + channel]);
      drawn.data[n + channel] = CHANGE_GAIN * by;
      largest = Math.max(largest, by);
    }
    drawn.data[n + 3] = 255;
    pixels += largest > 0;
    most = Math.max(most, largest);
  }
  return { drawn, pixels, most };
}

// ---- What is shown.

const state = { bitmap: null, original: null, encoded: null, ids: null, shape: [], levels: [], reconstruction: null, edited: null, level: 0, place: 0, seconds: [0, 0] };
let viewer = null;

// Grids of ids grow with the picture.
function layOut(width, height) {
  const { size, tokens, levels } = page.reference;
  const [high, wide] = [height / size[0], width / size[1]];
  const isFlat = levels.length === 1 && levels[0][0] === 1 && !page.isSpatial;
  state.shape = page.size ? tokens : tokens.map((n, axis) => [n * high, n * wide][axis - tokens.length + 2] ?? n);
  let first = 0;
  state.levels = levels.map(([rows, columns]) => {
    let level = { rows: rows * high, columns: columns * wide, count: rows * columns * high * wide, first };
    if (isFlat) {
      // A sequence is wrapped into rows.
      const across = Math.ceil(Math.sqrt(columns));
      level = { rows: Math.ceil(columns / across), columns: across, count: columns, first };
    }
    first += level.count;
    return level;
  });
  if (state.level >= state.levels.length) state.level = 0;
  const isSame = state.levels.every(({ count }) => count === state.levels[0].count);
  byId("levels").hidden = state.levels.length === 1;
  byId("level").replaceChildren(...state.levels.map(({ rows, columns }, n) => {
    const option = make("option", { value: n }, `${isSame ? "codebook" : "scale"} ${n + 1}, ${rows} \u00d7 ${columns}`);
    option.selected = n === state.level;
    return option;
  }));
}

const grid = () => state.levels[state.level];
const isEdited = (place) => state.ids[place] !== state.encoded[place];
const edits = () => state.ids.reduce((count, id, place) => count + (id !== state.encoded[place]), 0);

function colorOf(id) {
  const number = Number(id % BigInt(COLORS));
  const [hue, value] = [((number * GOLDEN) % 1) * 6, [0.95, 0.75, 0.55][number % 3]];
  const part = (shift) => {
    const k = (shift + hue) % 6;
    return Math.round(255 * (value - value * 0.65 * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return `rgb(${part(5)} ${part(3)} ${part(1)})`;
}

function drawMap() {
  const { rows, columns, count, first } = grid();
  const cell = Math.max(4, Math.floor(MAP_SIDE / Math.max(rows, columns)));
  const map = byId("map");
  [map.width, map.height] = [columns * cell, rows * cell];
  map.style.setProperty("--ratio", columns / rows);
  const context = map.getContext("2d");
  const gap = cell >= 12 ? 1 : 0;
  for (let n = 0; n < count; n += 1) {
    const [left, top] = [(n % columns) * cell, Math.floor(n / columns) * cell];
    context.fillStyle = colorOf(state.ids[first + n]);
    context.fillRect(left, top, cell - gap, cell - gap);
    if (isEdited(first + n)) outline(context, left, top, cell - gap, ["#fff", "#111"]);
  }
  const n = state.place - first;
  outline(context, (n % columns) * cell - 2, Math.floor(n / columns) * cell - 2, cell - gap + 4, ["#111", "#fff"]);
}

function outline(context, left, top, side, colors) {
  colors.forEach((style, inset) => {
    context.strokeStyle = style;
    context.lineWidth = 2;
    context.strokeRect(left + 1 + 2 * inset, top + 1 + 2 * inset, side - 2 - 4 * inset, side - 2 - 4 * inset);
  });
}

function showViewer() {
  const count = edits();
  const layers = [["Original", state.original, ""], ["Reconstruction", state.reconstruction, `${psnr(state.original, state.reconstruction).toFixed(2)} dB`]];
  if (count) {
    const { drawn } = changes(state.reconstruction, state.edited);
    layers.push(["With edits", state.edited, `${psnr(state.original, state.edited).toFixed(2)} dB`]);
    layers.push(["Changes", drawn, `${CHANGE_GAIN} times as bright`]);
  }
  page.images = layers.map(([, image]) => painted(image).toDataURL("image/png"));
  const item = { name: `${state.original.width} \u00d7 ${state.original.height} px`, caption: "", layers: layers.map(([name, , caption], image) => ({ name, image, caption })) };
  if (!viewer) viewer = new Viewer(byId("viewer"), { label: "Picture", right: "Reconstruction", items: [item] });
  else {
    if (count && viewer.right === "Reconstruction") viewer.right = "With edits";
    if (!count && !["Original", "Reconstruction"].includes(viewer.right)) viewer.right = "Reconstruction";
    viewer.choose(item);
  }
  byId("viewer").style.setProperty("--ratio", state.original.width / state.original.height);
}

function showToken() {
  const { rows, columns, first } = grid();
  const n = state.place - first;
  const [row, column] = [Math.floor(n / columns), n % columns];
  const id = state.ids[state.place];
  const where = page.isSpatial ? `Row ${row + 1} of ${rows}, column ${column + 1} of ${columns}` : `Token ${n + 1} of ${grid().count}`;
  byId("selected").textContent = `${where}: id ${id}${isEdited(state.place) ? `, was ${state.encoded[state.place]}` : ""}`;
  byId("map").setAttribute("aria-label", `Map of tokens, a color for each id. ${byId("selected").textContent}`);
  byId("id").value = id;
  byId("restore").disabled = !isEdited(state.place);
  byId("restore-all").disabled = edits() === 0;
  // The same part of three pictures.
  const { width, height } = state.original;
  const [wide, high] = page.isSpatial ? [width / columns, height / rows] : [width, height];
  const around = page.isSpatial ? AROUND_TOKENS : 0;
  const side = Math.max(wide, high) * (1 + 2 * around);
  const [left, top] = [(page.isSpatial ? (column + 0.5) * wide : width / 2) - side / 2, (page.isSpatial ? (row + 0.5) * high : height / 2) - side / 2];
  [state.original, state.reconstruction, state.edited].forEach((image, layer) => {
    const canvas = document.querySelector(`#around canvas[data-layer="${layer}"]`);
    [canvas.width, canvas.height] = [Math.round(side), Math.round(side)];
    canvas.getContext("2d").drawImage(painted(image), -Math.round(left), -Math.round(top));
  });
}

function showEffect() {
  const count = edits();
  if (!count) byId("effect").textContent = "Nothing is changed.";
  else {
    const { pixels, most } = changes(state.reconstruction, state.edited);
    const share = (100 * pixels) / (state.original.width * state.original.height);
    const what = pixels ? `${pixels.toLocaleString("en-US")} pixels (${share.toFixed(1)} %) by up to ${most} of 255` : "no pixel";
    byId("effect").textContent = `${count} changed ${count === 1 ? "token moves" : "tokens move"} ${what}.`;
  }
}

function showFigures() {
  const { width, height } = state.original;
  const bits = state.ids.length * Math.log2(page.vocabSize);
  const rows = {
    PSNR: `${psnr(state.original, state.reconstruction).toFixed(2)} dB`,
    "PSNR with edits": edits() ? `${psnr(state.original, state.edited).toFixed(2)} dB` : "-",
    Tokens: state.shape.join(" \u00d7 "),
    "Different ids": new Set(state.ids).size.toLocaleString("en-US"),
    Bits: Math.round(bits).toLocaleString("en-US"),
    "Bits per pixel": shown(bits / (width * height)),
    "Smaller than 8-bit pixels": `${Math.round((8 * page.channels * width * height) / bits).toLocaleString("en-US")} times`,
  };
  byId("figures").replaceChildren(...Object.entries(rows).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function say(text) {
  byId("status").textContent = text;
}

function fail(error) {
  say("");
  byId("failure").textContent = String(error.message || error).split("\n")[0];
  byId("failure").hidden = false;
}

// ---- Encoding, decoding and editing: one at a time, since a session takes one run at a time.

let last = Promise.resolve();

function inTurn(task) {
  last = last.then(async () => {
    byId("failure").hidden = true;
    document.body.setAttribute("aria-busy", "true");
    // What was said is drawn before the page is busy.
    await new Promise((resolve) => { setTimeout(resolve, 0); });
    await task();
  }).catch(fail).finally(() => document.body.removeAttribute("aria-busy"));
  return last;
}

const timed = (seconds) => (seconds < 1 ? `${Math.ceil(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`);
const inSeconds = (since) => (performance.now() - since) / 1000;

async function encode(bitmap) {
  const fits = fitted(bitmap);
  const original = page.channels === 1 ? grayOf(fits) : fits;
  const begun = performance.now();
  const tokens = await run(runtime.encoder, toTensor(fits));
  state.seconds[0] = inSeconds(begun);
  const encoded = BigInt64Array.from(tokens.data);
  layOut(original.width, original.height);
  Object.assign(state, { bitmap, original, encoded, ids: BigInt64Array.from(encoded) });
  const { first, rows, columns, count } = grid();
  state.place = first + Math.min(count - 1, Math.floor(rows / 2) * columns + Math.floor(columns / 2));
  state.reconstruction = await decode();
  state.edited = state.reconstruction;
}

async function decode() {
  const begun = performance.now();
  const tensor = await run(runtime.decoder, new runtime.ort.Tensor("int64", state.ids, [1, ...state.shape]));
  state.seconds[1] = inSeconds(begun);
  return toImage(tensor);
}

function show() {
  byId("work").hidden = false;
  showViewer();
  drawMap();
  showToken();
  showEffect();
  showFigures();
  const device = runtime.device === "webgpu" ? "the GPU (WebGPU)" : "the CPU (WebAssembly)";
  say(`Encoded in ${timed(state.seconds[0])}, decoded in ${timed(state.seconds[1])} on ${device}.`);
}

async function open(bitmap) {
  await encode(bitmap);
  show();
}

async function read(blob) {
  try {
    return await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${blob.name || "this"} is no picture that the browser can read`);
  }
}

function take(blob) {
  if (!document.documentElement.hasAttribute("data-ready")) return;
  say("Encoding ...");
  inTurn(async () => open(await read(blob)));
}

let decoded = 0;

function edit(place, id) {
  if (state.ids[place] === id) return;
  state.ids[place] = id;
  refresh();
}

// Of several edits that wait, the last one decodes all.
function refresh() {
  drawMap();
  showToken();
  const mine = (decoded += 1);
  say("Decoding ...");
  inTurn(async () => {
    if (mine !== decoded) return;
    state.edited = edits() ? await decode() : state.reconstruction;
    show();
  });
}

const wrapped = (id) => ((id % page.vocabSize) + page.vocabSize) % page.vocabSize;
const step = (by) => edit(state.place, BigInt(wrapped(Number(state.ids[state.place]) + by)));

function restore(places) {
  for (const place of places) state.ids[place] = state.encoded[place];
  refresh();
}

function select(place) {
  state.place = place;
  drawMap();
  showToken();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { rows, columns, count, first } = grid();
  const n = state.place - first;
  const [row, column] = [Math.floor(n / columns), n % columns];
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -column], End: [0, columns - 1 - column] };
  if (event.key in moves) {
    const [down, right] = moves[event.key];
    const [newRow, newColumn] = [Math.min(rows - 1, Math.max(0, row + down)), Math.min(columns - 1, Math.max(0, column + right))];
    select(first + Math.min(count - 1, newRow * columns + newColumn));
  } else if (event.key === "+" || event.key === "=") step(1);
  else if (event.key === "-") step(-1);
  else if (event.key === "r" || event.key === "R") drawRandom();
  else if (event.key === "Delete" || event.key === "Backspace") restore([state.place]);
  else if (event.key === "Enter") byId("id").select();
  else return;
  event.preventDefault();
}

function drawRandom() {
  if (page.vocabSize > 1) step(1 + Math.floor(Math.random() * (page.vocabSize - 1)));
}

function typed() {
  const value = byId("id").value.trim();
  if (/^\d+$/.test(value) && Number(value) < page.vocabSize) edit(state.place, BigInt(value));
  else {
    byId("selected").textContent = `An id is a whole number from 0 to ${(page.vocabSize - 1).toLocaleString("en-US")}`;
    byId("id").value = state.ids[state.place];
  }
}

function pick(event) {
  const map = byId("map");
  const { rows, columns, count, first } = grid();
  const box = map.getBoundingClientRect();
  const column = Math.min(columns - 1, Math.floor(((event.clientX - box.left) / box.width) * columns));
  const row = Math.min(rows - 1, Math.floor(((event.clientY - box.top) / box.height) * rows));
  const n = Math.max(0, row) * columns + Math.max(0, column);
  if (n < count) select(first + n);
}

// ---- Downloads.

function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// NumPy's own format, version 1.
function npy(ids, shape) {
  const axes = [1, ...shape].join(", ");
  let header = `{'descr': '<i8', 'fortran_order': False, 'shape': (${axes},), }`;
  header = header.padEnd(64 * Math.ceil((header.length + 11) / 64) - 11, " ") + "\n";
  const head = new Uint8Array([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  return new Blob([head, header, ids]);
}

// ---- The camera.

async function startCamera() {
  const video = byId("video");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    fail(new Error(`there is no camera that may be used here: ${error.message}`));
    return;
  }
  byId("shot").showModal();
}

function stopCamera() {
  for (const track of byId("video").srcObject?.getTracks() ?? []) track.stop();
  byId("video").srcObject = null;
}

function shoot() {
  const video = byId("video");
  if (!video.videoWidth) return;
  const canvas = canvasOf(video.videoWidth, video.videoHeight);
  contextOf(canvas).drawImage(video, 0, 0);
  byId("shot").close();
  canvas.toBlob(take);
}

// ---- Start.

function listen() {
  const click = (id, action) => byId(id).addEventListener("click", action);
  byId("file").addEventListener("change", (event) => {
    if (event.target.files.length) take(event.target.files[0]);
    event.target.value = "";  // the same file may be chosen again
  });
  const longest = byId("longest");
  if (longest) {
    longest.replaceChildren(...page.sizes.map((side) => {
      const option = make("option", { value: side }, `${side} px`);
      option.selected = side === page.longest;
      return option;
    }));
    longest.addEventListener("change", () => {
      say("Encoding ...");
      inTurn(() => open(state.bitmap));
    });
  }
  click("example", () => {
    say("Encoding ...");
    inTurn(openExample);
  });
  if (!navigator.mediaDevices) {
    byId("camera").disabled = true;
    byId("camera").title = "Browsers give the camera to https and localhost alone";
  }
  click("camera", startCamera);
  click("shoot", shoot);
  click("cancel", () => byId("shot").close());
  byId("shot").addEventListener("close", stopCamera);
  byId("map").addEventListener("keydown", press);
  byId("map").addEventListener("click", pick);
  byId("id").addEventListener("change", typed);
  byId("id").max = page.vocabSize - 1;
  click("random", drawRandom);
  click("restore", () => restore([state.place]));
  click("restore-all", () => restore(state.ids.keys()));
  byId("level").addEventListener("change", (event) => {
    state.level = Number(event.target.value);
    select(grid().first);
  });
  click("download-ids", () => save(npy(state.ids, state.shape), "token_ids.npy"));
  click("download-picture", () => painted(state.edited).toBlob((blob) => save(blob, "reconstruction.png")));
  let depth = 0;
  const dropping = (by) => {
    depth = Math.max(0, depth + by);
    document.body.classList.toggle("dropping", depth > 0);
  };
  addEventListener("dragenter", () => dropping(1));
  addEventListener("dragleave", () => dropping(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    dropping(-depth);
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}

async function exampleBitmap() {
  const png = Uint8Array.from(atob(page.example.uri.split(",")[1]), (letter) => letter.charCodeAt(0));
  return read(new Blob([png], { type: "image/png" }));
}

async function openExample() {
  await open(await exampleBitmap());
}

// The ids of the example are known from PyTorch: they tell whether a device computes the same.
async function begin() {
  say("Loading the runtime ...");
  await loadRuntime();
  const bitmap = await exampleBitmap();
  for (const device of (await hasGpu()) ? ["webgpu", "wasm"] : ["wasm"]) {
    say("Loading the networks ...");
    try {
      await openSessions(device);
      await encode(bitmap);
    } catch (error) {
      if (device === "wasm") throw error;
      continue;
    }
    const equal = page.example.ids.filter((id, place) => BigInt(id) === state.encoded[place]).length;
    const count = page.example.ids.length;
    byId("agreement").textContent = `${equal.toLocaleString("en-US")} of the example's ${count.toLocaleString("en-US")} ids are equal`;
    if (device === "wasm" || equal >= LEAST_EQUAL * count) break;
  }
  show();
}

listen();
byId("sources").inert = true;
inTurn(async () => {
  await begin();
  byId("sources").inert = false;
  document.documentElement.dataset.ready = "";
});
