// What the views share: the run, the filter, the order, the selected clips, and what is decided.

import { get, post } from "./api.js";
import { fine, number, plural, toast } from "./dom.js";

class Store extends EventTarget {
  run = null;
  curation = null;
  sort = "rank";
  order = "asc";
  filter = { text: "", ranges: {}, state: "all", set: "" };
  setName = ""; // what the set in the filter is, for people
  selected = new Set();
  changing = Promise.resolve(); // the last change that was asked for

  tell(what, detail = null) {
    this.dispatchEvent(new CustomEvent(what, { detail }));
  }

  on(what, listener, signal = undefined) {
    this.addEventListener(what, (event) => listener(event.detail), { signal });
  }

  /** The filter as the server takes it; empty for every clip. */
  get filterText() {
    const { text, ranges, state, set } = this.filter;
    const said = {};
    if (text.trim()) said.text = text.trim();
    if (Object.keys(ranges).length) said.ranges = ranges;
    if (state !== "all") said.state = state;
    if (set) said.set = set;
    return Object.keys(said).length ? JSON.stringify(said) : "";
  }

  /** Change the filter or the order. */
  look(change) {
    for (const name of ["sort", "order", "setName"]) if (name in change) this[name] = change[name];
    if (change.filter) this.filter = { ...this.filter, ...change.filter };
    this.tell("look");
  }

  setRange(column, low, high) {
    const ranges = { ...this.filter.ranges };
    if (low === null && high === null) delete ranges[column];
    else ranges[column] = [low, high];
    this.look({ filter: { ranges } });
  }

  clearFilter() {
    this.setName = "";
    this.filter = { text: "", ranges: {}, state: "all", set: "" };
    this.tell("look");
  }

  column(name) {
    const found = this.run.columns.find((column) => column.name === name);
    if (found) return found;
    const query = this.run.queries.find((q) => `score:${q.id}` === name);
    if (query) return { name, label: `Influence on ${this.queryName(query)}`, kind: "number", unit: "", digits: 4 };
    return null;
  }

  /** A score; cosines by so many decimals, those without bounds also when they are tiny. */
  score(value, digits = 3, signed = true) {
    return (this.run.bounded ? number : fine)(value, digits, signed);
  }

  /** A value of a column, by its digits. */
  value(column, value) {
    const scores = column.name === "mean_score" || column.name.startsWith("score:");
    return scores ? this.score(value, column.digits, false) : number(value, column.digits);
  }

  /** A short name of a query: its motion, where that is known, and its file. */
  queryName(query) {
    const file = query.file_name.split("/").pop();
    return query.motion && !file.startsWith(query.motion) ? `${query.motion} · ${file}` : file;
  }

  query(id) {
    return this.run.queries.find((query) => query.id === id);
  }

  select(id, on) {
    if (on) this.selected.add(id);
    else this.selected.delete(id);
    this.tell("selected");
  }

  /** Include, exclude or (null) leave clips to the computed selection. */
  async decide(what, decision) {
    const verb = { include: "included", exclude: "excluded" }[decision] || "left to the computed selection";
    await this.change("/api/decide", { ...what, decision }, (done) =>
      toast(done.changed ? `${plural(done.changed, "clip")} ${verb}` : "nothing to change", {
        action: done.changed ? { label: "Undo", run: () => this.undo() } : null,
      }),
    );
  }

  async undo() {
    await this.change("/api/undo", {}, (done) => toast(done.what ? `undone: ${done.what}` : "nothing to undo"));
  }

  async redo() {
    await this.change("/api/redo", {}, (done) => toast(done.what ? `done again: ${done.what}` : "nothing to redo"));
  }

  /** One after the other: an answer that overtook another would show what no longer holds. */
  change(path, body, after = () => {}) {
    this.changing = this.changing.then(async () => {
      try {
        const done = await post(path, body);
        this.curation = done;
        after(done);
        this.tell("curation");
      } catch (error) {
        toast(error.message, { wrong: true });
      }
    });
    return this.changing;
  }

  async open() {
    this.run = await get("/api/run");
    this.curation = this.run.curation;
  }
}

export const store = new Store();
