// A network's forward pass. A map is {channels, height, width, data}, the data row by row, channel after channel.
// The steps come from mnist_utils/reports/export.py; step k takes maps by number (0 is the image) and makes map k.

function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

function blank(channels, height, width) {
  return { channels, height, width, data: new Float64Array(channels * height * width) };
}

function each(map, value) { // value(x, channel) for every x
  const area = map.height * map.width, data = new Float64Array(map.data.length);
  for (let channel = 0; channel < map.channels; channel++) {
    for (let i = channel * area; i < (channel + 1) * area; i++) data[i] = value(map.data[i], channel);
  }
  return { ...map, data };
}

const operations = {
  conv2d(step, map) {
    const [outward, inward, rows, columns] = step.shape;
    const { stride, padding, groups } = step;
    const high = Math.floor((map.height + 2 * padding - rows) / stride) + 1;
    const wide = Math.floor((map.width + 2 * padding - columns) / stride) + 1;
    const result = blank(outward, high, wide);
    const into = result.data, outof = map.data;
    for (let o = 0; o < outward; o++) {
      const first = Math.floor(o / (outward / groups)) * inward; // of the channels that this output sees
      const target = o * high * wide;
      if (step.bias) result.data.fill(step.bias[o], target, target + high * wide);
      for (let i = 0; i < inward; i++) {
        for (let r = 0; r < rows; r++) {
          for (let c = 0; c < columns; c++) {
            const weight = step.weight[((o * inward + i) * rows + r) * columns + c];
            const from = Math.max(0, Math.ceil((padding - c) / stride));
            const to = Math.min(wide, Math.floor((map.width - 1 + padding - c) / stride) + 1);
            for (let y = 0; y < high; y++) {
              const row = y * stride + r - padding;
              if (row < 0 || row >= map.height) continue;
              const source = ((first + i) * map.height + row) * map.width + c - padding;
              for (let x = from; x < to; x++) into[target + y * wide + x] += weight * outof[source + x * stride];
            }
          }
        }
      }
    }
    return result;
  },
  batch_norm: (step, map) => each(map, (x, channel) => x * step.factor[channel] + step.term[channel]),
  relu: (_, map) => each(map, (x) => Math.max(0, x)),
  sigmoid: (_, map) => each(map, (x) => 1 / (1 + Math.exp(-x))),
  silu: (_, map) => each(map, (x) => x / (1 + Math.exp(-x))),
  add: (_, map, other) => ({ ...map, data: map.data.map((x, i) => x + other.data[i]) }),
  max_pool2d({ size }, map) {
    const result = blank(map.channels, Math.floor(map.height / size), Math.floor(map.width / size));
    const { height, width } = result;
    result.data.fill(-Infinity);
    for (let channel = 0; channel < map.channels; channel++) {
      for (let y = 0; y < height * size; y++) {
        for (let x = 0; x < width * size; x++) {
          const place = (channel * height + Math.floor(y / size)) * width + Math.floor(x / size);
          result.data[place] = Math.max(result.data[place], map.data[(channel * map.height + y) * map.width + x]);
        }
      }
    }
    return result;
  },
  mean(_, map) {
    const area = map.height * map.width;
    const sums = new Float64Array(map.channels);
    map.data.forEach((x, i) => { sums[Math.floor(i / area)] += x / area; });
    return { channels: map.channels, height: 1, width: 1, data: sums };
  },
};

// `pixels` in 0..255, 28 x 28, to ten logits.
function buildNetwork({ mean, std, steps }) {
  for (const step of steps) {
    for (const name of ["weight", "bias", "factor", "term"]) if (step[name]) step[name] = unpack(step[name]);
  }
  return (pixels) => {
    const image = { channels: 1, height: 28, width: 28, data: Float64Array.from(pixels, (p) => (p / 255 - mean) / std) };
    const maps = [image];
    for (const step of steps) maps.push(operations[step.op](step, ...step.inputs.map((number) => maps[number])));
    return maps.at(-1).data;
  };
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (x) => Math.exp(x - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((x) => x / sum);
}
