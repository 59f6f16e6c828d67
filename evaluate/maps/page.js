"use strict";
// The map of cells. Points are blended in memory into one image (no GPU needed, the same on every
// machine); the cells' pictures come from JPEG sheets, decoded when they are looked at. Cells are
// ordered by level: those of level L, with the lower ones, are one for each occupied square of a
// grid of GRID * 2^L, so that a grid of images at any zoom is a prefix of the order.

const $ = (id) => document.getElementById(id);
const facts = JSON.parse($("facts").textContent);
const { count, columns, tile, levels, ramp } = facts;
const GRID = 16, PER_SHEET = tile.side * tile.side, FRAME = 1.08; // FRAME: the map and a margin

const bytes = (id) => Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
const words = (id, Type) => new Type(bytes(id).buffer);
const places = words("xy", Uint16Array);
const X = new Float32Array(count), Y = new Float32Array(count); // in [0, 1], y downwards
for (let i = 0; i < count; i++) { X[i] = places[2 * i] / 65535; Y[i] = places[2 * i + 1] / 65535; }
const codes = columns.map((_, i) => bytes(`column-${i}`));
const owner = words("owners", Uint16Array), number = words("numbers", Uint32Array);

const map = $("map"), over = $("over"), stage = $("stage"), tip = $("tip");
const brush = map.getContext("2d", { alpha: false }), pen = over.getContext("2d");
const view = { x: 0.5, y: 0.5, zoom: 1 }; // the middle, in the map's units; 1 shows it whole
let W = 0, H = 0, ratio = 1, unit = 1; // CSS px; device px a CSS px; CSS px of the map's side
let column = 0, hidden = new Set(), images = false, lassoing = false;
let hovered = -1, steered = false, path = [], selected = null, chosen = [], shown = 0;

// Colours

const dark = () => {
  const set = document.documentElement.dataset.theme;
  return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
const pack = (hex) => {
  const v = parseInt(hex.slice(1), 16);
  return (0xff000000 | ((v & 255) << 16) | (v & 0xff00) | (v >> 16)) >>> 0; // ABGR, as ImageData
};
const styled = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const long = (hex) => (hex.length === 4 ? hex.replace(/[^#]/g, "$&$&") : hex);
const rampAt = (share) => ramp[dark() ? "dark" : "light"][Math.round(share * (ramp.light.length - 1))];
const hexOf = (i) => {
  const { colours } = columns[column], code = codes[column][i];
  return colours ? colours[code] : code === 255 ? styled("--dim") : rampAt(code / 254);
};
const ink = new Uint32Array(count), order = new Uint32Array(count);
let drawn = 0; // how many of `order` are

function paint() { // after a change of colours, of what is hidden, or of the selection
  const { colours } = columns[column], code = codes[column], dim = pack(long(styled("--dim")));
  const table = Uint32Array.from({ length: 256 }, (_, c) =>
    colours ? pack(colours[Math.min(c, colours.length - 1)]) : c === 255 ? dim : pack(rampAt(c / 254)));
  const sizes = new Uint32Array(257); // small classes last, so that they stay on top
  const rank = colours ? colours.map((_, c) => c).sort((a, b) => columns[column].counts[b] - columns[column].counts[a]) : null;
  const place = new Uint8Array(256);
  if (rank) rank.forEach((c, r) => { place[c] = r; });
  const passes = selected ? 2 : 1; // what is not selected lies below, pale
  drawn = 0;
  for (let pass = 0; pass < passes; pass++) {
    sizes.fill(0);
    const wanted = (i) => !hidden.has(code[i]) && (!selected || Boolean(selected[i]) === Boolean(pass));
    for (let i = 0; i < count; i++) if (wanted(i)) sizes[place[code[i]] + 1]++;
    for (let c = 1; c < 257; c++) sizes[c] += sizes[c - 1];
    const start = drawn;
    drawn += sizes[256];
    for (let i = count - 1; i >= 0; i--) {
      if (!wanted(i)) continue;
      order[start + sizes[place[code[i]]]++] = i;
      ink[i] = selected && !pass ? dim : table[code[i]];
    }
  }
  draw();
}

// Points

let buffer, pixels, stride = 0, background = 0;
const MARGIN = 16; // device px around the picture, so that no dot needs clipping

function resize() {
  ({ clientWidth: W, clientHeight: H } = stage);
  ratio = Math.min(devicePixelRatio || 1, 2);
  unit = Math.min(W, H) / FRAME;
  for (const canvas of [map, over]) { canvas.width = Math.round(W * ratio); canvas.height = Math.round(H * ratio); }
  stride = map.width + 2 * MARGIN;
  pixels = new ImageData(stride, map.height + 2 * MARGIN);
  buffer = new Uint32Array(pixels.data.buffer);
  draw();
}

function stamp(radius) { // a round dot at 4 x 4 places within a pixel: offsets and coverage of 64
  const stamps = [], reach = Math.ceil(radius + 1);
  for (let phase = 0; phase < 16; phase++) {
    const at = [], cover = [], fx = (phase & 3) / 4 + 0.125, fy = (phase >> 2) / 4 + 0.125;
    for (let y = -reach; y <= reach; y++) for (let x = -reach; x <= reach; x++) {
      const c = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(x + 0.5 - fx, y + 0.5 - fy)));
      if (c > 0.03) { at.push(y * stride + x); cover.push(Math.round(c * 54)); }
    }
    stamps.push([Int32Array.from(at), Uint8Array.from(cover)]);
  }
  return stamps;
}

const toScreen = () => { // x * a + b, y * a + c, in device px
  const a = unit * view.zoom * ratio;
  return [a, map.width / 2 - view.x * a, map.height / 2 - view.y * a];
};

function points() {
  background = pack(long(styled("--map")));
  buffer.fill(background);
  const [a, b, c] = toScreen();
  if (images) return brush.putImageData(pixels, -MARGIN, -MARGIN); // they cover the points
  const crowd = (unit / 800) * Math.sqrt(20000 / count); // a map of many cells has smaller dots
  const grown = 1 + Math.log2(Math.max(1, view.zoom));
  const radius = ratio * Math.min(6, Math.max(0.75, Math.min(3.5, 1.5 * crowd) * grown));
  const stamps = stamp(radius), right = map.width + MARGIN - 9, low = map.height + MARGIN - 9;
  for (let k = 0; k < drawn; k++) {
    const i = order[k], x = X[i] * a + b, y = Y[i] * a + c;
    if (x < 9 - MARGIN || y < 9 - MARGIN || x > right || y > low) continue;
    const ix = Math.floor(x), iy = Math.floor(y);
    const [at, cover] = stamps[((x - ix) * 4) | 0 | ((((y - iy) * 4) | 0) << 2)];
    const base = (iy + MARGIN) * stride + ix + MARGIN;
    const rb = ink[i] & 0xff00ff, g = ink[i] & 0xff00;
    for (let j = 0; j < at.length; j++) {
      const p = base + at[j], w = cover[j], v = 64 - w, d = buffer[p];
      buffer[p] = 0xff000000 | ((((d & 0xff00ff) * v + rb * w) >>> 6) & 0xff00ff)
        | ((((d & 0xff00) * v + g * w) >>> 6) & 0xff00);
    }
  }
  brush.putImageData(pixels, -MARGIN, -MARGIN);
}

// Images

const sheets = new Map(); // number -> decoded image; the last used stay, so that memory is bounded
const KEPT = Math.ceil(3e7 / (PER_SHEET * tile.px * tile.px)); // 120 MB of pixels

function sheet(i) {
  let image = sheets.get(i);
  if (image) { sheets.delete(i); } else {
    const source = $(`sheet-${i}`);
    if (!source) return null; // not yet parsed
    image = new Image();
    image.onload = () => { draw(); gallery(); tell(); };
    image.src = `data:image/jpeg;base64,${source.textContent}`;
  }
  sheets.set(i, image);
  if (sheets.size > KEPT) sheets.delete(sheets.keys().next().value);
  return image.complete && image.naturalWidth ? image : null;
}

function picture(context, i, x, y, side) { // false until it is decoded
  const image = sheet(Math.floor(i / PER_SHEET)), place = i % PER_SHEET, s = tile.px;
  if (!image) return false;
  context.drawImage(image, (place % tile.side) * s, Math.floor(place / tile.side) * s, s, s, x, y, side, side);
  return true;
}

let squares = new Map(); // of the grid in view: its key -> the cell drawn there

function level() {
  const wanted = Math.log2((unit * view.zoom) / GRID / 34);
  return Math.max(0, Math.min(levels.length - 1, Math.floor(wanted)));
}

function mosaic() {
  const cells = GRID * 2 ** level(), side = (unit * view.zoom) / cells;
  const left = view.x - W / 2 / unit / view.zoom, top = view.y - H / 2 / unit / view.zoom;
  const right = view.x + W / 2 / unit / view.zoom, low = view.y + H / 2 / unit / view.zoom;
  squares = new Map();
  const edge = Math.max(1.5, side / 22);
  for (let i = 0; i < levels[level()]; i++) {
    const column_ = Math.min(cells - 1, Math.floor(X[i] * cells)), row = Math.min(cells - 1, Math.floor(Y[i] * cells));
    if ((column_ + 1) / cells < left || column_ / cells > right || (row + 1) / cells < top || row / cells > low) continue;
    if (hidden.has(codes[column][i]) || (selected && !selected[i])) continue;
    squares.set(row * cells + column_, i);
    const x = (column_ / cells - left) * unit * view.zoom, y = (row / cells - top) * unit * view.zoom;
    pen.fillStyle = hexOf(i);
    pen.fillRect(x + 0.5, y + 0.5, side - 1, side - 1);
    picture(pen, i, x + edge, y + edge, side - 2 * edge);
  }
}

// Frames

let pending = 0;
function draw() { pending ||= requestAnimationFrame(frame); }
function frame() {
  pending = 0;
  if (!W) return;
  points();
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, W, H);
  if (images) mosaic();
  marks();
}

function marks() {
  pen.lineWidth = 1.5;
  pen.strokeStyle = styled("--ink");
  if (path.length > 1) {
    pen.beginPath();
    path.forEach(([x, y]) => pen.lineTo(...toView(x, y)));
    pen.closePath();
    pen.fillStyle = styled("--blue") + "22";
    pen.fill();
    pen.stroke();
  }
  if (steered) { // by keys: the middle is where one looks
    pen.beginPath();
    pen.moveTo(W / 2 - 14, H / 2); pen.lineTo(W / 2 + 14, H / 2);
    pen.moveTo(W / 2, H / 2 - 14); pen.lineTo(W / 2, H / 2 + 14);
    pen.stroke();
  }
  if (hovered >= 0) {
    const [x, y] = toView(X[hovered], Y[hovered]);
    pen.beginPath();
    pen.arc(x, y, 8, 0, 7);
    pen.lineWidth = 2.5;
    pen.stroke();
  }
}

const toView = (x, y) => [(x - view.x) * unit * view.zoom + W / 2, (y - view.y) * unit * view.zoom + H / 2];
const toMap = (x, y) => [(x - W / 2) / unit / view.zoom + view.x, (y - H / 2) / unit / view.zoom + view.y];

function zoom(factor, x = W / 2, y = H / 2) { // keeps what lies at (x, y) there
  const before = toMap(x, y);
  view.zoom = Math.min(400, Math.max(0.8, view.zoom * factor));
  const after = toMap(x, y);
  move(before[0] - after[0], before[1] - after[1]);
}
function move(dx, dy) {
  view.x = Math.min(1.1, Math.max(-0.1, view.x + dx));
  view.y = Math.min(1.1, Math.max(-0.1, view.y + dy));
  draw();
}

// Which cell is where: a grid of buckets over the map

const SIDE = 256, bucket = new Uint32Array(SIDE * SIDE + 1), inBucket = new Uint32Array(count);
const bucketOf = (i) => Math.min(SIDE - 1, (Y[i] * SIDE) | 0) * SIDE + Math.min(SIDE - 1, (X[i] * SIDE) | 0);
for (let i = 0; i < count; i++) bucket[bucketOf(i) + 1]++;
for (let b = 1; b < bucket.length; b++) bucket[b] += bucket[b - 1];
{
  const next = bucket.slice();
  for (let i = 0; i < count; i++) inBucket[next[bucketOf(i)]++] = i;
}

function within(x0, y0, x1, y1, visit) { // the cells of a box, those hidden left out
  const at = (v) => Math.min(SIDE - 1, Math.max(0, Math.floor(v * SIDE)));
  for (let row = at(y0); row <= at(y1); row++)
    for (let k = bucket[row * SIDE + at(x0)]; k < bucket[row * SIDE + at(x1) + 1]; k++) {
      const i = inBucket[k];
      if (X[i] >= x0 && X[i] <= x1 && Y[i] >= y0 && Y[i] <= y1 && !hidden.has(codes[column][i])) visit(i);
    }
}

function nearest(px, py, reach) {
  const [x, y] = toMap(px, py), cells = GRID * 2 ** level();
  if (images) {
    const i = squares.get(Math.floor(y * cells) * cells + Math.floor(x * cells));
    if (i !== undefined) return i;
  }
  const r = reach / unit / view.zoom;
  let best = -1, least = r * r;
  within(x - r, y - r, x + r, y + r, (i) => {
    const d = (X[i] - x) ** 2 + (Y[i] - y) ** 2;
    if (d <= least && (!selected || selected[i])) { least = d; best = i; }
  });
  return best;
}

// What is said of a cell

const valueOf = (c, i) => {
  const { names, low, high, unit: name } = columns[c], code = codes[c][i];
  if (names) return names[code] || "none";
  if (code === 255) return "unknown";
  const value = low + (code / 254) * (high - low);
  return `${code === 0 ? "≤ " : code === 254 ? "≥ " : ""}${Number(value.toPrecision(3))}${name ? " " + name : ""}`;
};
const owned = columns.some((c) => c.name === facts.owner_kind); // said as a column already
const keyOf = (i) => `${owned ? "" : facts.owners[owner[i]]} ${facts.number_kind} ${number[i]}`;

let spot = [0, 0];
function hover(i, x, y) {
  if (i >= 0) spot = [x, y];
  if (i !== hovered) { hovered = i; draw(); }
  tell();
}

function tell() {
  tip.hidden = hovered < 0;
  map.dataset.hovered = hovered;
  if (hovered < 0) return;
  const canvas = tip.querySelector("canvas"), context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  if (!picture(context, hovered, 0, 0, 240)) context.clearRect(0, 0, 240, 240);
  const text = tip.querySelector("div"), lines = columns.map((c, k) => [c.name, valueOf(k, hovered)]);
  const main = [lines[column], ...lines.filter((_, k) => k !== column && k < 4)];
  text.replaceChildren(...main.flatMap(([name, value]) => [label("i", `${name} `), value, label("br")]), label("i", keyOf(hovered)));
  const [x, y] = spot, tall = tip.offsetHeight;
  tip.style.left = `${x + 160 > W ? Math.max(4, x - 156) : x + 16}px`;
  tip.style.top = `${Math.max(4, Math.min(H - tall - 4, y - tall / 2))}px`;
  if (steered) $("said").textContent = main.map((line) => line.join(" ")).join(", ");
}

function label(tag, text = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

// Selection

function select(cells) {
  chosen = cells;
  selected = cells.length ? new Uint8Array(count) : null;
  for (const i of cells) selected[i] = 1;
  cells.sort((a, b) => a - b);
  shown = Math.min(60, cells.length);
  $("selection").hidden = !cells.length;
  map.dataset.selected = cells.length;
  if (cells.length) {
    $("selection").querySelector("h2").textContent = `${cells.length.toLocaleString("en")} cells selected`;
    $("said").textContent = `${cells.length} cells selected`;
  }
  hovered = -1;
  paint(); shares(); gallery(); tell();
}

function enclosed() { // even-odd rule
  const xs = path.map((p) => p[0]), ys = path.map((p) => p[1]), found = [], n = path.length;
  within(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (i) => {
    let inside = false;
    for (let a = 0, b = n - 1; a < n; b = a++)
      if (ys[a] > Y[i] !== ys[b] > Y[i] && X[i] < ((xs[b] - xs[a]) * (Y[i] - ys[a])) / (ys[b] - ys[a]) + xs[a]) inside = !inside;
    if (inside) found.push(i);
  });
  return found;
}

function shares() {
  const { names, colours, counts } = columns[column];
  if (!chosen.length) return;
  if (!names) {
    const known = chosen.map((i) => codes[column][i]).filter((c) => c < 255).sort((a, b) => a - b);
    const { low, high, unit: name } = columns[column], middle = known[known.length >> 1];
    const text = known.length ? `${columns[column].name}: median ${Number((low + (middle / 254) * (high - low)).toPrecision(3))} ${name}` : "";
    return $("shares").replaceChildren(label("p", text));
  }
  const tally = new Map();
  for (const i of chosen) tally.set(codes[column][i], (tally.get(codes[column][i]) || 0) + 1);
  const rows = [...tally].sort((a, b) => b[1] - a[1]).slice(0, 8).flatMap(([code, n]) => {
    const row = label("div"), meter = label("div"), bar = label("b");
    row.className = "share";
    row.append(label("b", names[code] || "none"), label("span", `${((100 * n) / chosen.length).toFixed(0)} % (of all ${((100 * counts[code]) / count).toFixed(0)} %)`));
    meter.className = "meter";
    bar.style.width = `${(100 * n) / chosen.length}%`;
    bar.style.background = colours[code];
    meter.append(bar);
    return [row, meter];
  });
  $("shares").replaceChildren(...rows);
}

const across = () => Math.max(4, Math.floor($("gallery").clientWidth / 54));
function gallery() {
  const canvas = $("gallery"), n = across(), side = canvas.clientWidth / n, context = canvas.getContext("2d");
  if (!chosen.length || !canvas.clientWidth) return;
  const tall = Math.ceil(shown / n) * side;
  canvas.style.height = `${tall}px`;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = tall * ratio;
  context.scale(ratio, ratio);
  let missing = 0;
  for (let k = 0; k < shown; k++) missing += !picture(context, chosen[k], (k % n) * side + 1, Math.floor(k / n) * side + 1, side - 2);
  canvas.dataset.missing = missing;
  $("more").hidden = shown >= chosen.length;
}

// What the reader does, page_hands.js, follows.
