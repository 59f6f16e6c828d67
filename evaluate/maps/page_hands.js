// What the reader does: pointers, keys, the controls; and how fast the map is drawn.

const fingers = new Map(); // pointer -> its place
let pinch = 0, travelled = 0;
const place = (e) => { const box = map.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; };
const apart = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };

map.addEventListener("pointerdown", (e) => {
  map.setPointerCapture(e.pointerId);
  fingers.set(e.pointerId, place(e));
  steered = false;
  travelled = 0;
  if (fingers.size === 2) { pinch = apart(); path = []; } else if (lassoing || e.shiftKey) path = [toMap(...place(e))];
  else map.classList.add("moving");
});

map.addEventListener("pointermove", (e) => {
  const [x, y] = place(e), before = fingers.get(e.pointerId);
  if (!before) {
    if (e.pointerType === "mouse") hover(nearest(x, y, 12), x, y);
    return;
  }
  const step = [x - before[0], y - before[1]];
  fingers.set(e.pointerId, [x, y]);
  travelled += Math.hypot(...step);
  if (fingers.size === 2) {
    const now = apart(), [a, b] = [...fingers.values()];
    zoom(now / pinch, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    move(-step[0] / 2 / unit / view.zoom, -step[1] / 2 / unit / view.zoom);
    pinch = now;
  } else if (path.length) {
    const last = toView(...path[path.length - 1]);
    if (Math.hypot(x - last[0], y - last[1]) > 3) { path.push(toMap(x, y)); draw(); }
  } else {
    if (travelled > 4 && hovered >= 0) hover(-1);
    move(-step[0] / unit / view.zoom, -step[1] / unit / view.zoom);
  }
});

function lift(e) {
  const down = fingers.delete(e.pointerId), [x, y] = place(e);
  map.classList.remove("moving");
  if (!down || e.type === "pointercancel") { path = []; return draw(); }
  if (path.length > 2) {
    const cells = enclosed();
    path = [];
    select(cells);
    if (cells.length && lassoing) toggle("lasso");
  } else if (travelled < 6 && !fingers.size) hover(nearest(x, y, e.pointerType === "mouse" ? 12 : 26), x, y);
  path = [];
  draw();
}
map.addEventListener("pointerup", lift);
map.addEventListener("pointercancel", lift);
map.addEventListener("pointerleave", (e) => { if (e.pointerType === "mouse" && !fingers.size) hover(-1); });
map.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0018)), ...place(e)); }, { passive: false });
map.addEventListener("dblclick", (e) => zoom(2, ...place(e)));

const toggle = (what) => {
  if (what === "lasso") lassoing = !lassoing; else images = !images;
  $("lasso").setAttribute("aria-pressed", lassoing);
  $("cells").setAttribute("aria-pressed", images);
  map.classList.toggle("lasso", lassoing);
  draw();
};
const whole = () => { Object.assign(view, { x: 0.5, y: 0.5, zoom: 1 }); draw(); };
const around = () => { // the keyboard's lasso: a circle about the middle
  const r = 60 / unit / view.zoom, found = [];
  within(view.x - r, view.y - r, view.x + r, view.y + r, (i) => { if (Math.hypot(X[i] - view.x, Y[i] - view.y) < r) found.push(i); });
  select(found);
};

map.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const step = 50 / unit / view.zoom;
  const does = {
    ArrowLeft: () => move(-step, 0), ArrowRight: () => move(step, 0), ArrowUp: () => move(0, -step), ArrowDown: () => move(0, step),
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: whole, Enter: around,
    c: () => toggle("cells"), l: () => toggle("lasso"), Escape: () => { path = []; if (lassoing) toggle("lasso"); select([]); },
  }[e.key.length === 1 ? e.key.toLowerCase() : e.key];
  if (!does) return;
  e.preventDefault();
  steered = e.key !== "Escape";
  does();
  if (steered) hover(nearest(W / 2, H / 2, 80), W / 2, H / 2);
});

// Controls

$("colour").append(...columns.map((c, i) => new Option(c.name, i)));
$("colour").addEventListener("change", () => { column = Number($("colour").value); hidden = new Set(); legend(); paint(); shares(); });
$("cells").addEventListener("click", () => toggle("cells"));
$("lasso").addEventListener("click", () => toggle("lasso"));
$("in").addEventListener("click", () => zoom(1.5));
$("out").addEventListener("click", () => zoom(1 / 1.5));
$("whole").addEventListener("click", whole);
$("clear").addEventListener("click", () => select([]));
$("more").addEventListener("click", () => { shown = Math.min(shown + 60, chosen.length, 1200); gallery(); });
$("theme").addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; legend(); paint(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { legend(); paint(); });
$("save").addEventListener("click", () => {
  const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const head = [facts.owner_kind, facts.number_kind, "x", "y", ...columns.map((c) => c.name)];
  const rows = chosen.map((i) => [facts.owners[owner[i]], number[i], X[i].toFixed(5), (1 - Y[i]).toFixed(5), ...columns.map((_, c) => valueOf(c, i))]);
  const link = label("a");
  link.href = URL.createObjectURL(new Blob([[head, ...rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n"], { type: "text/csv" }));
  link.download = "cells.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
$("gallery").addEventListener("pointermove", (e) => {
  const box = $("gallery").getBoundingClientRect(), n = across(), side = box.width / n;
  const i = chosen[Math.floor((e.clientY - box.top) / side) * n + Math.floor((e.clientX - box.left) / side)];
  if (i === undefined) return hover(-1);
  hover(i, ...toView(X[i], Y[i]));
});
$("gallery").addEventListener("pointerleave", () => hover(-1));

function legend() {
  const { name, names, colours, counts, low, high, unit: measure } = columns[column], head = label("h2", name);
  if (!names) {
    const bar = label("div"), ends = label("p");
    bar.className = "ramp";
    bar.style.background = `linear-gradient(90deg, ${ramp[dark() ? "dark" : "light"].join(",")})`;
    ends.className = "ends";
    ends.append(label("span", `${Number(low.toPrecision(3))}`), label("span", `${Number(high.toPrecision(3))} ${measure}`));
    return $("legend").replaceChildren(head, bar, ends);
  }
  const list = label("ul");
  names.forEach((text, code) => {
    const item = label("li"), button = label("button"), dot = label("span"), title = label("span", text || "none"), n = label("span", counts[code].toLocaleString("en"));
    [dot.className, title.className, n.className] = ["dot", "name", "count"];
    dot.style.background = colours[code];
    button.setAttribute("aria-pressed", !hidden.has(code));
    button.append(dot, title, n);
    button.addEventListener("click", () => {
      if (!hidden.delete(code)) hidden.add(code);
      button.setAttribute("aria-pressed", !hidden.has(code));
      hovered = -1;
      paint();
    });
    item.append(button);
    list.append(item);
  });
  $("legend").replaceChildren(head, list);
}

// How fast: a flight through the map, each frame timed

$("measure").addEventListener("click", async () => {
  const saved = { ...view }, times = [], gaps = [];
  let last = 0;
  for (let k = 0; k <= 120; k++) {
    const now = await new Promise(requestAnimationFrame);
    if (k > 1) gaps.push(now - last);
    last = now;
    const turn = (2 * Math.PI * k) / 120;
    Object.assign(view, { zoom: 1 + 3 * (1 - Math.cos(turn)), x: 0.5 + 0.1 * Math.sin(turn), y: 0.5 + 0.1 * Math.cos(turn) });
    const start = performance.now();
    cancelAnimationFrame(pending);
    frame();
    times.push(performance.now() - start);
  }
  Object.assign(view, saved);
  draw();
  const at = (list, share) => list.sort((a, b) => a - b)[Math.floor((list.length - 1) * share)].toFixed(1);
  $("speed").textContent = `${drawn.toLocaleString("en")} points on ${map.width} × ${map.height} px: drawn in ${at(times, 0.5)} ms (median of ${times.length} frames), ${at(times, 0.95)} ms (95th percentile); a frame each ${at(gaps, 0.5)} ms`;
});

new ResizeObserver(() => { resize(); gallery(); }).observe(stage);
legend();
paint();
resize();
