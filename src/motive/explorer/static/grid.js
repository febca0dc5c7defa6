// A grid of any number of clips: only those in sight are there, and the scroll bar is scaled when the
// whole would be taller than browsers allow.

import { get } from "./api.js";
import { makeCard, markCard } from "./card.js";
import { h, toast } from "./dom.js";
import { store } from "./store.js";

const TALLEST = 4_000_000; // pixels; browsers cap elements above 16 million, and far places are drawn coarsely
const CHUNK = 120; // rows asked for at a time
const KEPT_CHUNKS = 60;
const GAP = 14;
const BASE_ROWS = 500; // cards are placed from a nearby row, so that positions stay exact

export class Grid {
  constructor(open) {
    this.open = open;
    this.total = 0;
    this.chunks = new Map();
    this.cards = new Map();
    this.generation = 0;
    this.top = 0; // of the view in the unscaled grid, pixels
    this.base = 0; // of the sheet in the unscaled grid, pixels
    this.space = h("div", { className: "space" });
    this.sheet = h("div", { className: "sheet", attrs: { role: "list", "aria-label": "Clips" } });
    this.empty = h("p", { className: "empty", hidden: true }, "No clip passes the filter.");
    this.element = h("div", { className: "scroller", tabIndex: 0, aria: { label: "Clips, scrollable" }, attrs: { role: "region" } }, this.space, this.sheet, this.empty);
    this.element.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.element.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.element.addEventListener("keydown", (event) => this.onKey(event));
    this.observer = new ResizeObserver(() => this.layout());
    this.observer.observe(this.element);
  }

  get params() {
    return { sort: store.sort, order: store.order, filter: store.filterText };
  }

  /** Ask anew; from the top unless `keep`. */
  async reload({ keep = false } = {}) {
    const generation = ++this.generation;
    this.aborter?.abort();
    this.aborter = new AbortController();
    const first = keep ? Math.floor(this.firstShown / CHUNK) : 0;
    try {
      const found = await get("/api/rows", { ...this.params, offset: first * CHUNK, limit: CHUNK }, this.aborter.signal);
      if (generation !== this.generation) return;
      this.chunks = new Map([[first, found.rows]]);
      this.total = found.total;
      for (const card of this.cards.values()) this.drop(card);
      this.cards.clear();
      if (!keep) this.top = this.element.scrollTop = 0;
      this.layout();
      store.tell("total", this.total);
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, { wrong: true });
    }
  }

  /** Rows that are there with new decisions; nothing moves. */
  async refresh() {
    const generation = this.generation;
    const shown = [...new Set([...this.cards.keys()].map((index) => Math.floor(index / CHUNK)))];
    for (const chunk of [...this.chunks.keys()]) if (!shown.includes(chunk)) this.chunks.delete(chunk);
    for (const chunk of shown) {
      const found = await get("/api/rows", { ...this.params, offset: chunk * CHUNK, limit: CHUNK });
      if (generation !== this.generation) return;
      if (found.total !== this.total) return void this.reload({ keep: true });
      this.chunks.set(chunk, found.rows);
    }
    for (const [index, card] of this.cards) {
      const row = this.row(index);
      if (!row) continue;
      if (row.clip_id !== card.dataset.id || (row.note || "") !== card.note) {
        this.drop(card);
        this.cards.delete(index);
      } else {
        Object.assign(card.row, row);
        markCard(card, row);
      }
    }
    this.render();
  }

  layout() {
    const style = getComputedStyle(this.element);
    const width = this.element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    if (width <= 0) return;
    const least = width < 560 ? 150 : 196;
    const before = this.columns ? this.firstShown : 0;
    this.columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    this.cellWidth = (width - GAP * (this.columns - 1)) / this.columns;
    this.cellHeight = Math.round(this.cellWidth / this.shape) + 108;
    this.pitch = this.cellHeight + GAP;
    this.rows = Math.ceil(this.total / this.columns);
    this.height = Math.max(0, this.rows * this.pitch - GAP) + 2 * GAP;
    const shown = Math.min(this.height, TALLEST);
    this.space.style.height = `${shown}px`;
    const seen = this.element.clientHeight;
    this.scale = this.height > TALLEST ? (this.height - seen) / (TALLEST - seen) : 1;
    this.empty.hidden = this.total > 0;
    this.top = Math.min(Math.floor(before / this.columns) * this.pitch, Math.max(0, this.height - seen));
    if (this.scale === 1) this.top = Math.min(this.top || this.element.scrollTop, Math.max(0, this.height - seen));
    this.place();
    for (const [index, card] of this.cards) this.position(card, index);
    this.render();
  }

  /** Heights of cards follow from the clips' own shape, within what a grid can show. */
  get shape() {
    return Math.min(16 / 9, Math.max(0.8, store.run.aspect));
  }

  get firstShown() {
    return Math.max(0, Math.floor(this.top / (this.pitch || 1))) * (this.columns || 1);
  }

  /** The scroll bar where `top` says. */
  place() {
    this.expected = Math.round(this.top / this.scale);
    this.element.scrollTop = this.expected;
    this.last = this.element.scrollTop;
  }

  onScroll() {
    const now = this.element.scrollTop;
    if (this.scale === 1) this.top = now;
    else if (Math.abs(now - this.last) > 0.5 && Math.abs(now - this.expected) > 1) {
      const moved = now - this.last;
      const far = Math.abs(moved) > 2 * this.element.clientHeight;
      // The bar was dragged: go where it points. A finger moves the clips as far as it moves itself.
      const end = now <= 0 || now >= TALLEST - this.element.clientHeight - 1;
      this.top = far || (end && Math.abs(this.top - now * this.scale) < 4000) ? now * this.scale : this.clamp(this.top + moved);
      clearTimeout(this.settling);
      this.settling = setTimeout(() => this.place(), 160);
    }
    this.last = now;
    this.schedule();
  }

  onWheel(event) {
    if (this.scale === 1 || event.ctrlKey) return;
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 36 : event.deltaMode === 2 ? this.element.clientHeight : 1;
    this.goTo(this.top + event.deltaY * unit);
  }

  onKey(event) {
    const index = this.indexOf(document.activeElement);
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns };
    if (index !== null && event.key in steps && document.activeElement.matches(".screen")) {
      event.preventDefault();
      this.focus(Math.min(this.total - 1, Math.max(0, index + steps[event.key])));
      return;
    }
    const jumps = { PageDown: this.top + this.element.clientHeight * 0.9, PageUp: this.top - this.element.clientHeight * 0.9, Home: 0, End: this.height };
    if (event.key in jumps && !event.target.matches("input, textarea")) {
      event.preventDefault();
      this.goTo(jumps[event.key]);
    }
  }

  clamp(top) {
    return Math.min(Math.max(0, top), Math.max(0, this.height - this.element.clientHeight));
  }

  goTo(top) {
    this.top = this.clamp(top);
    this.place();
    this.schedule();
  }

  /** Bring a clip into sight and give it the focus. */
  focus(index) {
    const start = Math.floor(index / this.columns) * this.pitch;
    if (start < this.top) this.goTo(start);
    else if (start + this.cellHeight > this.top + this.element.clientHeight) this.goTo(start + this.cellHeight + 2 * GAP - this.element.clientHeight);
    this.render();
    this.cards.get(index)?.querySelector(".screen").focus({ preventScroll: true });
  }

  indexOf(element) {
    const card = element?.closest?.(".card");
    return card && this.sheet.contains(card) ? card.index : null;
  }

  schedule() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      this.render();
    });
  }

  row(index) {
    return this.chunks.get(Math.floor(index / CHUNK))?.[index % CHUNK];
  }

  render() {
    if (!this.columns) return;
    const seen = this.element.clientHeight;
    const from = Math.max(0, Math.floor((this.top - seen * 0.4) / this.pitch)) * this.columns;
    const to = Math.min(this.total, Math.ceil((this.top + seen * 1.4) / this.pitch) * this.columns);
    const base = Math.floor(Math.floor(this.top / this.pitch) / BASE_ROWS) * BASE_ROWS * this.pitch;
    if (base !== this.base) {
      this.base = base;
      for (const [index, card] of this.cards) this.position(card, index);
    }
    this.sheet.style.transform = `translateY(${this.element.scrollTop - this.top + base}px)`;
    for (const [index, card] of this.cards) {
      if (index < from || index >= to) {
        this.drop(card);
        this.cards.delete(index);
      }
    }
    const wanted = new Set();
    for (let index = from; index < to; index++) {
      if (this.cards.has(index)) continue;
      const row = this.row(index);
      if (!row) wanted.add(Math.floor(index / CHUNK));
      else this.add(index, row);
    }
    if (wanted.size) this.fetch([...wanted]);
  }

  add(index, row) {
    const column = store.sort.startsWith("score:") ? row[store.sort] : null;
    const card = makeCard(row, { open: (r) => this.open(r, index), pick: true, extra: column === null || column === undefined ? "" : store.score(column, 3, false) });
    card.index = index;
    card.row = row;
    card.note = row.note || "";
    card.setAttribute("role", "listitem");
    card.setAttribute("aria-setsize", this.total);
    card.setAttribute("aria-posinset", index + 1);
    this.position(card, index);
    this.cards.set(index, card);
    this.sheet.append(card);
  }

  position(card, index) {
    const x = (index % this.columns) * (this.cellWidth + GAP);
    const y = Math.floor(index / this.columns) * this.pitch + GAP - this.base;
    card.style.width = `${this.cellWidth}px`;
    card.style.height = `${this.cellHeight}px`;
    card.style.transform = `translate(${x}px, ${y}px)`;
    card.style.setProperty("--screen", `${Math.round(this.cellWidth / this.shape)}px`);
  }

  drop(card) {
    card.stop();
    card.remove();
  }

  fetch(chunks) {
    clearTimeout(this.asking);
    // While the bar is dragged, what only flies by is not asked for.
    this.asking = setTimeout(async () => {
      const generation = this.generation;
      this.pageAborter?.abort();
      this.pageAborter = new AbortController();
      try {
        await Promise.all(chunks.map(async (chunk) => {
          const found = await get("/api/rows", { ...this.params, offset: chunk * CHUNK, limit: CHUNK }, this.pageAborter.signal);
          if (generation !== this.generation) return;
          this.chunks.set(chunk, found.rows);
          while (this.chunks.size > KEPT_CHUNKS) this.chunks.delete(this.chunks.keys().next().value);
        }));
        if (generation === this.generation) this.render();
      } catch (error) {
        if (error.name !== "AbortError") toast(error.message, { wrong: true });
      }
    }, 40);
  }

  /** Marks of selection, without asking. */
  mark() {
    for (const card of this.cards.values()) markCard(card, card.row);
  }

  /** The ids between two clips that are loaded, in the grid's order. */
  between(from, to) {
    const places = new Map();
    for (const [chunk, rows] of this.chunks) rows.forEach((row, i) => places.set(row.clip_id, chunk * CHUNK + i));
    if (!places.has(from) || !places.has(to)) return [to];
    const [low, high] = [places.get(from), places.get(to)].sort((a, b) => a - b);
    const ids = [];
    for (let index = low; index <= high; index++) {
      const row = this.row(index);
      if (row) ids.push(row.clip_id);
    }
    return ids;
  }

  /** The clip at a place of the order, asked for if need be; null beyond the ends. */
  async at(index) {
    if (index < 0 || index >= this.total) return null;
    if (!this.row(index)) {
      const chunk = Math.floor(index / CHUNK);
      const found = await get("/api/rows", { ...this.params, offset: chunk * CHUNK, limit: CHUNK });
      this.chunks.set(chunk, found.rows);
    }
    return this.row(index);
  }

  close() {
    this.observer.disconnect();
    this.aborter?.abort();
    this.pageAborter?.abort();
    for (const card of this.cards.values()) this.drop(card);
  }
}
