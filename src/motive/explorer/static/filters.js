// The filters: histograms with two handles, the state, and a search. Each histogram shows all clips in
// grey and those that pass every filter in colour.

import { get } from "./api.js";
import { colour, count, debounce, h, toast } from "./dom.js";
import { store } from "./store.js";

const STATES = [
  ["all", "All clips"], ["chosen", "Chosen"], ["left", "Not chosen"], ["computed", "Computed selection"],
  ["included", "Included by hand"], ["excluded", "Excluded by hand"], ["noted", "With a note"],
];
const FIRST = ["mean_score", "votes", "mean_speed", "camera_share"];
const STEPS = 200;

export function makeFilters(signal) {
  const numbers = store.run.columns.filter((column) => column.kind === "number" && column.name !== "rank");
  const first = numbers.filter((column) => FIRST.includes(column.name));
  const rest = numbers.filter((column) => !FIRST.includes(column.name));
  const shown = new Map();
  const add = (column) => {
    const made = new Slider(column);
    shown.set(column.name, made);
    return made.element;
  };
  const queryBox = h("div", {});
  const query = h("select", {
    id: "score-filter",
    onchange: () => {
      for (const name of [...shown.keys()].filter((n) => n.startsWith("score:"))) {
        shown.delete(name);
        if (store.filter.ranges[name]) store.setRange(name, null, null);
      }
      queryBox.replaceChildren(...(query.value ? [add(store.column(query.value))] : []));
      refresh();
    },
  }, h("option", { value: "" }, "choose a query"), store.run.queries.map((q) => h("option", { value: `score:${q.id}` }, store.queryName(q))));
  const state = h("select", { id: "state-filter", onchange: () => store.look({ filter: { state: state.value } }) },
    STATES.map(([value, label]) => h("option", { value }, label)));
  const reset = h("button", { type: "button", className: "link", onclick: () => store.clearFilter() }, "Clear all");
  const more = h("details", { ontoggle: () => refresh() }, h("summary", {}, "More columns"), rest.map(add));
  const set = h("p", { className: "set", hidden: true });

  const refresh = () => {
    for (const [name, slider] of shown) {
      if (slider.element.closest("details:not([open])")) continue;
      slider.refresh().catch((error) => { if (error.name !== "AbortError") toast(`${name}: ${error.message}`, { wrong: true }); });
    }
  };
  const follow = () => {
    state.value = store.filter.state;
    reset.disabled = !store.filterText;
    set.hidden = !store.filter.set;
    set.replaceChildren(store.setName || "a set of clips", " ", h("button", { type: "button", className: "link", onclick: () => store.look({ setName: "", filter: { set: "" } }) }, "Clear"));
    refresh();
  };
  store.on("look", follow, signal);
  store.on("opened", refresh, signal);
  store.on("curation", debounce(refresh, 200), signal);
  const element = h("aside", { className: "filters", id: "filters", aria: { label: "Filters" } },
    h("div", { className: "filter-head" }, h("h2", {}, "Filter"), reset),
    h("label", { htmlFor: "state-filter" }, "Show"), state, set,
    first.map(add), more,
    h("label", { htmlFor: "score-filter" }, "Influence on a query"), query, queryBox);
  follow();
  return element;
}

class Slider {
  constructor(column) {
    this.column = column;
    this.canvas = h("canvas", { className: "histogram", attrs: { role: "img", "aria-label": `Histogram of ${column.label}` } });
    this.words = h("span", { className: "quiet" });
    const handle = (side, value) => h("input", {
      type: "range", min: 0, max: STEPS, value, aria: { label: `${column.label}, ${side}` },
      oninput: () => this.slide(), onchange: () => this.settle(),
    });
    this.low = handle("least", 0);
    this.high = handle("greatest", STEPS);
    this.settle = debounce(() => this.commit(), 120);
    this.sorter = h("button", {
      type: "button", className: "link column-name", title: `Sort by ${column.label.toLowerCase()}`,
      onclick: () => store.look({ sort: column.name, order: store.sort === column.name && store.order === "desc" ? "asc" : "desc" }),
    }, column.label);
    this.element = h("div", { className: "slider", data: { column: column.name } },
      h("div", { className: "slider-head" }, this.sorter, this.words),
      this.canvas, h("div", { className: "handles" }, this.low, this.high));
  }

  async refresh() {
    this.aborter?.abort();
    this.aborter = new AbortController();
    this.found = await get("/api/histogram", { column: this.column.name, filter: store.filterText }, this.aborter.signal);
    const range = store.filter.ranges[this.column.name];
    this.low.value = range && range[0] !== null ? this.step(range[0]) : 0;
    this.high.value = range && range[1] !== null ? this.step(range[1]) : STEPS;
    this.draw();
  }

  step(value) {
    const { low, high } = this.found;
    return high > low ? Math.round((STEPS * (value - low)) / (high - low)) : 0;
  }

  value(step) {
    const { low, high } = this.found;
    return low + (step / STEPS) * (high - low);
  }

  /** Bounds; null at an end, so that nothing is cut off by rounding. */
  get bounds() {
    const [low, high] = [Number(this.low.value), Number(this.high.value)];
    const whole = this.column.digits === 0;
    return [low <= 0 ? null : whole ? Math.ceil(this.value(low)) : this.value(low),
      high >= STEPS ? null : whole ? Math.floor(this.value(high)) : this.value(high)];
  }

  slide() {
    if (!this.found) return;
    if (Number(this.low.value) > Number(this.high.value)) {
      if (document.activeElement === this.low) this.low.value = this.high.value;
      else this.high.value = this.low.value;
    }
    this.draw();
    this.settle();
  }

  commit() {
    if (!this.found) return;
    const [low, high] = this.bounds;
    const now = store.filter.ranges[this.column.name] || [null, null];
    if (now[0] !== low || now[1] !== high) store.setRange(this.column.name, low, high);
  }

  draw() {
    const { all, shown, low, high } = this.found;
    const [from, to] = this.bounds;
    const shownAs = (value) => store.value(this.column, value);
    const unit = this.column.unit ? ` ${this.column.unit}` : "";
    this.words.textContent = `${shownAs(from ?? low)} … ${shownAs(to ?? high)}${unit}`;
    this.low.setAttribute("aria-valuetext", shownAs(from ?? low) + unit);
    this.high.setAttribute("aria-valuetext", shownAs(to ?? high) + unit);
    this.element.classList.toggle("cut", from !== null || to !== null);
    this.canvas.setAttribute("aria-label", `Histogram of ${this.column.label}: ${count(shown.reduce((a, b) => a + b, 0))} of ${count(all.reduce((a, b) => a + b, 0))} clips pass the filters`);
    const box = this.canvas.getBoundingClientRect();
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round((box.width || 220) * ratio));
    this.canvas.height = Math.round(40 * ratio);
    const context = this.canvas.getContext("2d");
    const most = Math.max(1, ...all);
    const wide = this.canvas.width / all.length;
    // Square roots, so that rare values are seen beside frequent ones.
    const tall = (n) => (n ? Math.max(ratio, Math.sqrt(n / most) * this.canvas.height) : 0);
    all.forEach((n, i) => {
      const x = Math.round(i * wide), width = Math.max(1, Math.round((i + 1) * wide) - x - Math.round(ratio / 2));
      context.fillStyle = colour("--bin");
      context.fillRect(x, this.canvas.height - tall(n), width, tall(n));
      context.fillStyle = colour("--on");
      context.fillRect(x, this.canvas.height - tall(shown[i]), width, tall(shown[i]));
    });
  }
}
