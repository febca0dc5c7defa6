// Per query and per motion: votes, how they overlap, and influence against magnitude.

import { get } from "./api.js";
import { Scatter } from "./charts.js";
import { openClip } from "./detail.js";
import { colour, count, h, number, toast } from "./dom.js";
import { store } from "./store.js";

let label = null;
let score = "mean_score";
let magnitude = "mean_speed";

export function motionsView(holder, signal) {
  const tables = h("div", { className: "tables" });
  const plot = new Scatter({ open: (id) => openClip(id), axes: { x: "", y: "" }, label: "Influence against motion magnitude: each point is a clip" });
  const facts = h("p", { className: "quiet" });
  const scoreBox = h("select", { id: "scatter-score", onchange: () => { score = scoreBox.value; scatter(); } });
  const columnBox = h("select", { id: "scatter-column", onchange: () => { magnitude = columnBox.value; scatter(); } },
    store.run.columns.filter((c) => c.kind === "number" && !["rank", "mean_score", "votes"].includes(c.name)).map((c) => h("option", { value: c.name }, c.label)));
  columnBox.value = magnitude;
  const labelBox = h("select", { id: "group-label", onchange: () => { label = labelBox.value; load(); } });

  const scatter = async () => {
    try {
      const found = await get("/api/scatter", { score, column: magnitude });
      if (signal.aborted) return;
      const column = store.column(magnitude);
      plot.axes = { x: column.label + (column.unit ? `, ${column.unit}` : ""), y: "influence" };
      const [on, off] = [colour("--on"), colour("--off")];
      plot.show({ x: found.x, y: found.y, positions: found.positions, paint: (i) => (found.chosen[i] ? on : off) });
      facts.textContent = `Rank correlation ${found.rho === null ? "–" : number(found.rho, 2, true)} over ${count(found.total)} clips` + (found.positions.length < found.total ? `; ${count(found.positions.length)} are drawn` : "") + ". Teal: chosen.";
    } catch (error) {
      toast(error.message, { wrong: true });
    }
  };
  const load = async () => {
    try {
      const found = await get("/api/groups", { label });
      if (signal.aborted) return;
      label = found.label;
      labelBox.replaceChildren(...found.labels.map((name) => h("option", { value: name }, name)));
      labelBox.value = label;
      scoreBox.replaceChildren(h("option", { value: "mean_score" }, "Mean over all queries"),
        h("optgroup", { label: "A motion" }, store.run.groups.map((name) => h("option", { value: `group:${name}` }, name))),
        h("optgroup", { label: "A query" }, store.run.queries.map((q) => h("option", { value: `score:${q.id}` }, store.queryName(q)))));
      scoreBox.value = score;
      tables.replaceChildren(groupTable(found), heatTable(found), queryTable(found));
    } catch (error) {
      tables.replaceChildren(h("p", { className: "empty" }, error.message));
    }
  };
  store.on("curation", () => { load(); scatter(); }, signal);
  signal.addEventListener("abort", () => plot.close());
  holder.replaceChildren(h("div", { className: "motions page" },
    h("div", { className: "page-head" }, h("h2", {}, "Motions"), h("label", { className: "inline", htmlFor: "group-label" }, "Group the queries by"), labelBox),
    tables,
    h("section", { className: "panel" },
      h("div", { className: "row-head" }, h("h3", {}, "Influence against magnitude"),
        h("label", { className: "inline", htmlFor: "scatter-score" }, "Influence"), scoreBox, h("label", { className: "inline", htmlFor: "scatter-column" }, "against"), columnBox),
      plot.element, facts)));
  load();
  scatter();
}

function groupTable(found) {
  const most = Math.max(1, ...found.groups.map((g) => g.votes));
  return h("section", { className: "panel" }, h("h3", {}, "Votes by motion"),
    h("p", { className: "quiet" }, "Clips with a vote of at least one of the motion's queries; in colour those that are chosen."),
    h("div", { className: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, ["Motion", "Queries", "Clips with a vote", "Chosen of them"].map((t, i) => h("th", { scope: "col", className: i ? "num" : "" }, t)), h("th", { scope: "col" }, h("span", { className: "sr" }, "Share")))),
      h("tbody", {}, found.groups.map((group) => {
        const all = h("span", { className: "all" }), on = h("span", { className: "on" });
        all.style.width = `${(100 * group.votes) / most}%`;
        on.style.width = `${(100 * group.chosen) / most}%`;
        return h("tr", {}, h("th", { scope: "row" }, group.name), h("td", { className: "num" }, count(group.queries)), h("td", { className: "num" }, count(group.votes)), h("td", { className: "num" }, count(group.chosen)), h("td", { className: "bar-cell" }, h("span", { className: "bars" }, all, on)));
      })))));
}

/** How much colour a share has; no more than lets its number be read on it, in light and in dark. */
export const heatOf = (share) => `${Math.round(55 * Math.sqrt(share))}%`;

/** Overlap as a table whose cells are coloured; the number is in each cell. */
function heatTable(found) {
  const names = found.groups.map((g) => g.name);
  const cell = (value, i, j) => {
    const made = h("td", { className: "heat-cell", title: `${names[i]} and ${names[j]}: ${number(value, 2)}` }, i === j ? "" : number(value, 2).replace(/^0/, ""));
    if (i !== j) {
      made.style.setProperty("--heat", heatOf(value));
    } else made.classList.add("same");
    return made;
  };
  return h("section", { className: "panel" }, h("h3", {}, "Overlap of the motions' votes"),
    h("p", { className: "quiet" }, "Clips that both motions vote for, over those that either does (Jaccard)."),
    h("div", { className: "wide" }, h("table", { className: "heat" },
      h("thead", {}, h("tr", {}, h("td", {}), names.map((name) => h("th", { scope: "col" }, h("span", {}, name))))),
      h("tbody", {}, found.group_overlap.map((row, i) => h("tr", {}, h("th", { scope: "row" }, names[i]), row.map((value, j) => cell(value, i, j))))))));
}

function queryTable(found) {
  return h("section", { className: "panel" }, h("h3", {}, "Votes by query"),
    h("div", { className: "wide tall", tabIndex: 0, attrs: { role: "region", "aria-label": "Votes by query" } }, h("table", {}, h("thead", {}, h("tr", {}, ["Query", "Motion", "Votes", "Chosen", "Mean score", "Mean of the chosen"].map((t, i) => h("th", { scope: "col", className: i > 1 ? "num" : "" }, t)))),
      h("tbody", {}, found.queries.map((q) => h("tr", {}, h("th", { scope: "row", className: "file" }, q.file_name), h("td", {}, q.group), h("td", { className: "num" }, count(q.votes)), h("td", { className: "num" }, count(q.chosen)), h("td", { className: "num" }, store.score(q.mean)), h("td", { className: "num" }, store.score(q.mean_chosen))))))));
}
