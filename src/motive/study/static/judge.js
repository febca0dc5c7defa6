// The annotator's page: shows a pair, takes an answer, and does not let go of it before the server has it.

import { Together } from "./playback.js";

const element = (id) => document.getElementById(id);
const screens = ["welcome", "judge", "finished", "failed"];
const choices = [...document.querySelectorAll("input[name=choice]")];
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const keep = `motive-study-${document.body.dataset.keep}`;
const ANSWER_OF_KEY = { ArrowLeft: "left", ArrowDown: "tie", ArrowRight: "right" };

let turn = null; // what the server said last
let shownAt = 0;
let busy = false;

const together = new Together(element("left"), element("right"), {
  changed: showPlayback,
  seen: allowAnswer,
  loops: () => !calm.matches,
});

function show(screen) {
  for (const id of screens) element(id).hidden = id !== screen;
}

function notice(text) {
  element("notice").textContent = text;
  element("notice").hidden = !text;
}

function fail(reason, retry) {
  together.pause();
  element("reason").textContent = reason;
  element("retry").onclick = retry;
  show("failed");
  element("failed").querySelector("h1").focus();
}

const TRY_LATER = [408, 425, 429];

/**
 * Post and return [status, content]; a lost connection is waited for as long as it takes.
 *
 * What stands between may answer in the server's place: a proxy that is busy, or a network's log-in page
 * that says 200. All that the server grants has a total.
 */
async function post(address, content = {}) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 15000)) {
    try {
      const response = await fetch(address, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(content),
      });
      const said = (await response.json().catch(() => null)) ?? {};
      const later = response.status >= 500 || TRY_LATER.includes(response.status);
      if (!later && !(response.ok && said.total === undefined)) {
        notice("");
        return [response.status, said];
      }
    } catch { /* no connection */ }
    notice("No connection. Your answers are safe; trying again…");
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

// An answer lies in the browser until the server has it, so that closing the page loses none.
function recall() {
  try { return JSON.parse(localStorage.getItem(keep)); } catch { return null; }
}

function remember(answer) {
  try {
    if (answer) localStorage.setItem(keep, JSON.stringify(answer));
    else localStorage.removeItem(keep);
  } catch { /* storage is switched off: then it lives as long as the page */ }
}

/** Post an answer, and let go of it when the server has judged it: it has a total then, or is no answer. */
async function hand(answer) {
  const [status, content] = await post("/api/answers", answer);
  if (content.total !== undefined || status === 422) remember(null);
  return [status, content];
}

async function send(answer) {
  remember(answer);
  const [status, content] = await hand(answer);
  if (status === 409) notice("This pair was answered before; the first answer counts.");
  return follow(status, content);
}

async function follow(status, content) {
  if (status === 401) return fail("Please open the link that you were sent once more.", begin);
  if (content.total === undefined) return fail(`The server did not understand (${status}).`, begin);
  turn = content;
  showProgress();
  if (turn.place === null) return finish();
  return present();
}

async function begin() {
  const waiting = recall();
  const [status, content] = waiting ? await hand(waiting) : await post("/api/turn");
  if (status === 200 && content.done === 0 && content.place !== null) {
    turn = content;
    showProgress();
    show("welcome");
    return undefined;
  }
  return follow(status, content);
}

function showProgress() {
  const { place, done, total } = turn;
  element("progress").max = Math.max(1, total);
  element("progress").value = done;
  element("count").textContent = place === null ? `${done} of ${total} done` : `Pair ${done + 1} of ${total}`;
}

async function present() {
  show("judge");
  element("answer").reset();
  setAnswerable(false);
  element("loading").hidden = false;
  element("stage").setAttribute("aria-busy", "true");
  try {
    await together.load(["left", "right"].map((side) => `/places/${turn.place}/${side}`));
  } catch (error) {
    fail(`A video could not be loaded (${error.message}).`, present);
    return;
  }
  element("stage").style.setProperty("--ratio", together.ratio);
  element("loading").hidden = true;
  element("stage").removeAttribute("aria-busy");
  element("question").focus({ preventScroll: true });
  shownAt = performance.now();
  if (!calm.matches) await together.play();
}

function finish() {
  together.pause();
  const { done, more } = turn;
  element("all-kept").textContent = done === 1
    ? "Your answer is saved. You can close this page."
    : `All ${done} of your answers are saved. You can close this page.`;
  element("offer").hidden = !more;
  show("finished");
  element("finished").querySelector("h1").focus();
}

function setAnswerable(can) {
  for (const choice of choices) choice.disabled = !can;
  element("hint").textContent = can ? "" : "Watch both videos to the end first.";
  element("confirm").disabled = true;
}

function allowAnswer() {
  if (choices[0].disabled) setAnswerable(true);
}

function choose(value) {
  const choice = choices.find((one) => one.value === value);
  if (choice.disabled) {
    element("hint").classList.remove("again");
    requestAnimationFrame(() => element("hint").classList.add("again"));
    return;
  }
  choice.checked = true;
  choice.focus({ preventScroll: true });
  element("confirm").disabled = false;
}

async function confirm() {
  const choice = choices.find((one) => one.checked);
  if (busy || !choice || choice.disabled) return;
  busy = true;
  setAnswerable(false);
  element("hint").textContent = "Saving…";
  try {
    await send({
      place: turn.place,
      choice: choice.value,
      response_ms: Math.min(86400000, Math.round(performance.now() - shownAt)),
    });
  } finally {
    busy = false;
  }
}

async function more() {
  if (busy) return; // a double click would take over twice as many
  busy = true;
  try {
    await follow(...await post("/api/more"));
  } finally {
    busy = false;
  }
}

function showPlayback() {
  const { playing, time, duration } = together;
  element("play").dataset.playing = playing;
  element("play").querySelector("span").textContent = playing ? "Pause" : "Play";
  const seek = element("seek");
  seek.value = duration ? Math.round((1000 * time) / duration) : 0;
  seek.setAttribute("aria-valuetext", `${time.toFixed(1)} of ${duration.toFixed(1)} seconds`);
}

element("start").addEventListener("click", present);
element("play").addEventListener("click", () => (together.playing ? together.pause() : together.play()));
element("replay").addEventListener("click", () => together.replay());
element("slow").addEventListener("click", () => {
  const slow = together.rate === 1;
  together.setRate(slow ? 0.5 : 1);
  element("slow").setAttribute("aria-pressed", String(slow));
});
element("seek").addEventListener("input", (event) => {
  const time = (event.target.value / 1000) * together.duration; // before pausing moves the slider back
  together.pause();
  together.seek(time);
});
for (const choice of choices) choice.addEventListener("change", () => choose(choice.value));
element("answer").addEventListener("submit", (event) => {
  event.preventDefault();
  confirm();
});
element("more").addEventListener("click", more);

document.addEventListener("keydown", (event) => {
  if (element("judge").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const inSlider = event.target === element("seek");
  const onButton = event.target instanceof HTMLButtonElement;
  if (event.key in ANSWER_OF_KEY && !inSlider) choose(ANSWER_OF_KEY[event.key]);
  else if (event.key === "Enter" && !onButton) confirm();
  else if (event.key === " " && !onButton && !inSlider) element("play").click();
  else if (event.key === "Home" && !inSlider) together.replay();
  else return;
  event.preventDefault();
});

begin();
