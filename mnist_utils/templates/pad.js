// The page itself: paper, pen, the models' answers. `pixels` is the image that the chosen model sees.

const { models, images } = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const paper = element("paper"), seen = element("seen"), answer = element("answer");
const rows = [...document.querySelectorAll("#shares li")];
const pen = paper.getContext("2d", { willReadFrequently: true });
const networks = models.map(() => null);
let last = null, pixels = new Uint8Array(28 * 28), shown = null, waiting = false, answers = 0;
let keys = { x: paper.width / 2, y: paper.height / 2, down: false };

function chosen() {
  const number = Number(element("model").value);
  networks[number] ??= buildNetwork(models[number]);
  return { ...models[number], network: networks[number] };
}

function place(event) {
  const area = paper.getBoundingClientRect();
  return [(event.clientX - area.left) * paper.width / area.width, (event.clientY - area.top) * paper.height / area.height];
}

// A stroke from where the pen was; a pen that has just come down leaves a dot.
function drawTo(here) {
  pen.lineWidth = Number(element("width").value);
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  if (last) {
    pen.moveTo(...last);
    pen.lineTo(...here);
    pen.stroke();
  } else {
    pen.arc(...here, pen.lineWidth / 2, 0, 2 * Math.PI);
    pen.fill();
  }
  last = here;
  shown = null;
  lookSoon();
}

// However many movements a frame brings, the model answers once.
function lookSoon() {
  if (!waiting) requestAnimationFrame(look);
  waiting = true;
}

function look() {
  waiting = false;
  answers += 1;
  const ink = pen.getImageData(0, 0, paper.width, paper.height).data.filter((_, i) => i % 4 === 3);
  const { network, deskew } = chosen(), raw = shown ?? likeMnist(ink, paper.width);
  pixels = deskew ? straighten(raw) : raw;
  paint(seen, pixels);
  show(pixels.some((value) => value) ? softmax(network(pixels)) : null);
}

function paint(canvas, values) {
  const view = canvas.getContext("2d"), image = view.createImageData(28, 28);
  values.forEach((value, i) => image.data.set([255 - value, 255 - value, 255 - value, 255], 4 * i));
  view.putImageData(image, 0, 0);
}

const percent = (share) => (share >= 0.999 ? "99.9% or more" : `${(100 * share).toFixed(1)}%`);

function show(shares) {
  const [best, second] = shares ? [...shares.keys()].sort((a, b) => shares[b] - shares[a]) : [-1, -1];
  rows.forEach((row, digit) => {
    row.className = digit === best ? "best" : "";
    row.querySelector(".bar").style.width = `${shares ? 100 * shares[digit] : 0}%`;
    row.querySelector(".share").textContent = shares ? percent(shares[digit]) : "";
  });
  answer.textContent = shares
    ? `Read as ${best}, ${percent(shares[best])} sure; second best ${second}, ${percent(shares[second])}.`
    : "Nothing is drawn yet.";
}

function clear() {
  pen.clearRect(0, 0, paper.width, paper.height);
  last = shown = null;
  keys.down = false;
  lookSoon();
}

paper.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  paper.focus();
  paper.setPointerCapture(event.pointerId);
  last = null;
  drawTo(place(event));
});
paper.addEventListener("pointermove", (event) => {
  if (!event.buttons || !last) return;
  const points = event.getCoalescedEvents?.() ?? [];
  for (const point of points.length ? points : [event]) drawTo(place(point));
});
for (const end of ["pointerup", "pointercancel"]) paper.addEventListener(end, () => { last = null; });

const STEPS = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8] };
paper.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (event.key === "Escape") clear();
  else if (event.key === " ") [keys.down, last] = [!keys.down, null];
  else if (!step) return;
  event.preventDefault();
  if (step) keys = { ...keys, x: keys.x + step[0], y: keys.y + step[1] };
  if (keys.down) drawTo([keys.x, keys.y]);
});

element("model").addEventListener("change", () => {
  element("report").href = chosen().report;
  lookSoon();
});
element("clear").addEventListener("click", clear);
for (const button of document.querySelectorAll("#tries button")) {
  const image = Uint8Array.from(atob(images[button.value].pixels), (letter) => letter.charCodeAt(0));
  paint(button.firstElementChild, image);
  button.addEventListener("click", () => {
    clear();
    shown = image;
  });
}
clear();
