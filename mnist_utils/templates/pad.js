// The drawing, prepared as MNIST's digits were: scaled into 20 x 20 pixels, shades of grey from anti-aliasing, then
// placed in 28 x 28 with its centre of mass in the middle. `ink` is 0..255, row by row, `side` pixels wide and high.

function likeMnist(ink, side) {
  const pixels = new Uint8Array(28 * 28);
  const box = bounds(ink, side);
  if (!box) return pixels;
  const scale = 20 / Math.max(box.width, box.height);
  const wide = Math.max(1, Math.round(box.width * scale));
  const high = Math.max(1, Math.round(box.height * scale));
  const small = shrink(ink, side, box, wide, high);
  const mass = small.reduce((a, b) => a + b);
  const left = Math.round(14 - small.reduce((sum, v, i) => sum + v * (i % wide), 0) / mass);
  const top = Math.round(14 - small.reduce((sum, v, i) => sum + v * Math.floor(i / wide), 0) / mass);
  small.forEach((value, i) => {
    const x = left + (i % wide), y = top + Math.floor(i / wide);
    if (x >= 0 && x < 28 && y >= 0 && y < 28) pixels[28 * y + x] = Math.round(value);
  });
  return pixels;
}

function bounds(ink, side) {
  let left = side, right = -1, top = side, bottom = -1;
  ink.forEach((value, i) => {
    if (!value) return;
    const x = i % side, y = Math.floor(i / side);
    left = Math.min(left, x); right = Math.max(right, x);
    top = Math.min(top, y); bottom = Math.max(bottom, y);
  });
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

// Each new pixel is the mean of the ink under it, parts of a pixel counted in part.
function shrink(ink, side, box, wide, high) {
  const columns = covers(box.left, box.width, wide), rows = covers(box.top, box.height, high);
  const small = new Float64Array(wide * high);
  rows.forEach((row, y) => columns.forEach((column, x) => {
    let sum = 0;
    for (const [sy, partY] of row) for (const [sx, partX] of column) sum += partX * partY * ink[sy * side + sx];
    small[y * wide + x] = sum;
  }));
  return small;
}

function covers(start, length, count) { // for each of `count` equal parts: [pixel, its share of the part]
  const step = length / count;
  return Array.from({ length: count }, (_, n) => {
    const from = start + n * step, to = from + step, found = [];
    for (let p = Math.floor(from); p < Math.min(Math.ceil(to), start + length); p++) {
      found.push([p, (Math.min(to, p + 1) - Math.max(from, p)) / step]);
    }
    return found;
  });
}

// Takes the slant away and moves the centre of the ink into the middle, as `straighten` in augment.py does with moments.
function straighten(pixels) {
  let ink = 0, x = 0, y = 0, spread = 0, slanted = 0;
  pixels.forEach((value, i) => {
    ink += value; x += value * (i % 28); y += value * Math.floor(i / 28);
  });
  if (!ink) return pixels;
  x /= ink; y /= ink;
  pixels.forEach((value, i) => {
    const across = i % 28 - x, down = Math.floor(i / 28) - y;
    spread += value * down * down;
    slanted += value * across * down;
  });
  const slant = spread ? slanted / spread : 0;
  return pixels.map((_, i) => {
    const column = i % 28 - 13.5, row = Math.floor(i / 28) - 13.5;
    return Math.round(between(pixels, x + column + slant * row, y + row));
  });
}

function between(pixels, x, y) { // bilinear, with nothing around the image
  const left = Math.floor(x), top = Math.floor(y);
  let sum = 0;
  for (const [row, partY] of [[top, top + 1 - y], [top + 1, y - top]]) {
    for (const [column, partX] of [[left, left + 1 - x], [left + 1, x - left]]) {
      const inside = row >= 0 && row < 28 && column >= 0 && column < 28;
      if (inside) sum += partX * partY * pixels[28 * row + column];
    }
  }
  return sum;
}

const trained = JSON.parse(document.getElementById("network").textContent), network = buildNetwork(trained);
const paper = document.getElementById("paper"), seen = document.getElementById("seen");
const answer = document.getElementById("answer"), rows = [...document.querySelectorAll("#shares li")];
const pen = paper.getContext("2d", { willReadFrequently: true });
let last = null, pixels = new Uint8Array(28 * 28), waiting = false;

function place(event) {
  const area = paper.getBoundingClientRect();
  return [(event.clientX - area.left) * paper.width / area.width, (event.clientY - area.top) * paper.height / area.height];
}

function stroke(event) {
  const points = event.getCoalescedEvents?.() ?? [];
  for (const point of points.length ? points : [event]) {
    const here = place(point);
    pen.beginPath();
    pen.moveTo(...(last ?? here));
    pen.lineTo(...here);
    pen.stroke();
    last = here;
  }
  if (!waiting) requestAnimationFrame(look);
  waiting = true;
}

function look() {
  waiting = false;
  const ink = pen.getImageData(0, 0, paper.width, paper.height).data.filter((_, i) => i % 4 === 3);
  pixels = likeMnist(ink, paper.width);
  if (trained.deskew) pixels = straighten(pixels);
  const view = seen.getContext("2d"), image = view.createImageData(28, 28);
  pixels.forEach((value, i) => image.data.set([255 - value, 255 - value, 255 - value, 255], 4 * i));
  view.putImageData(image, 0, 0);
  show(pixels.some((value) => value) ? softmax(network(pixels)) : null);
}

function show(shares) {
  const best = shares ? shares.indexOf(Math.max(...shares)) : -1;
  rows.forEach((row, digit) => {
    const percent = shares ? 100 * shares[digit] : 0;
    row.className = digit === best ? "best" : "";
    row.querySelector(".bar").style.width = `${percent}%`;
    row.querySelector(".share").textContent = shares ? `${percent.toFixed(1)}%` : "";
  });
  answer.textContent = shares ? `Read as ${best}, ${(100 * shares[best]).toFixed(1)}% sure.` : "Nothing is drawn yet.";
}

function clear() {
  pen.clearRect(0, 0, paper.width, paper.height);
  look();
}

pen.lineWidth = 24;
pen.lineCap = pen.lineJoin = "round";
paper.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  paper.setPointerCapture(event.pointerId);
  last = null;
  stroke(event);
});
paper.addEventListener("pointermove", (event) => { if (event.buttons && last) stroke(event); });
for (const end of ["pointerup", "pointercancel"]) paper.addEventListener(end, () => { last = null; });
document.getElementById("clear").addEventListener("click", clear);
clear();
