"use strict";
(() => {
  const STEP = 200;
  const root = document.documentElement;

  // --- Tables: sorting, filter, more rows, download -------------------------------------------
  const looks = { "Pass": "pass", "Warning": "warn", "Fail": "fail", "Not evaluated": "none" };
  const ranks = { "Fail": 0, "Warning": 1, "Not evaluated": 2, "Pass": 3, "": 4 };
  const SVG = "http://www.w3.org/2000/svg";

  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  function icon(look) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "icon " + look);
    svg.setAttribute("viewBox", "0 0 20 20");
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", "#i-" + look);
    svg.append(use);
    return svg;
  }

  function unpack(column) {
    if (!column.text) column.text = column.at.map((index) => column.words[index]);
    return column;
  }

  function foldedNote(parts) {
    const node = make("details"), list = make("ul");
    node.append(make("summary", parts[0] + "; " + (parts.length - 1) + " more"), list);
    for (const part of parts.slice(1)) list.append(make("li", part));
    return node;
  }

  function rowNode(columns, names, index) {
    const row = make("tr");
    if (names[index]) row.dataset.n = names[index];
    columns.forEach((column, place) => {
      const text = column.text[index];
      const cell = make(place ? "td" : "th", "", column.kind === "text" || !place ? "" : column.kind);
      if (!place) cell.scope = "row";
      if (column.kind === "status" && text) {
        const badge = make("span", "", "badge " + (looks[text] || "none"));
        badge.append(icon(looks[text] || "none"), text);
        cell.append(badge);
      } else if (column.kind === "note" && text.length > 160 && text.includes("; ")) {
        cell.append(foldedNote(text.split("; ")));
      } else {
        cell.textContent = text;
      }
      row.append(cell);
    });
    return row;
  }

  function sortKey(column, index) {
    if (column.kind === "status") return ranks[column.text[index]] ?? 5;
    const value = column.raw ? column.raw[index] : column.text[index];
    return value === "" ? null : value;
  }

  // Unknown values stand last in either direction.
  function comparer(column, sign) {
    return (a, b) => {
      const x = sortKey(column, a), y = sortKey(column, b);
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      const order = typeof x === "number" && typeof y === "number"
        ? x - y
        : String(x).localeCompare(String(y), "en", { numeric: true });
      return sign * order || a - b;
    };
  }

  // Texts that a spreadsheet would run as a formula get a quote in front.
  function csvCell(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+@\t\r-]/.test(value) ? "'" + value : value;
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }

  function csv(columns, order) {
    const lines = [columns.map((column) => csvCell(column.label)).join(",")];
    for (const index of order) {
      lines.push(columns.map((column) => csvCell((column.raw || column.text)[index])).join(","));
    }
    return lines.join("\r\n") + "\r\n";
  }

  function download(text, name) {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function setUpTable(block) {
    const data = JSON.parse(block.querySelector("script").textContent);
    const columns = data.columns.map(unpack);
    const total = columns.length ? columns[0].text.length : 0;
    if (total < 2) return;
    const body = block.querySelector("tbody");
    const count = make("output");
    let order = [...Array(total).keys()];
    let shown = STEP;
    let words = [];
    let sorted = null;

    const more = block.querySelector(".more") || make("p", "", "remark more");
    block.querySelector(".scroll").after(more);
    const moreButton = make("button", "Show more rows");
    moreButton.type = "button";
    moreButton.addEventListener("click", () => { shown += 5 * STEP; draw(); });

    function draw() {
      const nodes = order.slice(0, shown).map((index) => rowNode(columns, data.names, index));
      body.replaceChildren(...nodes);
      count.textContent = order.length === total ? total + " rows" : order.length + " of " + total + " rows";
      more.replaceChildren();
      if (order.length > shown) more.append(shown + " of " + order.length + " rows are shown. ", moreButton);
      applyPin(block);
    }

    function arrange() {
      order = [...Array(total).keys()].filter((index) =>
        words.every((word) => columns.some((column) => column.text[index].toLowerCase().includes(word))));
      if (sorted) order.sort(comparer(columns[sorted.column], sorted.sign));
      draw();
    }

    block.querySelectorAll("thead th").forEach((head, place) => {
      const button = make("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const again = sorted && sorted.column === place && sorted.sign === 1;
        sorted = { column: place, sign: again ? -1 : 1 };
        block.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", again ? "descending" : "ascending");
        arrange();
      });
    });

    if (total < 12) return;
    const controls = make("div", "", "controls");
    {
      const filter = make("input");
      filter.type = "search";
      filter.placeholder = "Filter rows";
      filter.setAttribute("aria-label", "Filter rows");
      let timer = 0;
      filter.addEventListener("input", () => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
          arrange();
        }, 120);
      });
      controls.append(filter);
    }
    const save = make("button", "Download CSV");
    save.type = "button";
    save.addEventListener("click", () => download(csv(columns, order), data.file));
    controls.append(save, count);
    block.querySelector(".scroll").before(controls);
    if (total > shown) draw();
    else count.textContent = total + " rows";
  }

  // --- A name pinned everywhere ----------------------------------------------------------------
  const chip = make("div");
  chip.id = "pin";
  chip.hidden = true;
  const chipLink = make("a");
  const chipClose = make("button");
  chipClose.type = "button";
  chip.append(chipLink, chipClose);
  let pinned = "";

  // The page of a participant, where the list of this study has one.
  function pageOf(name) {
    const links = [...document.querySelectorAll(".page-list a")];
    return links.find((link) => link.textContent === name);
  }

  function applyPin(scope) {
    scope.querySelectorAll(".on").forEach((node) => node.classList.remove("on"));
    if (!pinned) return 0;
    const found = scope.querySelectorAll('[data-n="' + CSS.escape(pinned) + '"]');
    found.forEach((node) => node.classList.add("on"));
    return found.length;
  }

  function pin(name) {
    pinned = name === pinned ? "" : name;
    root.classList.toggle("has-pin", Boolean(pinned));
    const found = applyPin(document);
    chip.hidden = !pinned;
    chipClose.textContent = pinned + ": highlighted in " + found + (found === 1 ? " place" : " places") + "  ✕";
    const page = pinned ? pageOf(pinned) : null;
    chipLink.hidden = !page;
    if (page) {
      chipLink.href = page.getAttribute("href");
      chipLink.textContent = "Open its page";
    }
  }

  document.addEventListener("click", (event) => {
    const node = event.target.closest("[data-n]");
    if (!node || String(getSelection())) return;
    if (event.target.closest("a, button")) return;
    pin(node.dataset.n);
  });
  chipClose.addEventListener("click", () => pin(pinned));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && pinned) pin(pinned); });

  // --- Tooltips: at once, and on touch as well --------------------------------------------------
  const tip = make("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "tooltip");

  function tipText(node) {
    const title = node.querySelector(":scope > title");
    if (title) {
      node.dataset.tip = title.textContent;
      title.remove(); // else the browser shows its own as well
    }
    return node.dataset.tip;
  }

  function showTip(node) {
    const text = node ? tipText(node) : "";
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const box = node.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(6, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 6);
    const above = box.top - own.height - 8;
    tip.style.left = left + "px";
    tip.style.top = (above > 4 ? above : box.bottom + 8) + "px";
  }

  document.addEventListener("pointerover", (event) => {
    showTip(event.target.closest ? event.target.closest(".chart *") : null);
  });

  // --- Points by keyboard: arrows go from point to point, Enter pins ----------------------------
  const spoken = make("p", "", "hidden");
  spoken.setAttribute("role", "status");

  function setUpPoints(chart) {
    const points = [...chart.querySelectorAll("[data-n]:not(g)")];
    if (!points.length) return;
    let at = -1;
    chart.tabIndex = 0;
    chart.setAttribute("aria-label", chart.getAttribute("aria-label") + ". Arrow keys go from point to point.");
    chart.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (by) {
        at = (at + by + points.length) % points.length;
        showTip(points[at]);
        spoken.textContent = tip.textContent;
      } else if (event.key === "Enter" && points[at]) {
        pin(points[at].dataset.n);
      } else {
        return;
      }
      event.preventDefault();
    });
    chart.addEventListener("blur", () => { tip.hidden = true; });
  }
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true, capture: true });

  // --- Contents: mark where the reader is -------------------------------------------------------
  function followSections() {
    const links = new Map([...document.querySelectorAll("nav.contents a")].map((link) => [link.hash.slice(1), link]));
    const sections = [...document.querySelectorAll("main > section")];
    let waiting = false;
    const mark = () => {
      waiting = false;
      const line = innerHeight * 0.3;
      const passed = sections.filter((section) => section.getBoundingClientRect().top <= line);
      const current = passed.length ? passed[passed.length - 1].id : "";
      links.forEach((link, id) => {
        if (id === current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
    };
    addEventListener("scroll", () => {
      if (!waiting) { waiting = true; requestAnimationFrame(mark); }
    }, { passive: true });
    mark();
  }

  // --- Paper has no clicks: unfold everything ---------------------------------------------------
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not([open])").forEach((node) => {
      node.open = true;
      node.dataset.folded = "true";
    });
  });
  addEventListener("afterprint", () => {
    document.querySelectorAll("details[data-folded]").forEach((node) => { node.open = false; });
  });

  document.body.append(chip, tip, spoken);
  document.querySelectorAll("svg.chart").forEach(setUpPoints);
  document.querySelectorAll("[data-table]").forEach(setUpTable);
  followSections();
})();
