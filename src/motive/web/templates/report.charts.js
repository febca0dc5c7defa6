// Charts: a histogram and a bar chart in SVG, the rank strip and the scatter plot on canvas.

const SVG = "http://www.w3.org/2000/svg";
const tooltip = document.getElementById("tooltip");

/** A number as the report writes it. */
function decimal(value, digits = 3) {
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

/** A score: without bounds, a small one has three significant digits. */
function scored(value) {
  if (bounded || value === 0 || Math.abs(value) >= 0.001) return decimal(value);
  const [digits, power] = value.toExponential(2).replace(/\.?0+e/, "e").split("e");
  // From here on as Python writes it.
  const text = power >= -4 ? String(Number(value.toPrecision(3))) : `${digits}e-${String(-power).padStart(2, "0")}`;
  return text.replace(/^-/, "−");
}

function signed(value) {
  const text = scored(value);
  return value > 0 && text !== "0.000" ? `+${text}` : text;
}

/** Round numbers, about `count` of them, inside [low, high]; and how many decimals they need. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step);
  return { values, digits };
}

/** [low, high] of values, never empty, with a margin. */
function extent(values, margin = 0.04) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (!(low <= high)) return [0, 1];
  const pad = (high - low) * margin || Math.abs(high) * 0.1 || 0.1;
  return [low - pad, high + pad];
}

function svgNode(parent, name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function showTooltip(lines, x, y) {
  tooltip.replaceChildren(...lines.map((line) => {
    const row = document.createElement("div");
    row.textContent = line;
    return row;
  }));
  tooltip.hidden = false;
  const { width, height } = tooltip.getBoundingClientRect();
  const left = Math.min(x + 14, innerWidth - width - 8);
  tooltip.style.left = `${Math.max(8, left)}px`;
  tooltip.style.top = `${y + 18 + height > innerHeight ? y - height - 12 : y + 18}px`;
}

function hideTooltip() {
  tooltip.hidden = true;
}

/** Bars [{low, high, parts: [[count, class]…], title}] with axes. Returns x(value) in pixels. */
function drawBars(svg, bars, { xLabel, yLabel, xTicks, height }) {
  const width = Math.max(200, svg.clientWidth);
  const box = { left: 38, right: 8, top: 24, bottom: 36 };
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.style.height = `${height}px`;
  const low = bars[0].low, high = bars[bars.length - 1].high;
  const most = Math.max(1, ...bars.map((bar) => bar.parts.reduce((sum, part) => sum + part[0], 0)));
  const x = (value) => box.left + ((value - low) / (high - low)) * (width - box.left - box.right);
  const y = (count) => height - box.bottom - (count / most) * (height - box.top - box.bottom);
  for (const value of ticks(0, most, 3).values.filter(Number.isInteger)) {
    svgNode(svg, "line", { class: "grid", x1: box.left, x2: width - box.right, y1: y(value), y2: y(value) });
    svgNode(svg, "text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value));
  }
  for (const bar of bars) {
    const group = svgNode(svg, "g", {});
    const gap = x(bar.high) - x(bar.low) > 4 ? 1 : 0;
    let base = 0;
    for (const [count, name] of bar.parts) {
      if (!count) continue;
      svgNode(group, "rect", {
        class: name, x: x(bar.low) + gap / 2, width: Math.max(0.5, x(bar.high) - x(bar.low) - gap),
        y: y(base + count), height: Math.max(1, y(base) - y(base + count)),
      });
      base += count;
    }
    const target = svgNode(group, "rect", {
      class: "target", x: x(bar.low), width: x(bar.high) - x(bar.low), y: box.top, height: y(0) - box.top,
    });
    target.addEventListener("pointermove", (event) => showTooltip([bar.title], event.clientX, event.clientY));
    target.addEventListener("pointerleave", hideTooltip);
  }
  svgNode(svg, "line", { class: "axis", x1: box.left, x2: width - box.right, y1: y(0), y2: y(0) });
  for (const [value, text] of xTicks(low, high)) {
    svgNode(svg, "text", { x: x(value), y: height - box.bottom + 15, "text-anchor": "middle" }, text);
  }
  svgNode(svg, "text", { class: "label", x: width - box.right, y: height - 4, "text-anchor": "end" }, xLabel);
  svgNode(svg, "text", { class: "label", x: 2, y: 10 }, yLabel);
  return x;
}

/** A query's scores; bins are aligned with its threshold, so no bar is half above it. */
function drawHistogram(svg, scores, threshold) {
  const [low, high] = extent([threshold, ...scores], 0);
  const bins = Math.min(40, Math.max(10, Math.round(2 * Math.sqrt(scores.length))));
  const step = (high - low) / bins;
  const first = Math.floor((low - threshold) / step - 1e-9), last = Math.ceil((high - threshold) / step + 1e-9);
  const bars = [];
  for (let k = first; k < last; k++) {
    bars.push({ low: threshold + k * step, high: threshold + (k + 1) * step, parts: [[0, k >= 0 ? "on" : "off"]] });
  }
  for (const score of scores) {
    // A bin holds its upper edge: a score equal to the threshold is not above it.
    const k = Math.ceil((score - threshold) / step) - 1 - first;
    bars[Math.min(bars.length - 1, Math.max(0, k))].parts[0][0] += 1;
  }
  for (const bar of bars) {
    const count = bar.parts[0][0];
    bar.title = `${count} ${count === 1 ? "clip" : "clips"} from ${scored(bar.low)} to ${scored(bar.high)}`;
  }
  const height = 168;
  const x = drawBars(svg, bars, {
    height, xLabel: "influence score", yLabel: "clips",
    xTicks: (from, to) => {
      const { values, digits } = ticks(from, to, 4);
      return values.map((value) => [value, decimal(value, digits)]);
    },
  });
  const at = x(threshold);
  svgNode(svg, "line", { class: "threshold", x1: at, x2: at, y1: 3, y2: height - 36 });
  const onRight = at < svg.clientWidth * 0.6;
  svgNode(svg, "text", { class: "strong", x: at + (onRight ? 5 : -5), y: 12, "text-anchor": onRight ? "start" : "end" }, `τ ${scored(threshold)}`);
  const marker = svgNode(svg, "path", { class: "marker", d: `M0,${height - 36}l-5,8h10z`, visibility: "hidden" });
  return (score) => {
    marker.setAttribute("visibility", score === null ? "hidden" : "visible");
    if (score !== null) marker.setAttribute("transform", `translate(${x(score)},0)`);
  };
}

/** How many clips received how many votes, selected ones below. */
function drawVotes(svg, clips, queries) {
  // Below zero where unwanted queries vote against a clip.
  const least = clips.reduce((low, clip) => Math.min(low, clip.votes), 0);
  const most = clips.reduce((high, clip) => Math.max(high, clip.votes), queries);
  const bars = Array.from({ length: most - least + 1 }, (_, k) => ({
    low: least + k - 0.5, high: least + k + 0.5, parts: [[0, "on"], [0, "off"]],
  }));
  for (const clip of clips) bars[clip.votes - least].parts[clip.selected ? 0 : 1][0] += 1;
  bars.forEach((bar, k) => {
    const votes = least + k;
    const total = bar.parts[0][0] + bar.parts[1][0];
    bar.title = `${total} ${total === 1 ? "clip" : "clips"} with ${votes} ${votes === 1 ? "vote" : "votes"}, ${bar.parts[0][0]} selected`;
  });
  const every = Math.ceil(bars.length / 12);
  drawBars(svg, bars, {
    height: 380, xLabel: `votes (of ${queries} ${queries === 1 ? "query" : "queries"})`, yLabel: "clips",
    xTicks: () => bars.map((_, k) => [least + k, String(least + k)]).filter(([votes]) => votes % every === 0),
  });
}

/** What the two clip plots share: sharp canvas, theme colours, hover, keys, click. */
class ClipPlot {
  constructor(canvas, clips, order, height, onOpen) {
    Object.assign(this, { canvas, clips, order, height, onOpen, current: null });
    const redraw = () => this.redraw();
    new ResizeObserver(redraw).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      this.point(this.hit(event.clientX - box.left, event.clientY - box.top), event.clientX, event.clientY);
    });
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("click", () => this.current !== null && onOpen(this.current));
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    redraw();
  }

  onKey(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      const at = this.current === null ? (step > 0 ? -1 : 0) : this.order.indexOf(this.current);
      const index = this.order[(at + step + this.order.length) % this.order.length];
      const box = this.canvas.getBoundingClientRect();
      const [x, y] = this.place(index);
      this.point(index, box.left + x, box.top + y);
    } else if (event.key === "Enter" && this.current !== null) this.onOpen(this.current);
    else return;
    event.preventDefault();
  }

  point(index, x, y) {
    const changed = index !== this.current;
    this.current = index;
    this.canvas.style.cursor = index === null ? "default" : "pointer";
    if (index === null) hideTooltip();
    else {
      const clip = this.clips[index];
      showTooltip([
        clip.file,
        `rank ${clip.rank}, ${clip.votes} ${clip.votes === 1 ? "vote" : "votes"}${clip.selected ? ", selected" : ""}`,
        `mean influence ${signed(clip.mean)}, ${decimal(clip.magnitude, 2)} px/frame`,
      ], x, y);
    }
    if (changed) this.redraw();
  }

  redraw() {
    const width = this.canvas.parentElement.clientWidth;
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    const style = getComputedStyle(document.documentElement);
    this.colour = Object.fromEntries(["ink", "ink-2", "rule", "off", "on", "panel", "spoil"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, this.height);
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    this.draw(context, width, this.height);
  }
}

/** Mean influence in rank order, with a band of vote counts below. */
class RankStrip extends ClipPlot {
  draw(context, width, height) {
    const { clips, order, colour } = this;
    const band = 26;
    const [low, high] = extent([0, ...clips.map((clip) => clip.mean)], 0);
    this.slot = width / order.length;
    this.y = (value) => 4 + ((high - value) / (high - low)) * (height - band - 8);
    const gap = this.slot > 3 ? Math.min(2, this.slot * 0.2) : 0;
    order.forEach((index, rank) => {
      const clip = clips[index];
      context.fillStyle = index === this.current ? colour.ink : clip.selected ? colour.on : colour.off;
      const top = this.y(Math.max(0, clip.mean)), bottom = this.y(Math.min(0, clip.mean));
      context.fillRect(rank * this.slot + gap / 2, top, Math.max(0.6, this.slot - gap), Math.max(1, bottom - top));
    });
    context.fillStyle = colour["ink-2"];
    context.fillRect(0, this.y(0), width, 0.5);
    let start = 0;
    for (let rank = 1; rank <= order.length; rank++) {
      const votes = clips[order[start]].votes;
      if (rank < order.length && clips[order[rank]].votes === votes) continue;
      const left = start * this.slot, right = rank * this.slot;
      context.fillStyle = colour.rule;
      context.fillRect(left, height - band + 6, Math.max(0.5, right - left - 1), 3);
      const label = right - left > 64 ? `${votes} ${votes === 1 ? "vote" : "votes"}` : String(votes);
      context.fillStyle = colour["ink-2"];
      if (context.measureText(label).width + 4 < right - left) context.fillText(label, left, height - 3);
      start = rank;
    }
  }

  hit(x) {
    return this.order[Math.min(this.order.length - 1, Math.max(0, Math.floor(x / this.slot)))];
  }

  place(index) {
    return [(this.order.indexOf(index) + 0.5) * this.slot, this.y(this.clips[index].mean)];
  }
}

/** Mean influence against motion magnitude. */
class Scatter extends ClipPlot {
  draw(context, width, height) {
    const { clips, order, colour } = this;
    const box = { left: 52, right: 12, top: 22, bottom: 40 };
    const [xLow, xHigh] = extent([0, ...clips.map((clip) => clip.magnitude)], 0.03);
    const [yLow, yHigh] = extent(clips.map((clip) => clip.mean), 0.06);
    this.x = (value) => box.left + ((value - xLow) / (xHigh - xLow)) * (width - box.left - box.right);
    this.y = (value) => box.top + ((yHigh - value) / (yHigh - yLow)) * (height - box.top - box.bottom);
    const xs = ticks(xLow, xHigh, width / 110), ys = ticks(yLow, yHigh, 5);
    context.fillStyle = colour["ink-2"];
    context.strokeStyle = colour.rule;
    context.lineWidth = 1;
    for (const value of ys.values) {
      const y = Math.round(this.y(value)) + 0.5;
      context.beginPath();
      context.moveTo(box.left, y);
      context.lineTo(width - box.right, y);
      context.stroke();
      context.textAlign = "right";
      context.fillText(decimal(value, ys.digits), box.left - 8, y + 4);
    }
    context.textAlign = "center";
    for (const value of xs.values) context.fillText(decimal(value, xs.digits), this.x(value), height - box.bottom + 18);
    context.textAlign = "left";
    context.fillText("mean influence", 2, 11);
    context.textAlign = "right";
    context.fillText("motion magnitude (pixels per frame)", width - box.right, height - 3);
    context.textAlign = "left";
    const radius = clips.length > 2000 ? 2 : clips.length > 400 ? 3 : 4.5;
    const dot = (index, size) => {
      context.beginPath();
      context.arc(this.x(clips[index].magnitude), this.y(clips[index].mean), size, 0, 2 * Math.PI);
    };
    // Worst first, so that selected clips lie on top.
    for (const index of [...order].reverse()) {
      dot(index, radius);
      if (clips[index].selected) {
        context.fillStyle = colour.on;
        context.fill();
        context.strokeStyle = colour.panel;
        context.stroke();
      } else {
        context.globalAlpha = clips.length > 2000 ? 0.5 : 1;
        context.strokeStyle = colour.off;
        context.lineWidth = 1.5;
        context.stroke();
        context.lineWidth = 1;
        context.globalAlpha = 1;
      }
    }
    if (this.current !== null) {
      dot(this.current, radius + 4);
      context.strokeStyle = colour.ink;
      context.lineWidth = 2;
      context.stroke();
    }
  }

  hit(x, y) {
    let nearest = null, least = 18 ** 2;
    this.clips.forEach((clip, index) => {
      const distance = (this.x(clip.magnitude) - x) ** 2 + (this.y(clip.mean) - y) ** 2;
      if (distance < least) [nearest, least] = [index, distance];
    });
    return nearest;
  }

  place(index) {
    return [this.x(this.clips[index].magnitude), this.y(this.clips[index].mean)];
  }
}
