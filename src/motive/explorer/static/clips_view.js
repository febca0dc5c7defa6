// The clips: filters, order, the grid, and what is done with many of them at once.

import { debounce, h, icon, plural } from "./dom.js";
import { openClip } from "./detail.js";
import { makeFilters } from "./filters.js";
import { Grid } from "./grid.js";
import { store } from "./store.js";

export function clipsView(holder, signal) {
  const grid = new Grid((row, index) => openClip(row.clip_id, { grid, index }));
  const search = h("input", {
    type: "search", id: "search", placeholder: "Search captions and file names", value: store.filter.text, autocomplete: "off",
    aria: { label: "Search captions and file names" }, oninput: debounce(() => store.look({ filter: { text: search.value } }), 180),
  });
  const sort = h("select", { id: "sort", aria: { label: "Sort by" }, onchange: () => store.look({ sort: sort.value, order: sort.value.startsWith("score:") ? "desc" : store.order }) },
    h("optgroup", { label: "Columns" }, store.run.columns.map((column) => h("option", { value: column.name }, column.label))),
    h("optgroup", { label: "Influence on a query" }, store.run.queries.map((q) => h("option", { value: `score:${q.id}` }, store.queryName(q)))));
  const direction = h("button", { type: "button", className: "icon", id: "direction", onclick: () => store.look({ order: store.order === "asc" ? "desc" : "asc" }) });
  const total = h("span", { id: "total", className: "quiet", attrs: { role: "status" } });
  const bulk = h("div", { className: "bulk" });
  const filters = makeFilters(signal);
  const opener = h("button", { type: "button", className: "filter-opener", aria: { expanded: "false", controls: "filters" }, onclick: () => {
    const open = filters.classList.toggle("open");
    opener.setAttribute("aria-expanded", open);
    if (open) store.tell("opened");
  } }, icon("filter"), "Filter");

  const showBulk = () => {
    const picked = store.selected.size;
    const everything = !picked && store.filterText;
    const what = picked ? { clip_ids: [...store.selected] } : { filter: store.filterText };
    bulk.hidden = !picked && !everything;
    const decide = (decision) => {
      const many = picked || grid.total;
      if (!picked && many > 1000 && !confirm(`${decision === null ? "Clear the decisions about" : decision === "include" ? "Include" : "Exclude"} all ${plural(many, "clip")} that pass the filter?`)) return;
      store.decide(what, decision);
    };
    bulk.replaceChildren(
      h("span", { className: "bulk-what" }, picked ? `${plural(picked, "clip")} selected` : "All that pass the filter:"),
      h("button", { type: "button", onclick: () => decide("include") }, "Include"),
      h("button", { type: "button", onclick: () => decide("exclude") }, "Exclude"),
      h("button", { type: "button", onclick: () => decide(null) }, "Clear decision"),
      picked ? h("button", { type: "button", className: "link", onclick: () => { store.selected.clear(); store.tell("selected"); } }, "Deselect") : "");
  };
  const follow = () => {
    sort.value = store.sort;
    if (document.activeElement !== search) search.value = store.filter.text;
    const down = store.order === "desc";
    direction.replaceChildren(icon(down ? "down" : "up"));
    direction.title = down ? "Descending" : "Ascending";
    direction.setAttribute("aria-label", `Order: ${direction.title.toLowerCase()}`);
    showBulk();
  };
  store.on("look", () => { follow(); grid.reload(); }, signal);
  store.on("curation", () => grid.refresh(), signal);
  store.on("selected", () => { grid.mark(); showBulk(); }, signal);
  store.on("pick-range", ({ from, to, on }) => {
    for (const id of grid.between(from, to)) on ? store.selected.add(id) : store.selected.delete(id);
    store.tell("selected");
  }, signal);
  store.on("total", (found) => {
    total.textContent = found === store.run.clips ? plural(found, "clip") : `${plural(found, "clip")} of ${store.run.clips.toLocaleString("en")}`;
    showBulk();
  }, signal);
  signal.addEventListener("abort", () => grid.close());
  holder.replaceChildren(h("div", { className: "clips" }, filters,
    h("section", { className: "stage", aria: { label: "Clips" } },
      h("div", { className: "toolbar" }, opener, search, h("div", { className: "sorting" }, sort, direction), total, bulk),
      grid.element)));
  follow();
  grid.reload();
}
