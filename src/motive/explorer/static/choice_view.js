// The choice as a whole: diversity and its effect, the history of decisions, and the export.

import { get, post } from "./api.js";
import { count, debounce, h, number, plural, toast } from "./dom.js";
import { store } from "./store.js";

export function choiceView(holder, signal) {
  const effect = h("div", { className: "effect", attrs: { "aria-live": "polite" } });
  const history = h("ol", { className: "history" });
  const summary = h("p", {});
  const form = diversityForm((wish) => preview(wish));
  const preview = debounce(async (wish) => {
    try {
      effect.classList.add("waiting");
      const found = await post("/api/diversity/effect", wish);
      if (!signal.aborted) effect.replaceChildren(...effectTables(found, wish));
    } catch (error) {
      effect.replaceChildren(h("p", { className: "quiet" }, error.message));
    } finally {
      effect.classList.remove("waiting");
    }
  }, 150);
  const load = async () => {
    const found = await get("/api/curation");
    if (signal.aborted) return;
    summary.replaceChildren(h("b", {}, plural(found.chosen, "clip")), ` chosen; computed ${count(found.computed)}, by hand ${count(found.included)} included and ${count(found.excluded)} excluded, ${plural(found.notes, "note")}.`);
    history.replaceChildren(...found.events.map((event) => h("li", { className: event.undone === "1" ? "undone" : "" }, h("span", {}, event.what), h("time", { className: "quiet", dateTime: event.at }, new Date(event.at).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })))));
    if (!found.events.length) history.replaceChildren(h("li", { className: "quiet" }, "nothing decided yet"));
    form.fill(found.diversity);
    preview(form.wish());
  };
  store.on("curation", load, signal);
  holder.replaceChildren(h("div", { className: "page choice" },
    h("div", { className: "page-head" }, h("h2", {}, "Choice"), summary),
    h("div", { className: "two" },
      h("section", { className: "panel" }, h("h3", {}, "Diversity"), h("p", { className: "quiet" }, "What is not filled in asks for nothing. Decisions by hand come before it."), form.element, effect),
      h("div", {}, exportPanel(signal),
        h("section", { className: "panel" }, h("h3", {}, "Decisions"), h("p", { className: "quiet" }, "Kept in curation.sqlite beside the run; the computed selection stays as it is."), history)))));
  load();
}

function diversityForm(changed) {
  const field = (id, label, hint, props) => {
    const input = h("input", { id, type: "number", ...props, oninput: () => changed(wish()) });
    return [h("div", { className: "field" }, h("label", { htmlFor: id }, label, h("span", { className: "quiet" }, hint)), input), input];
  };
  const [duplicateField, perDuplicate] = field("per-duplicate", "Of near-duplicates, at most", "by gradient", { min: 1, step: 1, placeholder: "any" });
  const [similarityField, similarity] = field("similarity", "Near-duplicate from a cosine of", "0 to 1", { min: 0.5, max: 1, step: 0.01, value: 0.95 });
  const [sourceField, perSource] = field("per-source", "Of one source, at most", "", { min: 1, step: 1, placeholder: "any" });
  const [motionField, perMotion] = field("per-motion", "Of each motion, at least", "clips with its vote", { min: 1, step: 1, placeholder: "any" });
  const sourceBy = h("select", { id: "source-by", onchange: () => changed(wish()) }, store.run.sources.map((name) => h("option", { value: name }, name)));
  const refill = h("input", { type: "checkbox", id: "refill", onchange: () => changed(wish()) });
  const whole = (input) => (input.value.trim() ? Math.max(1, Math.round(Number(input.value))) : null);
  const wish = () => ({
    per_duplicate: whole(perDuplicate), similarity: Math.min(1, Math.max(0.01, Number(similarity.value) || 0.95)),
    per_source: whole(perSource), source_by: sourceBy.value || "folder", per_motion: whole(perMotion), refill: refill.checked,
  });
  const apply = (body) => store.change("/api/diversity", body, (done) => toast(`${plural(done.chosen, "clip")} chosen`));
  const none = { per_duplicate: null, similarity: 0.95, per_source: null, source_by: "folder", per_motion: null, refill: false };
  const element = h("form", { className: "fields", onsubmit: (event) => { event.preventDefault(); apply(wish()); } },
    duplicateField, similarityField, sourceField,
    h("div", { className: "field" }, h("label", { htmlFor: "source-by" }, "A source is", h("span", { className: "quiet" }, "folder or dataset column")), sourceBy),
    motionField,
    h("div", { className: "field check" }, refill, h("label", { htmlFor: "refill" }, "Give the places of excluded clips to the next best")),
    h("div", { className: "actions" }, h("button", { type: "submit", className: "primary" }, "Apply"), h("button", { type: "button", onclick: () => apply(none) }, "Back to the computed selection")));
  return {
    element, wish,
    fill(saved) {
      perDuplicate.value = saved.per_duplicate ?? "";
      similarity.value = saved.similarity;
      perSource.value = saved.per_source ?? "";
      sourceBy.value = saved.source_by;
      perMotion.value = saved.per_motion ?? "";
      refill.checked = saved.refill;
    },
  };
}

function effectTables(found, wish) {
  const cell = (text) => h("td", { className: "num" }, text);
  const made = (name, before, after, shown) => h("tr", {}, h("th", { scope: "row" }, name), cell(shown(before, false)), cell(shown(after, false)), cell(before === null || after === null ? "–" : shown(after - before, true)));
  const row = (name, before, after, digits) => made(name, before, after, (value, signed) => number(value, digits, signed));
  const scores = (name, before, after) => made(name, before, after, (value, signed) => store.score(value, 4, signed));
  const head = (first) => h("thead", {}, h("tr", {}, [first, "Computed", "With this", "Change"].map((t, i) => h("th", { scope: "col", className: i ? "num" : "" }, t))));
  const rows = [
    row("Clips", found.before.count, found.after.count, 0), scores("Mean score", found.before.mean_score, found.after.mean_score), row("Mean votes", found.votes[0], found.votes[1], 2),
    found.duplicates ? row(`Repeated near-duplicates (≥ ${wish.similarity})`, found.duplicates[0], found.duplicates[1], 0) : "",
  ];
  return [
    h("h4", {}, "Effect, with the decisions by hand"), h("p", { className: "quiet" }, `${plural(found.entered, "clip")} come in, ${count(found.left)} go out.`),
    h("div", { className: "wide" }, h("table", {}, head("Choice"), h("tbody", {}, rows))),
    h("div", { className: "wide" }, h("table", {}, head("Chosen clips with a vote, by motion"), h("tbody", {}, found.motions.map((m) => row(m.name, m.before, m.after, 0))))),
    h("details", {}, h("summary", {}, "Mean score of the chosen, by query"), h("div", { className: "wide" }, h("table", {}, head("Query"), h("tbody", {}, found.queries.map((q) => scores(q.file_name, q.before, q.after)))))),
  ];
}

export function exportPanel(signal) {
  const format = h("select", { id: "export-format", onchange: () => { if (!touched) name.value = suggestion(); } }, store.run.formats.map((f) => h("option", { value: f }, f)));
  let touched = false;
  const suggestion = () => `${format.value}-${new Date().toISOString().slice(0, 16).replace(/[-:]/g, "").replace("T", "-")}`;
  const name = h("input", { id: "export-name", type: "text", required: true, maxLength: 80, oninput: () => { touched = true; } });
  name.value = suggestion();
  const link = h("input", { type: "checkbox", id: "export-link" });
  const state = h("p", { className: "export-state", id: "export-state", attrs: { role: "status" } });
  const button = h("button", { type: "submit", className: "primary", id: "export-start" });
  const say = () => { button.textContent = `Export ${plural(store.curation.chosen, "clip")}`; };
  say();
  store.on("curation", say, signal);
  const follow = async (job) => {
    state.classList.remove("wrong");
    while (job.state === "running" && !signal?.aborted) {
      state.textContent = `writing ${job.folder} … ${number(job.seconds)} s`;
      await new Promise((done) => setTimeout(done, 400));
      job = await get(`/api/export/${job.job}`);
    }
    state.textContent = job.message;
    state.classList.toggle("wrong", job.state === "failed");
    button.disabled = false;
    touched = false;
  };
  const start = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await follow(await post("/api/export", { format: format.value, name: name.value, link: link.checked }));
    } catch (error) {
      state.textContent = error.message;
      state.classList.add("wrong");
      button.disabled = false;
    }
  };
  return h("section", { className: "panel", id: "export" }, h("h3", {}, "Export"),
    h("form", { className: "fields", onsubmit: start },
      h("div", { className: "field" }, h("label", { htmlFor: "export-format" }, "Format"), format),
      h("div", { className: "field" }, h("label", { htmlFor: "export-name" }, "Folder", h("span", { className: "quiet" }, "in exports/ of the run")), name),
      h("div", { className: "field check" }, link, h("label", { htmlFor: "export-link" }, "Symbolic links instead of copies")),
      h("div", { className: "actions" }, button)), state);
}
