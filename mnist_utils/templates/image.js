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

// A digit upright, its ink in the middle, as mnist_utils.augment.straighten does it: each row moves back by the slant,
// the columns that the ink moves aside for each row further down (a quotient of second moments), and the centre of the
// ink goes to the middle, in one bilinear resampling. `pixels` are 0..255, 28 x 28; so is the result, rounded.
function straighten(pixels) {
  const side = 28, middle = (side - 1) / 2, sum = (value) => pixels.reduce((s, v, i) => s + v * value(i % side, Math.floor(i / side)), 0);
  const mass = sum(() => 1), straight = new Uint8Array(side * side);
  if (!mass) return straight;
  const column = sum((x) => x) / mass, row = sum((_, y) => y) / mass;
  const spread = sum((_, y) => (y - row) ** 2);
  const slant = spread ? sum((x, y) => (y - row) * (x - column)) / spread : 0;
  const ink = (x, y) => (x >= 0 && x < side && y >= 0 && y < side ? pixels[side * y + x] : 0);
  straight.forEach((_, i) => {
    const down = Math.floor(i / side) - middle;
    const y = row + down, x = column + (i % side) - middle + slant * down;
    const left = Math.floor(x), top = Math.floor(y), right = x - left, low = y - top;
    const upper = (1 - right) * ink(left, top) + right * ink(left + 1, top);
    const lower = (1 - right) * ink(left, top + 1) + right * ink(left + 1, top + 1);
    straight[i] = Math.round((1 - low) * upper + low * lower);
  });
  return straight;
}
