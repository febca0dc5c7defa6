// Playback: previews decoded on first use, players with the mask on top, decks that keep players in step.

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

// Seconds of drift that are corrected by a slightly different rate, and by a seek.
const NUDGE = 0.03;
const SEEK = 0.25;

function bytesFromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer().then((buffer) => new Uint8Array(buffer));
}

const previewBlocks = document.getElementsByClassName("preview-data");
const previewCache = new Map();

/** Preview number `index`: {url, fps, frames, height, width, duration, mask: Promise of bytes}. */
function previewAt(index) {
  if (!previewCache.has(index)) {
    const block = previewBlocks[index];
    const [mp4, mask] = block.textContent.split(" ");
    const [frames, height, width] = block.dataset.shape.split(",").map(Number);
    const fps = Number(block.dataset.fps);
    previewCache.set(index, {
      url: URL.createObjectURL(new Blob([bytesFromBase64(mp4)], { type: "video/mp4" })),
      fps, frames, height, width,
      duration: frames / fps,
      mask: inflate(bytesFromBase64(mask)).catch(() => null),
    });
  }
  return previewCache.get(index);
}

/** RGBA for mask values 0…255: violet over red to yellow, lightness rising evenly (OKLCH), alpha = value. */
const HEAT = (() => {
  const table = new Uint8ClampedArray(4 * 256);
  for (let i = 0; i < 256; i++) {
    const t = i / 255;
    const lightness = 0.34 + 0.6 * t;
    const chroma = 0.15 + 0.05 * Math.sin(Math.PI * t);
    const hue = ((292 + 170 * t) * Math.PI) / 180;
    const a = chroma * Math.cos(hue), b = chroma * Math.sin(hue);
    // OKLab to linear sRGB (Björn Ottosson, "A perceptual color space for image processing").
    const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
    const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
    const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
    const linear = [
      4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
      -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
      -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
    ];
    linear.forEach((value, channel) => {
      const v = Math.min(1, Math.max(0, value));
      table[4 * i + channel] = 255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055);
    });
    table[4 * i + 3] = i;
  }
  return table;
})();

/** A muted video in `screen` with the mask of the frame that is on display above it. */
class Player {
  constructor(screen, index) {
    const preview = previewAt(index);
    this.preview = preview;
    this.screen = screen;
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true, preload: "auto", src: preview.url });
    this.video.disablePictureInPicture = true;
    this.video.tabIndex = -1;
    this.canvas = document.createElement("canvas");
    this.canvas.width = preview.width;
    this.canvas.height = preview.height;
    this.context = this.canvas.getContext("2d");
    this.frame = -1;
    screen.replaceChildren(this.video, this.canvas);
    this.video.addEventListener("error", () => {
      const absent = document.createElement("span");
      absent.className = "absent";
      absent.textContent = "this browser cannot play H.264";
      screen.replaceChildren(absent);
    }, { once: true });
    this.presents = "requestVideoFrameCallback" in this.video;
    if (this.presents) {
      const onFrame = (_, metadata) => {
        this.draw(metadata.mediaTime);
        this.video.requestVideoFrameCallback(onFrame);
      };
      this.video.requestVideoFrameCallback(onFrame);
    }
    preview.mask.then((mask) => {
      this.mask = mask;
      this.frame = -1;
      this.draw(this.video.currentTime);
    });
  }

  /** Draw the mask of the frame shown at `time`, unless it is there already. */
  draw(time) {
    const { fps, frames, height, width } = this.preview;
    const frame = Math.min(frames - 1, Math.max(0, Math.floor(time * fps + 0.01)));
    if (!this.mask || frame === this.frame) return;
    this.frame = frame;
    const image = this.context.createImageData(width, height);
    const offset = frame * height * width;
    for (let i = 0; i < height * width; i++) {
      const value = 4 * this.mask[offset + i];
      for (let channel = 0; channel < 4; channel++) image.data[4 * i + channel] = HEAT[value + channel];
    }
    this.context.putImageData(image, 0, 0);
  }

  /** Show the frame of `time` while paused; its middle, so that rounding cannot show a neighbour. */
  goTo(time) {
    const { fps, frames } = this.preview;
    const frame = Math.min(frames - 1, Math.floor(time * fps + 1e-6));
    this.video.currentTime = (frame + 0.5) / fps;
    if (!this.presents) this.draw(frame / fps);
  }

  /** Let the running video follow the deck's clock. */
  follow(time, rate, restart) {
    const { video, preview } = this;
    if (!this.presents) this.draw(video.currentTime);
    if (video.seeking || video.readyState < 2) return;
    const late = time - video.currentTime;
    const resting = video.ended && preview.duration - time < 2 / preview.fps;
    if (restart || (Math.abs(late) > SEEK && !resting)) video.currentTime = time;
    const nudged = Math.abs(late) > NUDGE && !restart ? 1 + Math.max(-0.3, Math.min(0.3, 2 * late)) : 1;
    const wanted = Math.min(16, Math.max(0.0625, rate * nudged));
    if (Math.abs(video.playbackRate - wanted) > 0.02) video.playbackRate = wanted;
    if (video.paused && !(resting && !restart)) video.play().catch(() => {});
  }

  dispose() {
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    this.screen.replaceChildren();
  }
}

/**
 * Players on one clock of `duration` seconds; when it starts over, all start over.
 * A shorter clip repeats and a longer one is cut, unless `stretch` gives all of them the same length.
 */
class Deck {
  constructor(root, players, duration, onChange) {
    Object.assign(this, { root, players, duration, onChange });
    this.time = 0;
    this.playing = false;
    this.stretch = false;
    this.visible = false;
    this.request = 0;
    this.observer = new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting;
      this.wake();
    });
    this.observer.observe(root);
    this.onVisibility = () => this.wake();
    document.addEventListener("visibilitychange", this.onVisibility);
    for (const player of players) player.goTo(0);
  }

  play() {
    this.playing = true;
    this.wake();
    this.onChange(this);
  }

  pause() {
    this.playing = false;
    this.wake();
    this.onChange(this);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  seek(time) {
    this.playing = false;
    this.wake();
    this.time = Math.min(Math.max(0, time), this.duration * (1 - 1e-6));
    for (const player of this.players) player.goTo(this.position(player));
    this.onChange(this);
  }

  setStretch(stretch) {
    this.stretch = stretch;
    if (!this.playing) this.seek(this.time);
  }

  /** Where `player` should be now, in seconds of its own clip. */
  position(player) {
    const own = player.preview.duration;
    return this.stretch ? (this.time / this.duration) * own : this.time % own;
  }

  /** Run if playing and in view, rest otherwise. */
  wake() {
    const run = this.playing && this.visible && !document.hidden;
    if (run && !this.request) {
      this.last = performance.now();
      this.request = requestAnimationFrame((now) => this.step(now));
    } else if (!run) {
      cancelAnimationFrame(this.request);
      this.request = 0;
      for (const player of this.players) player.video.pause();
    }
  }

  step(now) {
    // A pause of the page must not become a jump.
    this.time += Math.min(0.1, Math.max(0, now - this.last) / 1000);
    this.last = now;
    const restart = this.time >= this.duration;
    if (restart) this.time %= this.duration;
    for (const player of this.players) {
      const rate = this.stretch ? player.preview.duration / this.duration : 1;
      player.follow(this.position(player), rate, restart);
    }
    this.onChange(this);
    this.request = requestAnimationFrame((next) => this.step(next));
  }

  dispose() {
    this.playing = false;
    this.wake();
    this.observer.disconnect();
    document.removeEventListener("visibilitychange", this.onVisibility);
    for (const player of this.players) player.dispose();
  }
}

/** A play button, a scrubber and a clock that drive whichever deck they are given. */
class Transport {
  constructor(button, scrub, output) {
    Object.assign(this, { button, scrub, output, deck: null });
    button.addEventListener("click", () => this.deck?.toggle());
    scrub?.addEventListener("input", () => this.deck?.seek((scrub.value / 1000) * this.deck.duration));
  }

  show(deck) {
    if (this.deck && deck !== this.deck) return;
    this.button.classList.toggle("playing", deck.playing);
    this.button.setAttribute("aria-label", deck.playing ? "Pause" : "Play");
    if (this.scrub && document.activeElement !== this.scrub) this.scrub.value = (1000 * deck.time) / deck.duration;
    if (this.scrub && deck.playing) this.scrub.value = (1000 * deck.time) / deck.duration;
    const text = `${deck.time.toFixed(1)} / ${deck.duration.toFixed(1)} s`;
    if (this.output && this.output.textContent !== text) this.output.textContent = text;
  }
}

/** A deck over all screens under `root` that have a preview; null if there is none. */
function buildDeck(root, screens, leader, transport) {
  const players = screens.map((screen) => new Player(screen, Number(screen.dataset.preview)));
  if (!players.length) return null;
  const duration = leader === null
    ? Math.max(...players.map((player) => player.preview.duration))
    : previewAt(leader).duration;
  const deck = new Deck(root, players, duration, (changed) => transport.show(changed));
  transport.deck = deck;
  transport.show(deck);
  if (!reducedMotion.matches) deck.play();
  return deck;
}
