// One clip beside a query, in step; what is known of it, what was decided, and the clips that are like it.

import { get, mediaOf } from "./api.js";
import { makeCard, markCard } from "./card.js";
import { drawCurve } from "./charts.js";
import { debounce, h, icon, number, plural, toast } from "./dom.js";
import { Deck, Player, heatOf, maskOf, overlaySwitch } from "./players.js";
import { store } from "./store.js";

const dialog = document.getElementById("detail");
let current = null;
let overlay = "mask";

/** Open a clip. `place`: {grid, index} lets one go on to its neighbours; `query` is shown beside it. */
export async function openClip(id, place = {}, query = "") {
  let clip;
  try {
    clip = await get(`/api/clip/${id}`);
  } catch (error) {
    toast(error.message, { wrong: true });
    return;
  }
  current?.close();
  current = new Detail(clip, place, query);
  if (!dialog.open) dialog.showModal();
}

dialog.addEventListener("close", () => {
  current?.close();
  current = null;
  dialog.replaceChildren();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

class Detail {
  constructor(clip, place, query) {
    this.clip = clip;
    this.place = place;
    this.ended = new AbortController();
    const best = clip.scores.reduce((a, b) => (b.score > a.score ? b : a), clip.scores[0]);
    this.queryId = query || best?.id || "";
    this.build();
    this.showPlayers();
    this.showSimilar();
    store.on("curation", () => this.refresh(), this.ended.signal);
    dialog.addEventListener("keydown", (event) => this.onKey(event), { signal: this.ended.signal });
  }

  build() {
    const { clip, place } = this;
    const move = (step) => h("button", {
      type: "button", className: "icon", title: step < 0 ? "Previous clip (J)" : "Next clip (K)",
      aria: { label: step < 0 ? "Previous clip" : "Next clip" }, disabled: !place.grid, onclick: () => this.move(step),
    }, icon(step < 0 ? "back" : "forward"));
    this.screens = h("div", { className: "pair" });
    this.tools = h("div", { className: "tools" });
    this.curve = h("div", { className: "curve", hidden: true });
    this.decide = h("div", { className: "decide-large" });
    this.note = h("textarea", {
      rows: 3, id: "note", value: clip.note, maxLength: 10000, placeholder: "Why in, why out?",
      oninput: debounce(() => this.saveNote(), 700), onblur: () => this.saveNote(),
    });
    this.similar = h("section", { className: "similar", aria: { label: "Similar clips" } });
    dialog.setAttribute("aria-label", `Clip ${clip.file_name}`);
    dialog.replaceChildren(
      h("div", { className: "detail-head" }, move(-1), move(1),
        h("div", { className: "detail-title" }, h("h2", {}, `Rank ${clip.rank}`), h("span", { className: "file" }, clip.file_name)),
        h("button", { type: "button", className: "icon close", aria: { label: "Close" }, title: "Close (Esc)", onclick: () => dialog.close() }, icon("cross"))),
      h("div", { className: "detail-body" },
        h("div", { className: "watch" }, this.screens, this.tools, this.curve, h("p", { className: "caption-whole" }, clip.caption || "no caption"), this.similar),
        h("div", { className: "know" }, this.decide,
          h("label", { htmlFor: "note", className: "section-label" }, "Note"), this.note,
          this.facts(), this.queryScores(), this.metadata())));
    this.showDecision();
  }

  facts() {
    const { clip } = this;
    const rows = store.run.columns.filter((c) => c.kind === "number" && c.name !== "rank").map((column) =>
      h("div", {}, h("dt", {}, column.label), h("dd", {}, store.value(column, clip[column.name]), column.unit ? h("span", { className: "quiet" }, ` ${column.unit}`) : null)));
    return h("dl", { className: "facts" }, rows, h("div", {}, h("dt", {}, "Frames"), h("dd", {}, `${clip.frames} at ${number(clip.fps, 1)}/s`)));
  }

  queryScores() {
    const most = Math.max(1e-9, ...this.clip.scores.map((s) => Math.abs(s.score)));
    const sorted = [...this.clip.scores].sort((a, b) => b.score - a.score);
    this.bars = sorted.map(({ id, score, vote }) => {
      const query = store.query(id);
      if (!query) return null;
      const fill = h("span", { className: score < 0 ? "fill away" : "fill" });
      fill.style.width = `${(50 * Math.abs(score)) / most}%`;
      return h("button", {
        type: "button", className: "query-bar", data: { id }, aria: { pressed: id === this.queryId },
        onclick: () => { this.queryId = id; this.showPlayers(); },
      }, h("span", { className: "query-name" }, store.queryName(query)), h("span", { className: "track" }, fill),
      h("span", { className: "value" }, store.score(score)), h("span", { className: "vote", title: vote ? "has this query's vote" : "" }, vote ? icon("check") : ""));
    });
    return h("section", { className: "query-bars", aria: { label: "Influence on each query" } },
      h("h3", { className: "section-label" }, "Influence on each query", h("span", { className: "quiet" }, ` · ${plural(this.clip.votes, "vote")}`)), this.bars);
  }

  metadata() {
    const entries = Object.entries(this.clip.metadata);
    if (!entries.length) return "";
    return h("details", {}, h("summary", {}, "Dataset columns"),
      h("dl", { className: "facts" }, entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
  }

  async showPlayers() {
    this.deck?.close();
    const deck = (this.deck = new Deck());
    const query = store.query(this.queryId);
    const mine = deck.add(new Player(this.clip.clip_id, { frames: this.clip.frames, fps: this.clip.fps, label: "The clip" }));
    this.own = mine;
    const score = this.clip.scores.find((s) => s.id === this.queryId)?.score;
    const sides = [];
    if (query) {
      this.theirs = deck.add(new Player(query.id, { frames: query.frames, fps: query.fps, label: "The query" }));
      sides.push(h("figure", {}, this.theirs.element, h("figcaption", {}, h("b", {}, "Query "), store.queryName(query))));
    }
    sides.push(h("figure", {}, mine.element, h("figcaption", {}, h("b", {}, "Clip "), score === undefined ? "" : `influence ${store.score(score, 4)}`)));
    this.screens.replaceChildren(...sides);
    this.tools.replaceChildren(deck.controls, overlaySwitch(overlay, (kind) => { overlay = kind; this.showOverlay(); }),
      h("a", { className: "link", href: mediaOf(this.clip.clip_id), target: "_blank", rel: "noopener" }, "Whole file"));
    for (const bar of this.bars) bar?.setAttribute("aria-pressed", bar.dataset.id === this.queryId);
    await this.showOverlay();
    deck.start();
  }

  async showOverlay() {
    const { deck } = this;
    this.curve.hidden = true;
    deck.onTime = null;
    if (overlay === "none") {
      for (const player of deck.players) player.overlay(null);
    } else if (overlay === "mask") {
      for (const player of deck.players) maskOf(player.id).then((mask) => { if (overlay === "mask") player.overlay(mask); });
    } else {
      for (const player of deck.players) player.overlay(null);
      this.curve.hidden = false;
      this.curve.replaceChildren(h("p", { className: "quiet" }, "computing where the influence comes from …"));
      try {
        const heat = await heatOf(this.clip.clip_id, this.queryId);
        if (overlay !== "heat" || this.deck !== deck) return;
        this.own.overlay(heat);
        const canvas = h("canvas", { attrs: { role: "img" } });
        const [from, to] = heat.best;
        this.curve.replaceChildren(canvas, h("p", { className: "quiet" }, `Best interval: frames ${from} to ${to - 1}. Warm places pull towards the query, blue ones away; together ${store.score(heat.influence, 4)}, the influence without projection.`));
        canvas.setAttribute("aria-label", `Influence by frame; best interval: frames ${from} to ${to - 1}`);
        const draw = () => drawCurve(canvas, heat.curve, heat.best, deck.time * this.own.fps);
        deck.onTime = draw;
        draw();
      } catch (error) {
        this.curve.replaceChildren(h("p", { className: "quiet" }, error.message));
      }
    }
  }

  async showSimilar() {
    const title = h("h3", {}, "Similar clips");
    this.similar.replaceChildren(title);
    try {
      const found = await get(`/api/similar/${this.clip.clip_id}`, { count: 12 });
      if (this.ended.signal.aborted) return;
      const inGrid = (set, name) => { dialog.close(); store.clearFilter(); location.hash = "clips"; store.look({ setName: name, filter: { set } }); };
      this.similar.replaceChildren(
        h("div", { className: "row-head" }, title,
          h("span", { className: "quiet" }, found.exact ? "by gradient, exact search" : "by gradient, approximate search by the table's vector index"),
          h("button", { type: "button", className: "link", onclick: () => inGrid(found.set, "Similar clips") }, "Show in the grid"),
          found.duplicates ? h("button", { type: "button", className: "link", onclick: () => inGrid(found.duplicates_set, "Near-duplicates") }, plural(found.duplicates, "near-duplicate")) : h("span", { className: "quiet" }, "no near-duplicate (cosine ≥ 0.95)")),
        h("div", { className: "strip" }, found.rows.map((row) => makeCard(row, { extra: row.similarity.toFixed(2), open: (r) => openClip(r.clip_id, {}, this.queryId) }))));
      this.similarRows = found.rows;
    } catch (error) {
      this.similar.append(h("p", { className: "quiet" }, error.message));
    }
  }

  showDecision() {
    const { clip } = this;
    const button = (decision, label, shape, key) => h("button", {
      type: "button", className: decision === "include" ? "yes" : "no", title: key, aria: { pressed: clip.decision === decision },
      onclick: () => this.toggle(decision),
    }, icon(shape), label);
    const words = clip.decision ? `${clip.decision}d by hand; computed: ${clip.selected ? "selected" : "not selected"}` : clip.selected ? "in the computed selection" : "not in the computed selection";
    this.decide.replaceChildren(button("include", "Include", "check", "I"), button("exclude", "Exclude", "cross", "X"),
      h("span", { className: clip.chosen ? "verdict in" : "verdict" }, h("b", {}, clip.chosen ? "Chosen" : "Not chosen"), h("span", { className: "quiet" }, words)));
  }

  toggle(decision) {
    store.decide({ clip_ids: [this.clip.clip_id] }, this.clip.decision === decision ? null : decision);
  }

  saveNote() {
    const text = this.note.value.trim();
    if (text === (this.clip.note || "")) return;
    this.clip.note = text;
    store.change("/api/note", { clip_id: this.clip.clip_id, text });
  }

  async refresh() {
    const fresh = await get(`/api/clip/${this.clip.clip_id}`);
    if (this.ended.signal.aborted) return;
    if (document.activeElement !== this.note && fresh.note !== this.clip.note) this.note.value = fresh.note;
    this.clip = fresh;
    this.showDecision();
    for (const card of this.similar.querySelectorAll(".card")) {
      const row = this.similarRows?.find((r) => r.clip_id === card.dataset.id);
      const now = row && (await get(`/api/at/${row.rank - 1}`));
      if (now) markCard(card, Object.assign(row, now));
    }
  }

  async move(step) {
    const { grid, index } = this.place;
    if (!grid) return;
    const row = await grid.at(index + step);
    if (row) openClip(row.clip_id, { grid, index: index + step });
  }

  onKey(event) {
    if (event.target.matches("textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest(".card") && "ix".includes(event.key)) return;
    const act = { i: () => this.toggle("include"), x: () => this.toggle("exclude"), j: () => this.move(-1), k: () => this.move(1) };
    if (event.key === " " && !event.target.matches("button, input, summary, a")) act[" "] = () => this.deck.toggle();
    if (event.key === "," ) act[","] = () => this.deck.step(-1);
    if (event.key === "." ) act["."] = () => this.deck.step(1);
    if (!act[event.key]) return;
    event.preventDefault();
    act[event.key]();
  }

  close() {
    this.saveNote();
    this.ended.abort();
    this.deck?.close();
  }
}
