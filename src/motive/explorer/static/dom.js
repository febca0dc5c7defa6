// Elements, numbers and messages. Text of the run (captions, names, notes) only ever becomes a text node.

/** An element. `props`: properties, `on…` listeners, `data`, `aria`, `attrs`; children: nodes or text. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "aria") {
      for (const [key, text] of Object.entries(value)) element.setAttribute(`aria-${key}`, text);
    } else if (name === "attrs") {
      for (const [key, text] of Object.entries(value)) element.setAttribute(key, text);
    } else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SHAPES = {
  undo: "M7.5 5 4 8.5 7.5 12M4 8.5h7.5a4 4 0 0 1 0 8H8",
  redo: "M12.5 5 16 8.5 12.5 12M16 8.5H8.5a4 4 0 0 0 0 8H12",
  check: "m4.5 10.5 3.6 3.6 7.4-8",
  cross: "m5.5 5.5 9 9m0-9-9 9",
  play: "M6.5 4.5v11l9-5.5z",
  pause: "M7 5v10M13 5v10",
  back: "M12.5 4.5 7 10l5.5 5.5",
  forward: "M7.5 4.5 13 10l-5.5 5.5",
  note: "M5 4.5h10v11H5zM7.5 8h5M7.5 11h3",
  up: "M10 16V4.5M5.5 9 10 4.5 14.5 9",
  down: "M10 4v11.5M5.5 11l4.5 4.5 4.5-4.5",
  filter: "M3.5 5.5h13M6 10h8M8.5 14.5h3",
};

/** One of a few line drawings, hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("drawing");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", SHAPES[name]);
  if (name === "play") path.classList.add("solid");
  svg.append(path);
  return svg;
}

const whole = new Intl.NumberFormat("en");
export const count = (n) => whole.format(n);
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** A number with so many digits after the point; a dash for none. */
export function number(value, digits = 0, signed = false) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const text = Math.abs(value).toFixed(digits);
  const negative = value < 0 && Number(text) !== 0;
  if (negative) return `−${text}`;
  return signed ? `+${text}` : text;
}

/** A number below 0.001 by three significant digits, as Python's `g` writes it; a longer one as `number` does. */
export function fine(value, digits = 0, signed = false) {
  const size = Math.abs(value ?? 0);
  if (!(size > 0 && size < 0.001)) return number(value, digits, signed);
  const [figures, power] = size.toExponential(2).replace(/\.?0+e/, "e").split("e");
  const text = power >= -4 ? String(Number(size.toPrecision(3))) : `${figures}e-${String(-power).padStart(2, "0")}`;
  return (value < 0 ? "−" : signed ? "+" : "") + text;
}

/** A message that goes by itself; `wrong` stays longer. */
export function toast(text, { wrong = false, action = null } = {}) {
  const box = h("div", { className: wrong ? "toast wrong" : "toast" }, h("span", {}, text));
  if (action) box.append(h("button", { type: "button", onclick: () => { action.run(); box.remove(); } }, action.label));
  const holder = document.getElementById("toasts");
  while (holder.childElementCount > 3) holder.firstElementChild.remove();
  holder.append(box);
  setTimeout(() => box.remove(), wrong ? 9000 : 4500);
}

export const shortName = (fileName) => fileName.split("/").pop();
export const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** The value of a colour of the style sheet. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A function that runs after `ms` without another call. */
export function debounce(run, ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...given), ms);
  };
}
