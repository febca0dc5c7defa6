// One clip in a grid or a row of clips: its picture, which plays under the pointer, and what is known of it.

import { mediaOf, posterOf } from "./api.js";
import { h, icon, number, reducedMotion, shortName } from "./dom.js";
import { store } from "./store.js";

/** Marks a card with what is decided about its clip. */
export function markCard(card, row) {
  card.classList.toggle("chosen", row.chosen);
  card.classList.toggle("by-hand", row.decision !== null);
  card.classList.toggle("excluded", row.decision === "exclude");
  const [include, exclude] = card.querySelectorAll(".decide button");
  include?.setAttribute("aria-pressed", row.decision === "include");
  exclude?.setAttribute("aria-pressed", row.decision === "exclude");
  const state = card.querySelector(".state");
  if (state) {
    const words = { include: "included by hand", exclude: "excluded by hand" };
    state.textContent = words[row.decision] || (row.chosen ? "chosen" : "");
  }
  const box = card.querySelector(".pick");
  if (box) box.checked = store.selected.has(row.clip_id);
}

/** A card. `extra`: text beside the rank; `open(row)`: what a click does; `pick`: whether it can be selected. */
export function makeCard(row, { extra = "", open, pick = false, level = 3 }) {
  const name = `Rank ${row.rank}, ${shortName(row.file_name)}`;
  const picture = h("img", { src: posterOf(row.clip_id), alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(h("span", { className: "absent" }, "file changed or gone")));
  const screen = h("button", { type: "button", className: "screen", aria: { label: `Open ${name}` }, onclick: () => open(row) },
    picture, h("span", { className: "rank" }, `${row.rank}`), extra ? h("span", { className: "extra" }, extra) : null);
  const decide = (decision) => store.decide({ clip_ids: [row.clip_id] }, row.decision === decision ? null : decision);
  const card = h("article", { className: "card", data: { id: row.clip_id } }, screen,
    pick ? h("label", { className: "pick-label" }, h("input", { type: "checkbox", className: "pick", aria: { label: `Select ${name}` }, onclick: (event) => pickClip(event, row) })) : null,
    h("div", { className: "below" },
      h("div", { className: "figures" },
        h("span", { title: "Mean score over the queries" }, h("b", {}, store.score(row.mean_score)), " score"),
        h("span", { title: "Queries that vote for it" }, h("b", {}, number(row.votes)), row.votes === 1 ? " vote" : " votes"),
        h("span", { title: "Mean motion, pixels per frame" }, h("b", {}, number(row.mean_speed, 2)), " px/f"),
        h("span", { title: "Share of the motion that the camera explains" }, h("b", {}, row.camera_share === null ? "–" : `${Math.round(100 * row.camera_share)}%`), " cam")),
      h("p", { className: "caption", title: row.caption }, row.caption || h("span", { className: "quiet" }, "no caption")),
      h("div", { className: "foot" }, h("span", { className: "state" }),
        row.note ? h("span", { className: "noted", title: row.note }, icon("note")) : null,
        h("span", { className: "decide" },
          h("button", { type: "button", className: "icon yes", title: "Include (I)", aria: { label: `Include ${name}`, pressed: "false" }, onclick: () => decide("include") }, icon("check")),
          h("button", { type: "button", className: "icon no", title: "Exclude (X)", aria: { label: `Exclude ${name}`, pressed: "false" }, onclick: () => decide("exclude") }, icon("cross"))))));
  playOnHover(card, screen, row.clip_id);
  card.addEventListener("keydown", (event) => {
    if (event.target.matches("textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "i") decide("include");
    else if (event.key === "x") decide("exclude");
    else if (event.key === "s" && pick) store.select(row.clip_id, !store.selected.has(row.clip_id));
    else return;
    event.preventDefault();
  });
  markCard(card, row);
  return card;
}

let lastPicked = null;

/** With shift, everything between the last picked clip and this one. */
function pickClip(event, row) {
  const on = event.target.checked;
  if (event.shiftKey && lastPicked) store.tell("pick-range", { from: lastPicked, to: row.clip_id, on });
  else store.select(row.clip_id, on);
  lastPicked = row.clip_id;
}

function playOnHover(card, screen, id) {
  let video = null, timer = 0;
  const stop = () => {
    clearTimeout(timer);
    if (!video) return;
    video.pause();
    video.removeAttribute("src");
    video.load();
    video.remove();
    video = null;
  };
  const start = () => {
    clearTimeout(timer);
    // A pointer that only passes by starts nothing.
    timer = setTimeout(() => {
      if (video || !card.isConnected || reducedMotion.matches) return;
      video = h("video", { muted: true, loop: true, playsInline: true, autoplay: true, src: mediaOf(id), disablePictureInPicture: true, tabIndex: -1, aria: { hidden: "true" } });
      video.addEventListener("error", stop);
      screen.append(video);
    }, 90);
  };
  card.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") start(); });
  card.addEventListener("pointerleave", stop);
  screen.addEventListener("focus", start);
  screen.addEventListener("blur", stop);
  card.stop = stop;
}
