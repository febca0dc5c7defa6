// Clips in step, each with a map over it: the motion mask or the influence heat of the frame on display.

import { bytes, get, posterOf, sampledOf } from "./api.js";
import { h, icon, reducedMotion } from "./dom.js";

const NUDGE = 0.03, SEEK = 0.25; // seconds of drift that a changed rate or a seek puts right

/** RGBA for 0…255: violet over red to yellow, lightness rising evenly (OKLCH), opacity = value. */
const HEAT = ramp((t) => [0.34 + 0.6 * t, 0.15 + 0.05 * Math.sin(Math.PI * t), 292 + 170 * t]);
/** The same for what pulls the other way: deep to pale blue. */
const COLD = ramp((t) => [0.3 + 0.55 * t, 0.13 - 0.03 * t, 262 - 50 * t]);

function ramp(lchOf) {
  const table = new Uint8ClampedArray(4 * 256);
  for (let i = 0; i < 256; i++) {
    const [lightness, chroma, degrees] = lchOf(i / 255);
    const hue = (degrees * Math.PI) / 180;
    const a = chroma * Math.cos(hue), b = chroma * Math.sin(hue);
    // OKLab to linear sRGB (Björn Ottosson, "A perceptual color space for image processing").
    const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
    const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
    const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
    [
      4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
      -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
      -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
    ].forEach((linear, channel) => {
      const v = Math.min(1, Math.max(0, linear));
      table[4 * i + channel] = 255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055);
    });
    table[4 * i + 3] = i;
  }
  return table;
}

const maskCache = new Map();

/** The motion mask of a clip: {frames, rows, columns, fps, at(frame, cell) → -255…255}; null for none. */
export function maskOf(id) {
  if (!maskCache.has(id)) {
    if (maskCache.size > 60) maskCache.delete(maskCache.keys().next().value);
    maskCache.set(id, get(`/api/mask/${id}`).then((found) => {
      const [frames, rows, columns] = found.shape;
      return { frames, rows, columns, fps: found.fps, values: bytes(found.values), scale: 1 };
    }).catch(() => null));
  }
  return maskCache.get(id);
}

/** The influence heat of a clip on a query, on the latent grid. Throws why when there is none. */
export async function heatOf(clip, query) {
  const found = await get("/api/explain", { clip, query });
  const [frames, rows, columns] = found.shape;
  const values = new Int8Array(bytes(found.values).buffer);
  return { frames, rows, columns, values, scale: 2, curve: found.curve, best: found.best_interval, covers: found.frame_map, influence: found.influence };
}

/** One clip as the model saw it. */
export class Player {
  constructor(id, { frames, fps, label }) {
    this.id = id;
    this.frames = Math.max(1, frames);
    this.fps = fps || 1;
    this.duration = this.frames / this.fps;
    this.frame = -1;
    this.map = null;
    this.video = h("video", {
      muted: true, playsInline: true, preload: "auto", src: sampledOf(id), poster: posterOf(id),
      disablePictureInPicture: true, tabIndex: -1, aria: { label },
    });
    this.canvas = h("canvas", { className: "overlay", aria: { hidden: "true" } });
    this.element = h("div", { className: "screen" }, this.video, this.canvas);
    this.video.addEventListener("error", () => {
      this.element.replaceChildren(h("p", { className: "absent" }, "this clip cannot be shown: its file changed or is gone"));
    });
    this.presents = "requestVideoFrameCallback" in this.video;
    const onFrame = (_, facts) => {
      this.draw(Math.floor(facts.mediaTime * this.fps + 0.01));
      this.video.requestVideoFrameCallback(onFrame);
    };
    if (this.presents) this.video.requestVideoFrameCallback(onFrame);
  }

  /** Lay a map over the clip; null takes it away. */
  overlay(map) {
    this.map = map;
    this.frame = -1;
    this.canvas.hidden = !map;
    if (!map) return;
    this.canvas.width = map.columns;
    this.canvas.height = map.rows;
    this.draw(Math.floor(this.video.currentTime * this.fps + 0.01));
  }

  draw(frame) {
    if (!this.map || frame === this.frame) return;
    this.frame = frame;
    const { rows, columns, values, scale } = this.map;
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    const offset = this.mapFrame(Math.min(this.frames - 1, Math.max(0, frame))) * rows * columns;
    for (let i = 0; i < rows * columns; i++) {
      const value = scale * values[offset + i];
      const table = value < 0 ? COLD : HEAT;
      const at = 4 * Math.min(255, Math.abs(value));
      for (let channel = 0; channel < 4; channel++) image.data[4 * i + channel] = table[at + channel];
    }
    context.putImageData(image, 0, 0);
  }

  /** The map's frame over a frame of the clip: a latent frame covers several. */
  mapFrame(frame) {
    const { covers, frames } = this.map;
    if (!covers) return Math.min(frame, frames - 1);
    const found = covers.findIndex(([first, after]) => frame >= first && frame < after);
    return found < 0 ? frames - 1 : found;
  }

  goTo(time) {
    const frame = Math.min(this.frames - 1, Math.max(0, Math.floor(time * this.fps + 1e-6)));
    this.video.currentTime = (frame + 0.5) / this.fps;
    if (!this.presents) this.draw(frame);
  }

  follow(time, restart) {
    const { video } = this;
    if (!this.presents) this.draw(Math.floor(video.currentTime * this.fps));
    if (video.seeking || video.readyState < 2) return;
    const resting = video.ended && this.duration - time < 2 / this.fps;
    const late = Math.min(time, this.duration) - video.currentTime;
    if (restart || (Math.abs(late) > SEEK && !resting)) video.currentTime = Math.min(time, this.duration - 0.5 / this.fps);
    const rate = Math.abs(late) > NUDGE && !restart ? 1 + Math.max(-0.3, Math.min(0.3, 2 * late)) : 1;
    if (Math.abs(video.playbackRate - rate) > 0.02) video.playbackRate = rate;
    if (video.paused && (restart || (!resting && time < this.duration))) video.play().catch(() => {});
  }

  close() {
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }
}

/** Players on one clock, with its controls. The longest clip is the round; shorter ones wait at their end. */
export class Deck {
  constructor() {
    this.players = [];
    this.time = 0;
    this.running = false;
    this.button = h("button", { type: "button", className: "icon", onclick: () => this.toggle() });
    this.bar = h("input", {
      type: "range", min: 0, max: 1000, value: 0, className: "scrub", aria: { label: "Position in the clips" },
      oninput: () => {
        const wanted = (this.bar.value / 1000) * this.duration; // pausing shows the time, which sets the bar
        this.pause();
        this.goTo(wanted);
      },
    });
    this.clock = h("span", { className: "clock quiet" });
    this.controls = h("div", { className: "transport" },
      h("button", { type: "button", className: "icon", title: "One frame back", aria: { label: "One frame back" }, onclick: () => this.step(-1) }, icon("back")),
      this.button,
      h("button", { type: "button", className: "icon", title: "One frame on", aria: { label: "One frame on" }, onclick: () => this.step(1) }, icon("forward")),
      this.bar, this.clock);
    this.show();
  }

  get duration() {
    return Math.max(0.04, ...this.players.map((player) => player.duration));
  }

  add(player) {
    this.players.push(player);
    return player;
  }

  start() {
    if (reducedMotion.matches) this.goTo(0);
    else this.play();
  }

  play() {
    if (this.running) return;
    this.running = true;
    this.before = performance.now();
    if (this.time >= this.duration - 1e-3) this.time = 0;
    const tick = (now) => {
      if (!this.running) return;
      this.time += Math.min(0.25, (now - this.before) / 1000);
      this.before = now;
      const restart = this.time >= this.duration;
      if (restart) this.time = 0;
      for (const player of this.players) player.follow(this.time, restart);
      this.show();
      this.timer = requestAnimationFrame(tick);
    };
    this.timer = requestAnimationFrame(tick);
    this.show();
  }

  pause() {
    this.running = false;
    cancelAnimationFrame(this.timer);
    for (const player of this.players) player.video.pause();
    this.show();
  }

  toggle() {
    if (this.running) this.pause();
    else this.play();
  }

  step(frames) {
    this.pause();
    const fps = this.players[0]?.fps || 16;
    this.goTo(Math.min(this.duration, Math.max(0, Math.round(this.time * fps + frames) / fps)));
  }

  goTo(time) {
    this.time = time;
    for (const player of this.players) player.goTo(Math.min(time, player.duration - 0.5 / player.fps));
    this.show();
  }

  show() {
    const label = this.running ? "Pause" : "Play";
    if (this.button.title !== label) {
      this.button.title = label;
      this.button.setAttribute("aria-label", label);
      this.button.replaceChildren(icon(this.running ? "pause" : "play"));
    }
    this.bar.value = Math.round((1000 * this.time) / this.duration);
    this.clock.textContent = `${this.time.toFixed(2)} / ${this.duration.toFixed(2)} s`;
    this.onTime?.(this.time);
  }

  close() {
    this.pause();
    for (const player of this.players) player.close();
    this.players = [];
  }
}

/** A choice of what lies over the clips. `change(kind)` with none, mask or heat. */
export function overlaySwitch(kind, change) {
  const kinds = [["none", "Clip"], ["mask", "Motion mask"], ["heat", "Influence heat"]];
  const name = `overlay-${Math.random().toString(36).slice(2)}`;
  return h("fieldset", { className: "switch" }, h("legend", { className: "sr" }, "Over the clips"),
    kinds.map(([value, label]) => h("label", {},
      h("input", { type: "radio", name, value, checked: value === kind, onchange: () => change(value) }),
      h("span", {}, label))));
}
