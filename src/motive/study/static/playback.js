// Two videos as one: they start together, stay together, and end when the longer one has ended.

const LOOSE = 0.02; // seconds apart that nobody sees
const FAR = 0.15; // from here on a jump is better than a gentle catching up
const PAUSE_BEFORE_REPLAY = 800; // ms on the last frames

export class Together {
  /** changed() is called when what the controls show has changed; seen() when both have been watched. */
  constructor(left, right, { changed, seen, loops }) {
    this.videos = [left, right];
    this.changed = changed;
    this.seen = seen;
    this.loops = loops;
    this.rate = 1;
    this.playing = false;
    this.addresses = [];
    this.follow = this.follow.bind(this);
  }

  /** Load both as a whole, so that no network stands between them; throws when one cannot be had. */
  async load(sources) {
    this.pause();
    const files = await Promise.all(sources.map(async (source) => {
      const response = await fetch(source);
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      return response.blob();
    }));
    this.addresses.forEach((address) => URL.revokeObjectURL(address));
    this.addresses = files.map((file) => URL.createObjectURL(file));
    await Promise.all(this.videos.map((video, i) => new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = () => reject(new Error("the video cannot be played"));
      video.src = this.addresses[i];
      video.load();
    })));
    this.videos.forEach((video) => { video.playbackRate = this.rate; });
    this.changed();
  }

  get longest() {
    const [left, right] = this.videos;
    return (left.duration || 0) >= (right.duration || 0) ? left : right;
  }

  get duration() { return this.longest.duration || 0; }

  get time() { return this.longest.currentTime; }

  /** Width over height of the wider video. */
  get ratio() { return Math.max(...this.videos.map((video) => video.videoWidth / video.videoHeight)); }

  get ended() { return this.videos.every((video) => video.ended); }

  async play() {
    clearTimeout(this.again);
    if (this.ended) this.seek(0);
    this.playing = true;
    this.changed();
    try {
      await Promise.all(this.videos.filter((video) => !video.ended).map((video) => video.play()));
      requestAnimationFrame(this.follow);
    } catch {
      this.pause(); // some browsers play nothing before the person has touched the page
    }
  }

  pause() {
    clearTimeout(this.again);
    this.playing = false;
    this.videos.forEach((video) => video.pause());
    this.changed();
  }

  replay() {
    this.seek(0);
    return this.play();
  }

  /** Both to a time in seconds; the shorter one waits on its last frame. */
  seek(time) {
    for (const video of this.videos) video.currentTime = Math.min(time, video.duration || 0);
    this.changed();
  }

  setRate(rate) {
    this.rate = rate;
    this.videos.forEach((video) => { video.playbackRate = rate; });
  }

  follow() {
    if (!this.playing) return;
    if (this.ended) {
      this.playing = false;
      this.changed();
      this.seen();
      if (this.loops()) this.again = setTimeout(() => this.replay(), PAUSE_BEFORE_REPLAY);
      return;
    }
    this.keepStep();
    this.changed();
    requestAnimationFrame(this.follow);
  }

  keepStep() {
    const [first, second] = this.videos;
    if (first.ended || second.ended) return;
    const ahead = second.currentTime - first.currentTime;
    if (Math.abs(ahead) > FAR) second.currentTime = first.currentTime;
    const nudge = Math.abs(ahead) > LOOSE ? Math.max(-0.2, Math.min(0.2, 2 * ahead)) : 0;
    second.playbackRate = this.rate * (1 - nudge);
  }
}
