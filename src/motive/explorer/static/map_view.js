// The corpus on a plane of gradient features, with a lasso.

import { get, post } from "./api.js";
import { Scatter, category, sequential } from "./charts.js";
import { openClip } from "./detail.js";
import { count, h, number, plural, toast } from "./dom.js";
import { store } from "./store.js";

let column = "mean_score";
let method = "pca";

export function mapView(holder, signal) {
  if (!store.run.maps.length) return void holder.replaceChildren(h("p", { className: "empty" }, "This run has no gradient features, so there is no map."));
  const legend = h("div", { className: "legend" });
  const note = h("p", { className: "quiet" });
  const result = h("div", { className: "bulk", hidden: true });
  const plot = new Scatter({ open: (id) => openClip(id), lasso: (polygon) => select(polygon), label: "Map of the corpus: each point is a clip, near ones have like gradients" });
  const select = async (polygon) => {
    try {
      const found = await post("/api/lasso", { polygon, method });
      const decide = async (decision) => { await store.decide({ filter: JSON.stringify({ set: found.set }) }, decision); };
      result.hidden = false;
      result.replaceChildren(h("span", { className: "bulk-what" }, `${plural(found.count, "clip")} in the lasso`),
        h("button", { type: "button", disabled: !found.count, onclick: () => { store.clearFilter(); location.hash = "clips"; store.look({ setName: "Clips in the lasso", filter: { set: found.set } }); } }, "Show in the grid"),
        h("button", { type: "button", disabled: !found.count, onclick: () => decide("include") }, "Include"),
        h("button", { type: "button", disabled: !found.count, onclick: () => decide("exclude") }, "Exclude"),
        h("button", { type: "button", className: "link", onclick: () => { plot.trail = []; plot.draw(); result.hidden = true; } }, "Clear"));
    } catch (error) {
      toast(error.message, { wrong: true });
    }
  };
  const load = async ({ again = false } = {}) => {
    try {
      const found = await get("/api/map", { column, method });
      if (signal.aborted) return;
      note.textContent = found.note + (found.positions.length < found.total ? `; ${count(found.positions.length)} of ${count(found.total)} clips are drawn, the lasso takes all` : "");
      const paint = painter(found, legend);
      if (again && plot.points?.positions.length === found.positions.length) plot.repaint(paint);
      else plot.show({ x: found.x, y: found.y, positions: found.positions, paint });
    } catch (error) {
      note.textContent = error.message;
    }
  };
  const colours = h("select", { id: "map-colour", onchange: () => { column = colours.value; load({ again: true }); } },
    h("option", { value: "chosen" }, "Chosen or not"),
    h("optgroup", { label: "Columns" }, store.run.columns.filter((c) => !["file_name", "caption"].includes(c.name)).map((c) => h("option", { value: c.name }, c.label))),
    store.run.sources.length > 1 ? h("optgroup", { label: "Dataset columns" }, store.run.sources.map((name) => h("option", { value: name }, name))) : null,
    h("optgroup", { label: "Influence on a query" }, store.run.queries.map((q) => h("option", { value: `score:${q.id}` }, store.queryName(q)))));
  colours.value = column;
  const methods = h("select", { id: "map-method", onchange: () => { method = methods.value; load(); } }, store.run.maps.map((name) => h("option", { value: name }, name.toUpperCase())));
  methods.value = method;
  const tool = (mode, label) => h("label", {}, h("input", { type: "radio", name: "map-tool", checked: mode === "lasso", onchange: () => { plot.mode = mode; } }), h("span", {}, label));
  store.on("curation", () => { if (column === "chosen") load({ again: true }); }, signal);
  signal.addEventListener("abort", () => plot.close());
  holder.replaceChildren(h("section", { className: "stage map", aria: { label: "Map of the corpus" } },
    h("div", { className: "toolbar" },
      h("label", { className: "inline", htmlFor: "map-colour" }, "Colour"), colours,
      h("label", { className: "inline", htmlFor: "map-method" }, "Method"), methods,
      h("fieldset", { className: "switch" }, h("legend", { className: "sr" }, "Pointer"), tool("lasso", "Lasso"), tool("pan", "Move")),
      h("button", { type: "button", onclick: () => { plot.view = null; plot.draw(); } }, "Whole map"), result),
    plot.element, h("div", { className: "under" }, legend, note)));
  load();
}

/** The colour of each point, and what it means. */
function painter(found, legend) {
  if (found.names) {
    const used = [...new Set(found.colour)].sort((a, b) => a - b);
    legend.replaceChildren(...used.slice(0, 14).map((code) => {
      const swatch = h("span", { className: "swatch" });
      swatch.style.background = category(code);
      return h("span", { className: "key" }, swatch, code < 0 ? "none" : found.names[code] ?? "other");
    }));
    return (i) => category(found.colour[i]);
  }
  const values = found.colour.filter((v) => v !== null).sort((a, b) => a - b);
  // The outermost hundredth shares the end colours, so that one far value does not wash out the rest.
  const low = values[Math.floor(values.length * 0.01)] ?? 0, high = values[Math.ceil(values.length * 0.99) - 1] ?? 1;
  const known = store.column(column);
  const shown = (value) => (known ? store.value(known, value) : number(value, 2));
  const bar = h("span", { className: "ramp" });
  bar.style.background = `linear-gradient(to right in oklch, ${[0, 0.25, 0.5, 0.75, 1].map(sequential).join(", ")})`;
  legend.replaceChildren(h("span", { className: "key" }, shown(low)), bar, h("span", { className: "key" }, shown(high)));
  const steps = Array.from({ length: 65 }, (_, i) => sequential(i / 64));
  return (i) => (found.colour[i] === null ? "#9aa4ad" : steps[Math.round(64 * Math.min(1, Math.max(0, (found.colour[i] - low) / (high - low || 1))))]);
}
