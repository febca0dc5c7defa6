// A query beside its most and least influential clips, all in step.

import { get, posterOf } from "./api.js";
import { openClip } from "./detail.js";
import { count, h, number, plural, shortName, toast } from "./dom.js";
import { Deck, Player, heatOf, maskOf, overlaySwitch } from "./players.js";
import { store } from "./store.js";

let chosen = "";
let overlay = "none";

export function compareView(holder, signal) {
  if (!store.query(chosen)) chosen = store.run.queries[0]?.id || "";
  if (!chosen) return void holder.replaceChildren(h("p", { className: "empty" }, "This run has no query with scores."));
  let deck = null;
  let generation = 0;
  const stage = h("section", { className: "stage compare-stage", aria: { label: "Query and clips" } });
  const items = store.run.queries.map((query) => h("button", { type: "button", className: "query-item", data: { id: query.id }, onclick: () => { chosen = query.id; show(); } },
    h("img", { src: posterOf(query.id), alt: "", loading: "lazy" }),
    h("span", {}, h("b", {}, query.motion || shortName(query.file_name)), h("span", { className: "file" }, shortName(query.file_name)))));
  const list = h("aside", { className: "query-list", aria: { label: "Queries" } }, h("h2", {}, "Queries"), h("div", { className: "query-items" }, items));

  const lay = () => {
    for (const player of deck?.players || []) {
      player.overlay(null);
      if (overlay === "mask") maskOf(player.id).then((mask) => overlay === "mask" && player.overlay(mask));
      else if (overlay === "heat" && player.id !== chosen) {
        heatOf(player.id, chosen).then((heat) => overlay === "heat" && player.overlay(heat)).catch((error) => toast(error.message, { wrong: true }));
      }
    }
  };
  const show = async () => {
    const mine = ++generation;
    deck?.close();
    for (const item of items) item.setAttribute("aria-pressed", item.dataset.id === chosen);
    const query = store.query(chosen);
    let found;
    try {
      found = await get("/api/extremes", { query: chosen, count: 6 });
    } catch (error) {
      return void toast(error.message, { wrong: true });
    }
    if (mine !== generation || signal.aborted) return;
    deck = new Deck();
    const own = deck.add(new Player(query.id, { frames: query.frames, fps: query.fps, label: "The query" }));
    const row = (title, rows, className) => h("section", { className: `extremes ${className}` }, h("h3", {}, title),
      h("div", { className: "strip" }, rows.map((clip) => {
        const player = deck.add(new Player(clip.clip_id, { frames: 1, fps: 1, label: `Rank ${clip.rank}` }));
        get(`/api/clip/${clip.clip_id}`).then((facts) => { player.frames = facts.frames; player.fps = facts.fps || 1; player.duration = facts.frames / player.fps; });
        return h("figure", { className: clip.chosen ? "chosen" : "" },
          h("button", { type: "button", className: "watch-button", aria: { label: `Open rank ${clip.rank}, ${shortName(clip.file_name)}` }, onclick: () => openClip(clip.clip_id, {}, chosen) }, player.element),
          h("figcaption", {}, h("b", {}, store.score(clip[`score:${chosen}`])), ` rank ${count(clip.rank)}`, clip.chosen ? h("span", { className: "state" }, " chosen") : ""));
      })));
    stage.replaceChildren(
      h("div", { className: "compare-head" },
        h("figure", { className: "the-query" }, own.element),
        h("div", { className: "compare-words" }, h("h2", {}, store.queryName(query)), h("p", {}, query.caption || "no caption"),
          h("p", { className: "quiet" }, `${plural(query.frames, "frame")} at ${number(query.fps, 1)} per second. A clip has its vote with a score above the ${store.run.percentile}th percentile.`),
          h("button", { type: "button", className: "link", onclick: () => { location.hash = "clips"; store.look({ sort: `score:${chosen}`, order: "desc" }); } }, "All clips by influence on this query"),
          h("div", { className: "tools" }, deck.controls, overlaySwitch(overlay, (kind) => { overlay = kind; lay(); })))),
      row("Most influential", found.most, "most"), row("Least influential", found.least, "least"));
    lay();
    deck.start();
  };
  signal.addEventListener("abort", () => deck?.close());
  holder.replaceChildren(h("div", { className: "compare" }, list, stage));
  show();
}
