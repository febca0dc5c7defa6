// The page: which view is shown, the choice at the top, and the keys.

import { choiceView } from "./choice_view.js";
import { clipsView } from "./clips_view.js";
import { compareView } from "./compare_view.js";
import { count, h, icon, plural } from "./dom.js";
import { mapView } from "./map_view.js";
import { motionsView } from "./motions_view.js";
import { store } from "./store.js";

const VIEWS = [["clips", "Clips", clipsView], ["compare", "Compare", compareView], ["map", "Map", mapView], ["motions", "Motions", motionsView], ["choice", "Choice", choiceView]];
const holder = document.getElementById("view");
const tabs = document.getElementById("tabs");
let leaving = null;

function show() {
  const wanted = location.hash.slice(1);
  const [name, label, view] = VIEWS.find(([id]) => id === wanted) || VIEWS[0];
  leaving?.abort();
  leaving = new AbortController();
  for (const link of tabs.children) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${label} · ${store.run.name} · motive`;
  holder.className = `view-${name}`;
  view(holder, leaving.signal);
}

function showChoice() {
  const { chosen, included, excluded, undo, redo } = store.curation;
  const hand = [included ? `+${count(included)}` : "", excluded ? `−${count(excluded)}` : ""].filter(Boolean).join(" ");
  document.getElementById("chosen-count").replaceChildren(h("b", {}, count(chosen)), " chosen", hand ? h("span", { className: "quiet" }, ` ${hand} by hand`) : "");
  for (const [id, what] of [["undo", undo], ["redo", redo]]) {
    const button = document.getElementById(id);
    const label = id === "undo" ? "Undo" : "Redo";
    button.disabled = !what;
    button.setAttribute("aria-label", what ? `${label}: ${what}` : label);
    button.title = what ? `${label}: ${what}` : label;
  }
}

document.getElementById("undo").append(icon("undo"));
document.getElementById("redo").append(icon("redo"));
document.getElementById("undo").addEventListener("click", () => store.undo());
document.getElementById("redo").addEventListener("click", () => store.redo());
document.getElementById("open-export").addEventListener("click", () => {
  location.hash = "choice";
  requestAnimationFrame(() => document.getElementById("export-format")?.focus());
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=text], input[type=search], input[type=number], textarea, select")) return;
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && key === "z") {
    event.preventDefault();
    if (event.shiftKey) store.redo();
    else store.undo();
  } else if (key === "/" && !document.getElementById("detail").open) {
    const search = document.getElementById("search");
    if (search) { event.preventDefault(); search.focus(); }
  }
});

try {
  await store.open();
  const { name, model, clips, queries, failures } = store.run;
  document.getElementById("run-name").textContent = name;
  document.getElementById("run-facts").textContent = [model, plural(clips, "clip"), plural(queries.length, "query", "queries"), failures ? `${count(failures)} not ranked` : ""].filter(Boolean).join(" · ");
  tabs.replaceChildren(...VIEWS.map(([id, label]) => h("a", { href: `#${id}` }, label)));
  document.documentElement.style.setProperty("--aspect", store.run.aspect);
  showChoice();
  store.on("curation", showChoice);
  addEventListener("hashchange", show);
  show();
} catch (error) {
  holder.replaceChildren(h("p", { className: "empty" }, `The run cannot be shown: ${error.message}`));
}
