// The table of all clips: sorted, filtered, and with rows made only as they are scrolled to.

const ROWS_AT_ONCE = 100;

class ClipTable {
  constructor(clips, queries, onOpen) {
    Object.assign(this, { clips, queries, onOpen, key: "rank", direction: 1, rows: [], made: 0 });
    this.frame = document.getElementById("table-frame");
    this.body = document.getElementById("clip-rows");
    this.filter = document.getElementById("clip-filter");
    this.selectedOnly = document.getElementById("selected-only");
    this.count = document.getElementById("clip-count");
    this.haystack = clips.map((clip) =>
      [clip.file, clip.caption, this.bestName(clip), clip.note].join("\n").toLowerCase());
    this.widest = Math.max(1e-12, ...clips.map((clip) => Math.abs(clip.mean)));
    for (const button of this.frame.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => this.sort(button.dataset.sort));
    }
    this.filter.addEventListener("input", () => this.update());
    this.selectedOnly.addEventListener("change", () => this.update());
    this.frame.addEventListener("scroll", () => this.fill());
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-clip]");
      if (row) onOpen(Number(row.dataset.clip));
    });
    this.update();
  }

  bestName(clip) {
    return clip.best === null ? "" : this.queries[clip.best].name;
  }

  value(clip) {
    return this.key === "best" ? this.bestName(clip) : clip[this.key];
  }

  sort(key) {
    // The first click shows what one looks for: names from A, rank from 1, other numbers from the top.
    const natural = ["rank", "file", "best"].includes(key) ? 1 : -1;
    this.direction = key === this.key ? -this.direction : natural;
    this.key = key;
    for (const button of this.frame.querySelectorAll("[data-sort]")) {
      const cell = button.closest("th");
      if (button.dataset.sort !== key) cell.removeAttribute("aria-sort");
      else cell.setAttribute("aria-sort", this.direction > 0 ? "ascending" : "descending");
    }
    this.update();
  }

  update() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = this.clips.map((_, index) => index).filter((index) =>
      (!this.selectedOnly.checked || this.clips[index].selected) &&
      words.every((word) => this.haystack[index].includes(word)));
    const compare = (a, b) => {
      const left = this.value(a), right = this.value(b);
      const order = typeof left === "string"
        ? left.localeCompare(right, undefined, { numeric: true })
        : left - right;
      return this.direction * order || a.rank - b.rank;
    };
    this.rows = kept.sort((a, b) => compare(this.clips[a], this.clips[b]));
    this.count.textContent = `${kept.length.toLocaleString("en")} of ${this.clips.length.toLocaleString("en")} clips`;
    this.body.replaceChildren();
    this.made = 0;
    this.frame.scrollTop = 0;
    this.fill();
  }

  fill() {
    while (this.made < this.rows.length && this.frame.scrollTop + 2 * this.frame.clientHeight + 200 > this.frame.scrollHeight - 200) {
      const next = this.rows.slice(this.made, this.made + ROWS_AT_ONCE);
      this.body.append(...next.map((index) => this.row(index)));
      this.made += next.length;
    }
  }

  row(index) {
    const clip = this.clips[index];
    const row = document.createElement("tr");
    row.dataset.clip = index;
    row.classList.toggle("chosen", clip.selected);
    const cell = (name, ...content) => {
      const node = document.createElement("td");
      node.className = name;
      node.append(...content);
      row.append(node);
      return node;
    };
    const element = (tag, name, text = "") => {
      const node = document.createElement(tag);
      node.className = name;
      node.textContent = text;
      return node;
    };
    const rank = cell("num", String(clip.rank));
    if (clip.selected) rank.append(element("span", "sr", " selected"));
    const name = element("button", "open", clip.file);
    name.type = "button";
    const caption = element("span", "caption", clip.caption);
    caption.dir = "auto";
    caption.title = clip.caption;
    cell("clip", name, caption);
    if (clip.note) row.lastChild.append(element("span", "note", clip.note));
    const votes = cell("num", String(clip.votes));
    if (clip.against) votes.title = `${clip.votes + clip.against} for, ${clip.against} against`;
    const bar = element("div", "bar");
    const fill = element("i", clip.mean < 0 ? "minus" : "plus");
    fill.style.width = `${(50 * Math.abs(clip.mean)) / this.widest}%`;
    bar.append(fill);
    bar.setAttribute("aria-hidden", "true");
    cell("num mean", signed(clip.mean), bar);
    cell("wide", this.bestName(clip) || "–");
    cell("num wide", decimal(clip.magnitude, 2));
    cell("num wide", String(clip.frames));
    return row;
  }
}
