// Drawings: scatter plots that can be hovered, zoomed and lassoed, and curves over time.

import { posterOf, get } from "./api.js";
import { colour, h, number, shortName } from "./dom.js";
import { store } from "./store.js";

/** Of categories, told apart by lightness too (Okabe and Ito's set, reordered). */
const CATEGORIES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f", "#b8a800", "#9aa4ad"];

/** Colour of t in 0…1 on the page's ground: from pale to deep teal through blue. */
export function sequential(t) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const lightness = dark ? 38 + 47 * t : 82 - 50 * t;
  return `oklch(${lightness}% ${0.05 + 0.09 * t} ${250 - 70 * t})`;
}

export const category = (code) => (code < 0 ? "#9aa4ad" : CATEGORIES[code % CATEGORIES.length]);

export function fit(canvas, height) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth || 300;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

export function drawCurve(canvas, curve, [from, to], frame) {
  const [context, width, height] = fit(canvas, 70);
  const low = Math.min(0, ...curve), high = Math.max(1e-12, ...curve);
  const x = (f) => (width * f) / curve.length;
  const y = (v) => height - 4 - ((height - 8) * (v - low)) / (high - low);
  context.fillStyle = colour("--on-soft");
  context.fillRect(x(from), 0, x(to) - x(from), height);
  context.strokeStyle = colour("--rule");
  context.beginPath();
  context.moveTo(0, y(0));
  context.lineTo(width, y(0));
  context.stroke();
  context.strokeStyle = colour("--on-ink");
  context.lineWidth = 2;
  context.beginPath();
  curve.forEach((v, f) => (f ? context.lineTo(x(f + 0.5), y(v)) : context.moveTo(x(f + 0.5), y(v))));
  context.stroke();
  context.fillStyle = colour("--ink");
  context.fillRect(Math.min(width - 2, x(frame)), 0, 1.5, height);
}

/** Points on a plane. `points`: {x, y, positions, paint(i)}; `lasso(polygon)` in the points' coordinates. */
export class Scatter {
  constructor({ open, lasso = null, axes = null, label }) {
    this.open = open;
    this.lasso = lasso;
    this.axes = axes;
    this.canvas = h("canvas", { className: "scatter", tabIndex: 0, attrs: { role: "img", "aria-label": label } });
    this.tip = h("div", { className: "tip", hidden: true });
    this.element = h("div", { className: "plot" }, this.canvas, this.tip);
    this.mode = lasso ? "lasso" : "pan";
    this.trail = [];
    this.view = null;
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", () => { this.trail = []; this.held = null; this.draw(); });
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    canvas.addEventListener("wheel", (event) => this.zoom(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.element);
  }

  show(points) {
    this.points = points;
    this.view = null;
    this.trail = [];
    this.draw();
  }

  repaint(paint) {
    this.points.paint = paint;
    this.draw();
  }

  fitView() {
    const { x, y } = this.points;
    const span = (values) => {
      let low = Infinity, high = -Infinity;
      for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
      if (!(high > low)) { low -= 1; high += 1; }
      const pad = 0.04 * (high - low);
      return [low - pad, high + pad];
    };
    const [left, right] = x.length ? span(x) : [0, 1];
    const [bottom, top] = y.length ? span(y) : [0, 1];
    this.view = { left, right, bottom, top };
  }

  get inset() {
    return this.axes ? { left: 58, bottom: 42, right: 10, top: 10 } : { left: 6, bottom: 6, right: 6, top: 6 };
  }

  sx(value) {
    const { left, right } = this.view;
    return this.inset.left + ((value - left) / (right - left)) * (this.width - this.inset.left - this.inset.right);
  }

  sy(value) {
    const { bottom, top } = this.view;
    return this.height - this.inset.bottom - ((value - bottom) / (top - bottom)) * (this.height - this.inset.bottom - this.inset.top);
  }

  vx(pixel) {
    const { left, right } = this.view;
    return left + ((pixel - this.inset.left) / (this.width - this.inset.left - this.inset.right)) * (right - left);
  }

  vy(pixel) {
    const { bottom, top } = this.view;
    return bottom + ((this.height - this.inset.bottom - pixel) / (this.height - this.inset.bottom - this.inset.top)) * (top - bottom);
  }

  draw() {
    if (!this.points || !this.canvas.clientWidth) return;
    const [context, width, height] = fit(this.canvas, this.canvas.clientHeight || 400);
    this.width = width;
    this.height = height;
    if (!this.view) this.fitView();
    const { x, y, paint } = this.points;
    if (this.axes) this.drawAxes(context);
    const radius = x.length > 8000 ? 1.6 : x.length > 1500 ? 2.4 : 4;
    context.globalAlpha = x.length > 8000 ? 0.6 : 0.85;
    for (let i = 0; i < x.length; i++) {
      const px = this.sx(x[i]), py = this.sy(y[i]);
      if (px < -5 || py < -5 || px > width + 5 || py > height + 5) continue;
      context.fillStyle = paint(i);
      context.beginPath();
      context.arc(px, py, radius, 0, 6.2832);
      context.fill();
    }
    context.globalAlpha = 1;
    if (this.trail.length > 1) {
      context.beginPath();
      this.trail.forEach(([tx, ty], i) => (i ? context.lineTo(this.sx(tx), this.sy(ty)) : context.moveTo(this.sx(tx), this.sy(ty))));
      context.closePath();
      context.fillStyle = colour("--lasso");
      context.fill();
      context.strokeStyle = colour("--ink");
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.stroke();
      context.setLineDash([]);
    }
  }

  drawAxes(context) {
    const { left, bottom, top, right } = this.inset;
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    context.fillStyle = colour("--ink-2");
    context.strokeStyle = colour("--rule");
    context.lineWidth = 1;
    const ticks = (low, high) => {
      const step = 10 ** Math.floor(Math.log10((high - low) / 4));
      const nice = [1, 2, 5, 10].map((m) => m * step).find((s) => (high - low) / s <= 6);
      const found = [];
      for (let v = Math.ceil(low / nice) * nice; v <= high; v += nice) found.push([v, Math.max(0, -Math.floor(Math.log10(nice)))]);
      return found;
    };
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const [v, digits] of ticks(this.view.left, this.view.right)) {
      context.beginPath();
      context.moveTo(this.sx(v), top);
      context.lineTo(this.sx(v), this.height - bottom);
      context.stroke();
      context.fillText(number(v, digits), this.sx(v), this.height - bottom + 5);
    }
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const [v, digits] of ticks(this.view.bottom, this.view.top)) {
      context.beginPath();
      context.moveTo(left, this.sy(v));
      context.lineTo(this.width - right, this.sy(v));
      context.stroke();
      context.fillText(number(v, digits), left - 6, this.sy(v));
    }
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.fillText(this.axes.x, left + (this.width - left) / 2, this.height - 3);
    context.save();
    context.translate(12, (this.height - bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(this.axes.y, 0, 4);
    context.restore();
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  nearest([px, py]) {
    const { x, y } = this.points;
    let best = -1, least = 144;
    for (let i = 0; i < x.length; i++) {
      const d = (this.sx(x[i]) - px) ** 2 + (this.sy(y[i]) - py) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }

  down(event) {
    if (event.button !== 0 || !this.view) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.held = { from: this.at(event), view: { ...this.view }, moved: false };
    this.trail = [];
  }

  move(event) {
    const here = this.at(event);
    if (!this.held) return void this.hover(here);
    const [fx, fy] = this.held.from;
    if (Math.hypot(here[0] - fx, here[1] - fy) > 4) this.held.moved = true;
    if (!this.held.moved) return;
    this.tip.hidden = true;
    if (this.mode === "lasso") this.trail.push([this.vx(here[0]), this.vy(here[1])]);
    else {
      const v = this.held.view;
      const dx = ((here[0] - fx) / this.width) * (v.right - v.left), dy = ((here[1] - fy) / this.height) * (v.top - v.bottom);
      this.view = { left: v.left - dx, right: v.right - dx, bottom: v.bottom + dy, top: v.top + dy };
    }
    this.draw();
  }

  async up(event) {
    const { held } = this;
    this.held = null;
    if (!held) return;
    if (!held.moved) {
      const i = this.nearest(this.at(event));
      if (i >= 0) this.open((await get(`/api/at/${this.points.positions[i]}`)).clip_id);
    } else if (this.mode === "lasso" && this.trail.length > 2) this.lasso(this.trail.slice(0, 4000));
  }

  zoom(event, factor = Math.exp(Math.max(-50, Math.min(50, event.deltaY)) / 250)) {
    if (!this.view) return;
    event.preventDefault();
    const [px, py] = event.clientX === undefined ? [this.width / 2, this.height / 2] : this.at(event);
    const x = this.vx(px), y = this.vy(py);
    const { left, right, bottom, top } = this.view;
    this.view = { left: x + (left - x) * factor, right: x + (right - x) * factor, bottom: y + (bottom - y) * factor, top: y + (top - y) * factor };
    this.draw();
  }

  onKey(event) {
    const factor = { "+": 0.8, "=": 0.8, "-": 1.25 }[event.key];
    if (factor) this.zoom({ preventDefault: () => event.preventDefault(), deltaY: 0 }, factor);
    else if (event.key === "0") { this.view = null; this.draw(); }
  }

  async hover(here) {
    if (!this.points || !this.view) return;
    const i = this.nearest(here);
    this.canvas.style.cursor = i >= 0 ? "pointer" : this.mode === "lasso" ? "crosshair" : "grab";
    if (i === this.hovered && !this.tip.hidden) return;
    this.hovered = i;
    if (i < 0) return void (this.tip.hidden = true);
    const row = await get(`/api/at/${this.points.positions[i]}`);
    if (this.hovered !== i || this.held) return;
    this.tip.replaceChildren(h("img", { src: posterOf(row.clip_id), alt: "" }), h("b", {}, `Rank ${row.rank}`), h("span", {}, shortName(row.file_name)), h("span", { className: "quiet" }, `score ${store.score(row.mean_score)}`));
    const x = this.sx(this.points.x[i]), y = this.sy(this.points.y[i]);
    this.tip.style.left = `${Math.min(this.width - 150, Math.max(4, x + 12))}px`;
    this.tip.style.top = `${Math.min(this.height - 150, Math.max(4, y - 60))}px`;
    this.tip.hidden = false;
  }

  close() {
    this.observer.disconnect();
  }
}
