// Draw a digit: the grown network of chapter 3, at every stage of its growth, in plain JavaScript.
// window.GROWNET (grownet.js) holds the recorded weights; nothing is sent anywhere.
(() => {
  const SIDE = 28, BOX = 20, CANVAS = 280;

  const bytes = text => Int8Array.from(atob(text), c => c.charCodeAt(0));

  function layer({ weight, scale, bias }, inputs) {
    const units = bias.length, values = bytes(weight), out = new Float32Array(units);
    for (let unit = 0; unit < units; unit++) {
      let sum = 0;
      for (let i = 0; i < inputs.length; i++) sum += values[unit * inputs.length + i] * inputs[i];
      out[unit] = sum * scale + bias[unit];
    }
    return out;
  }

  function classify(stage, pixels) {  // pixels: 784 values from 0 to 255
    const { mean, std } = window.GROWNET;
    const inputs = Float32Array.from(pixels, pixel => (pixel / 255 - mean) / std);
    const hidden = layer(stage.hidden, inputs).map(value => Math.max(value, 0));
    const logits = layer(stage.output, hidden);
    const top = Math.max(...logits);
    const odds = Array.from(logits, logit => Math.exp(logit - top));
    const total = odds.reduce((a, b) => a + b);
    return odds.map(value => value / total);
  }

  // As MNIST was made: the drawing fitted into 20 x 20 pixels, its centre of mass in the middle of 28 x 28.
  function shrink(canvas) {
    const drawn = canvas.getContext("2d").getImageData(0, 0, CANVAS, CANVAS).data;
    let left = CANVAS, right = -1, top = CANVAS, bottom = -1;
    for (let y = 0; y < CANVAS; y++) for (let x = 0; x < CANVAS; x++) {
      if (drawn[4 * (y * CANVAS + x) + 3] > 20) {
        left = Math.min(left, x); right = Math.max(right, x);
        top = Math.min(top, y); bottom = Math.max(bottom, y);
      }
    }
    const pixels = new Float32Array(SIDE * SIDE);
    if (right < 0) return null;
    const scale = BOX / (Math.max(right - left, bottom - top) + 1);
    let mass = 0, massX = 0, massY = 0;
    for (let y = top; y <= bottom; y++) for (let x = left; x <= right; x++) {
      const ink = drawn[4 * (y * CANVAS + x) + 3];
      mass += ink; massX += ink * (x + 0.5); massY += ink * (y + 0.5);
    }
    const toX = SIDE / 2 - scale * massX / mass, toY = SIDE / 2 - scale * massY / mass;
    for (let y = top; y <= bottom; y++) for (let x = left; x <= right; x++) {
      const column = Math.floor(scale * (x + 0.5) + toX), row = Math.floor(scale * (y + 0.5) + toY);
      if (column >= 0 && column < SIDE && row >= 0 && row < SIDE) {
        pixels[row * SIDE + column] += drawn[4 * (y * CANVAS + x) + 3] * scale * scale;  // the mean over the pixel
      }
    }
    return pixels.map(value => Math.min(value, 255));
  }

  // For those who can't draw, and for the tests: strokes of every digit on a unit square.
  const circle = (cx, cy, rx, ry, from = 0, to = 1) => Array.from({ length: 33 }, (_, i) => {
    const angle = 2 * Math.PI * (from + (to - from) * i / 32);
    return [cx + rx * Math.sin(angle), cy - ry * Math.cos(angle)];
  });
  const EXAMPLES = [
    [circle(.5, .5, .24, .36)],
    [[[.42, .24], [.53, .14], [.5, .86]]],
    [[...circle(.5, .34, .22, .2, -.2, .38), [.3, .84], [.74, .82]]],
    [[...circle(.48, .32, .2, .18, -.18, .46), ...circle(.48, .67, .22, .19, .04, .7)]],
    [[[.36, .16], [.3, .52], [.68, .52]], [[.66, .16], [.6, .88]]],
    [[[.68, .16], [.4, .16], [.36, .46], ...circle(.48, .64, .2, .21, -.1, .64)]],
    [[[.6, .13], [.4, .42], ...circle(.5, .66, .18, .2, -.3, .72)]],
    [[[.28, .2], [.72, .18], [.46, .86]]],
    [[...circle(.5, .32, .17, .17), ...circle(.5, .67, .2, .19)]],
    [[...circle(.5, .34, .18, .19, .25, 1.25), [.64, .5], [.58, .87]]],
  ];

  function setUp(root) {
    const find = name => root.querySelector(`[data-part="${name}"]`);
    const canvas = find("canvas"), pen = canvas.getContext("2d"), seen = find("seen").getContext("2d");
    const stages = window.GROWNET.stages, slider = find("stage");
    slider.max = stages.length - 1;
    slider.value = stages.length - 1;

    find("bars").innerHTML = Array.from({ length: 10 }, (_, digit) =>
      `<div class="draw-bar"><span>${digit}</span><div><i></i></div><b></b></div>`).join("");
    find("minds").innerHTML = stages.map((stage, index) =>
      `<button type="button" data-stage="${index}"><b>–</b><small>${stage.units} units</small></button>`).join("");

    function show() {
      const pixels = shrink(canvas), stage = stages[slider.value];
      find("label").textContent =
        `${stage.units} units, after epoch ${stage.epoch}: ${(100 * stage.test_accuracy).toFixed(2)} % of the test images right`;
      const picture = seen.createImageData(SIDE, SIDE);
      for (let i = 0; i < SIDE * SIDE; i++) {
        picture.data.set([255, 255, 255, pixels ? pixels[i] : 0], 4 * i);
      }
      seen.putImageData(picture, 0, 0);
      const guesses = stages.map(one => pixels && classify(one, pixels));
      const odds = guesses[slider.value];
      const best = odds ? odds.indexOf(Math.max(...odds)) : null;
      find("verdict").textContent = best === null ? "Draw a digit." : `It reads ${best}, at ${(100 * odds[best]).toFixed(0)} %.`;
      root.querySelectorAll(".draw-bar").forEach((bar, digit) => {
        const share = odds ? odds[digit] : 0;
        bar.classList.toggle("draw-best", digit === best);
        bar.querySelector("i").style.width = `${100 * share}%`;
        bar.querySelector("b").textContent = odds ? `${(100 * share).toFixed(0)} %` : "";
      });
      root.querySelectorAll("[data-stage]").forEach((button, index) => {
        const one = guesses[index];
        const digit = one ? one.indexOf(Math.max(...one)) : "–";
        button.querySelector("b").textContent = digit;
        button.setAttribute("aria-label", `${stages[index].units} units read ${digit}`);
        button.setAttribute("aria-pressed", String(index === Number(slider.value)));
      });
    }

    function clear() { pen.clearRect(0, 0, CANVAS, CANVAS); show(); }

    function stroke(points) {
      pen.lineWidth = 24; pen.lineCap = pen.lineJoin = "round"; pen.strokeStyle = "#fff";
      pen.beginPath();
      points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.stroke();
    }

    let last = null;
    const place = event => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * CANVAS / box.width, (event.clientY - box.top) * CANVAS / box.height];
    };
    canvas.addEventListener("pointerdown", event => {
      event.preventDefault();
      canvas.setPointerCapture?.(event.pointerId);
      last = place(event);
      stroke([last, last]); show();
    });
    canvas.addEventListener("pointermove", event => {
      if (!last) return;
      const now = place(event);
      stroke([last, now]); last = now; show();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });

    find("clear").addEventListener("click", clear);
    let next = 4;
    find("example").addEventListener("click", () => {
      pen.clearRect(0, 0, CANVAS, CANVAS);
      EXAMPLES[next].forEach(points => stroke(points.map(([x, y]) => [x * CANVAS, y * CANVAS])));
      next = (next + 1) % EXAMPLES.length;
      show();
    });
    slider.addEventListener("input", show);
    find("minds").addEventListener("click", event => {
      const button = event.target.closest("[data-stage]");
      if (button) { slider.value = button.dataset.stage; show(); }
    });
    show();
  }

  window.drawADigit = { classify, setUp };
  document.querySelectorAll(".draw-a-digit").forEach(setUp);
})();
