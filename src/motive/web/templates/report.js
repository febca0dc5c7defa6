// Wiring: the data, the two best-and-worst clips, one query at a time, the inspector of one clip.

const { bounded, clips, queries } = JSON.parse(document.getElementById("report-data").textContent);
const order = clips.map((_, index) => index).sort((a, b) => clips[a].rank - clips[b].rank);
for (const query of queries) query.scores = new Float32Array(bytesFromBase64(query.scores).buffer);
document.documentElement.classList.add("script");
const byId = (id) => document.getElementById(id);
const playable = (root) => [...root.querySelectorAll(".screen[data-preview]")];

// The mask: one switch and one opacity for the whole page.
byId("mask").addEventListener("change", (event) => document.documentElement.classList.toggle("no-mask", !event.target.checked));
const setOpacity = () => document.documentElement.style.setProperty("--mask-opacity", byId("opacity").value / 100);
byId("opacity").addEventListener("input", setOpacity);
setOpacity();
{
  const context = byId("legend").getContext("2d");
  for (let x = 0; x < 64; x++) {
    const [red, green, blue] = HEAT.slice(4 * Math.round((255 * x) / 63));
    context.fillStyle = `rgb(${red},${green},${blue})`;
    context.fillRect(x, 0, 1, 1);
  }
}

// Best and worst.
if (byId("verdicts")) {
  const transport = new Transport(byId("verdicts-play"), null, null);
  const deck = buildDeck(byId("verdicts"), playable(byId("verdicts")), null, transport);
  if (!deck) byId("verdicts-play").remove();
}

// Queries, one at a time.
const panels = [...document.querySelectorAll(".panel")];
const transport = new Transport(byId("play"), byId("scrub"), byId("time"));
const stretch = byId("stretch");
let activeDeck = null;
let activeQuery = -1;
let markScore = () => {};

function labelCuts(panel, deck) {
  for (const card of panel.querySelectorAll(".card")) {
    const clip = clips[card.dataset.clip];
    const own = clip.preview === null ? 0 : previewAt(clip.preview).duration;
    const cut = own > deck.duration * 1.001 && !deck.stretch;
    card.querySelector(".cut").textContent = cut ? `· first ${deck.duration.toFixed(1)} of ${own.toFixed(1)} s` : "";
  }
}

/** Scroll the list of queries, and never the page, until `link` is in view. */
function revealInList(link) {
  const list = byId("query-list"), top = link.offsetTop - list.offsetTop;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + link.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top + link.offsetHeight - list.clientHeight;
}

function showQuery(index) {
  if (index === activeQuery || !panels[index]) return;
  activeDeck?.dispose();
  activeDeck = null;
  activeQuery = index;
  panels.forEach((panel, k) => (panel.hidden = k !== index));
  for (const link of document.querySelectorAll("[data-query]")) {
    if (Number(link.dataset.query) === index) {
      link.setAttribute("aria-current", "true");
      revealInList(link);
    } else link.removeAttribute("aria-current");
  }
  if (byId("query-select")) byId("query-select").value = String(index);
  const panel = panels[index], query = queries[index];
  transport.deck = null;
  const screens = playable(panel);
  activeDeck = buildDeck(panel, screens, query.preview, transport);
  byId("play").closest(".transport").hidden = !activeDeck;
  if (activeDeck) {
    const lengths = activeDeck.players.map((player) => player.preview.duration);
    byId("stretch-label").hidden = lengths.every((length) => Math.abs(length - activeDeck.duration) < 1e-3);
    activeDeck.setStretch(stretch.checked);
    labelCuts(panel, activeDeck);
  }
  drawQueryChart();
}

function drawQueryChart() {
  if (activeQuery < 0 || !clips.length) return;
  const query = queries[activeQuery];
  markScore = drawHistogram(panels[activeQuery].querySelector(".histogram svg"), query.scores, query.threshold);
}

stretch.addEventListener("change", () => {
  activeDeck?.setStretch(stretch.checked);
  if (activeDeck) labelCuts(panels[activeQuery], activeDeck);
});
for (const link of document.querySelectorAll("[data-query]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    history.replaceState(null, "", link.hash);
    showQuery(Number(link.dataset.query));
  });
  link.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const links = [...document.querySelectorAll("[data-query]")].filter((other) => !other.closest("li").hidden);
    const next = links[links.indexOf(link) + step];
    next?.focus();
    next?.click();
  });
}
byId("query-select")?.addEventListener("change", (event) => showQuery(Number(event.target.value)));
byId("query-filter")?.addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const item of byId("query-list").children) item.hidden = !item.textContent.toLowerCase().includes(wanted);
});
for (const panel of panels) {
  const mark = (event) => {
    const card = event.target.closest?.(".card");
    markScore(card ? Number(card.dataset.score) : null);
  };
  panel.addEventListener("pointerover", mark);
  panel.addEventListener("focusin", mark);
  panel.addEventListener("pointerleave", () => markScore(null));
}
const queryFromHash = () => {
  const match = /^#query-(\d+)$/.exec(location.hash);
  return match && Number(match[1]) < queries.length ? Number(match[1]) : null;
};
addEventListener("hashchange", () => queryFromHash() !== null && showQuery(queryFromHash()));
if (queries.length) showQuery(queryFromHash() ?? 0);
else byId("play").closest(".transport").hidden = true;

// The inspector.
const inspector = byId("inspector");
const inspectorTransport = new Transport(byId("inspector-play"), byId("inspector-scrub"), byId("inspector-time"));
let inspectorDeck = null;
let inspected = null;

function closeInspectorDeck() {
  inspectorDeck?.dispose();
  inspectorDeck = null;
  inspectorTransport.deck = null;
}

function inspect(index) {
  const clip = clips[index];
  inspected = index;
  hideTooltip();
  closeInspectorDeck();
  byId("inspector-name").textContent = clip.file;
  byId("inspector-caption").textContent = clip.caption || "no caption";
  byId("inspector-note").textContent = clip.note;
  byId("inspector-note").hidden = !clip.note;
  byId("inspector-rank").textContent = `${clip.rank} of ${clips.length}${clip.selected ? ", selected" : ""}`;
  const facts = [
    ["votes", queries.some((query) => query.unwanted)
      ? `${clip.votes} (${clip.votes + clip.against} for, ${clip.against} against)`
      : `${clip.votes} of ${queries.length}`],
    ["mean influence", signed(clip.mean)],
    ["motion", `${decimal(clip.magnitude, 2)} px/frame`],
    ["frames", String(clip.frames)],
  ];
  byId("inspector-facts").replaceChildren(...facts.map(([name, value]) => {
    const row = document.createElement("div");
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    row.append(term, text);
    return row;
  }));
  const pulls = queries.map((query, k) => [query.scores[index], k]).sort((a, b) => b[0] - a[0]);
  const widest = Math.max(1e-12, ...queries.flatMap((query, k) => [Math.abs(query.scores[index]), Math.abs(queries[k].threshold)]));
  byId("inspector-pulls").replaceChildren(...pulls.map(([score, k]) => {
    const item = document.createElement("li");
    const name = document.createElement("a"), value = document.createElement("b"), bar = document.createElement("div");
    const fill = document.createElement("i"), mark = document.createElement("u");
    name.href = `#query-${k}`;
    name.textContent = queries[k].name;
    name.addEventListener("click", () => inspector.close());
    value.textContent = signed(score);
    bar.className = "bar";
    fill.className = score < 0 ? "minus" : "plus";
    fill.style.width = `${(50 * Math.abs(score)) / widest}%`;
    mark.style.left = `${50 + (50 * queries[k].threshold) / widest}%`;
    mark.title = `threshold ${scored(queries[k].threshold)}`;
    bar.append(fill, mark);
    const vote = document.createElement("span");
    vote.textContent = score > queries[k].threshold ? "vote" : "";
    item.append(name, bar, value, vote);
    return item;
  }));
  const at = order.indexOf(index);
  byId("inspector-previous").disabled = at === 0;
  byId("inspector-next").disabled = at === order.length - 1;
  const screen = byId("inspector-screen");
  const absent = document.createElement("span");
  absent.className = "absent";
  absent.textContent = "no preview";
  screen.replaceChildren(absent);
  if (!inspector.open) inspector.showModal();
  delete screen.dataset.preview;
  byId("inspector-transport").hidden = clip.preview === null;
  if (clip.preview !== null) {
    const { height, width } = previewAt(clip.preview);
    screen.dataset.preview = clip.preview;
    screen.style.setProperty("--box", Math.max(0.8, Math.min(16 / 9, width / height)));
    inspectorDeck = buildDeck(inspector, [screen], clip.preview, inspectorTransport);
  }
}

function inspectNeighbour(step) {
  const next = order[order.indexOf(inspected) + step];
  if (next !== undefined) inspect(next);
}

byId("inspector-previous").addEventListener("click", () => inspectNeighbour(-1));
byId("inspector-next").addEventListener("click", () => inspectNeighbour(1));
byId("inspector-close").addEventListener("click", () => inspector.close());
inspector.addEventListener("close", closeInspectorDeck);
inspector.addEventListener("click", (event) => event.target === inspector && inspector.close());
inspector.addEventListener("keydown", (event) => {
  if (event.target.matches("input")) return;
  if (event.key === "ArrowLeft") inspectNeighbour(-1);
  else if (event.key === "ArrowRight") inspectNeighbour(1);
});
for (const button of document.querySelectorAll("[data-open]")) {
  button.addEventListener("click", () => inspect(Number(button.dataset.open)));
}

// Charts and the table.
if (clips.length) {
  new RankStrip(byId("strip"), clips, order, 132, inspect);
  new Scatter(byId("scatter"), clips, order, 380, inspect);
  const votes = () => drawVotes(byId("votes"), clips, queries.length);
  new ResizeObserver(() => { votes(); drawQueryChart(); }).observe(byId("stage"));
  votes();
}
new ClipTable(clips, queries, inspect);
