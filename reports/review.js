"use strict";
// Review of images: marks by key or by hand, kept where the browser keeps things, exported as YAML.
(() => {
  const section = document.getElementById("review");
  const list = document.querySelector(".page-list");
  if (!section && !list) return;
  const STATUSES = ["pass", "fail", "artefact"];
  const WORDS = { pass: "Pass", fail: "Fail", artefact: "Artefact" };
  const LOOKS = { pass: "pass", fail: "fail", artefact: "warn" };
  const REASONS = ["mask leaks", "mask misses cord", "wrong level", "not aligned", "motion", "ghosting",
    "wrap-around", "metal", "low signal", "wrong image"];
  const PREFIX = "cordqa-review:";
  const SVG = "http://www.w3.org/2000/svg";

  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  function button(text, action, key, className) {
    const node = make("button", text, className);
    node.type = "button";
    if (key) node.append(make("kbd", key));
    node.addEventListener("click", action);
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

  // --- Storage: a page on disk may be refused it, and then goes on without ----------------------
  function load(key) {
    try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
  }

  function save(key, value) {
    try { localStorage.setItem(key, JSON.stringify(value)); return true; } catch { return false; }
  }

  // --- YAML, as --exclude-from reads it ---------------------------------------------------------
  // A text in double quotes: JSON's escapes are YAML's, but for what YAML does not allow to stand as it is.
  function quote(text) {
    const whole = String(text).normalize("NFC").replace(/\p{Surrogate}/gu, "\ufffd");
    return JSON.stringify(whole).replace(/[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]/g,
      (sign) => "\\u" + sign.charCodeAt(0).toString(16).padStart(4, "0"));
  }

  function yamlOf(marks, reviewer) {
    const lines = [];
    for (const [image, mark] of Object.entries(marks)) {
      const slices = Object.entries(mark.slices || {}).sort((a, b) => a[0] - b[0]);
      if (!mark.status && !slices.length) continue;
      lines.push("- image: " + quote(image));
      if (mark.status) lines.push("  status: " + mark.status);
      if (mark.status && mark.reason) lines.push("  reason: " + quote(mark.reason));
      if (slices.length) lines.push("  slices:");
      for (const [number, one] of slices) {
        lines.push("  - slice: " + number, "    status: " + one.status);
        if (one.reason) lines.push("    reason: " + quote(one.reason));
      }
      if (reviewer) lines.push("  reviewer: " + quote(reviewer));
      if (mark.date) lines.push("  date: " + quote(mark.date));
    }
    const head = "# Marks of a reviewer, for: cordqa cord ... --exclude-from FILE";
    return [head, ...lines].join("\n") + "\n";
  }

  function download(text, name) {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/yaml;charset=utf-8" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function copy(text, area) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      area.closest("details").open = true;
      area.select();
      try { return document.execCommand("copy"); } catch { return false; }
    }
  }

  function isTyping(node) {
    return node.closest("textarea, select, input:not([type=radio]):not([type=checkbox])") !== null;
  }

  // --- The list of a study: what this browser knows of each page --------------------------------
  function setUpList() {
    const known = [...list.querySelectorAll("a")].map((link) => ({
      link, state: load(PREFIX + new URL(link.getAttribute("href"), location.href).href.split("#")[0]),
    })).filter((one) => one.state && one.state.marks);
    for (const { link, state } of known) {
      const marks = Object.values(state.marks).filter((mark) => mark.status);
      if (!marks.length) continue;
      const bad = marks.filter((mark) => mark.status !== "pass").length;
      const words = marks.length + " of " + state.total + " images marked" + (bad ? ", " + bad + " left out" : "");
      link.closest("li").append(make("span", words, "progress"));
    }
    if (!known.length) return;
    const bar = make("p", "", "exports");
    const text = () => yamlOf(Object.assign({}, ...known.map((one) => one.state.marks)), load("cordqa-reviewer"));
    bar.append(button("Download all marks of this browser (YAML)", () => download(text(), "review.yaml")));
    list.before(bar);
  }
  if (list) setUpList();

  function follow(direction) {
    const link = document.querySelector("a[rel=" + direction + "]");
    if (link) location.assign(link.href);
  }
  if (!section) {
    return;
  }

  // --- What is reviewed -------------------------------------------------------------------------
  const figures = [...section.querySelectorAll(".mosaic[data-image]")];
  const images = [...new Set(figures.map((figure) => figure.dataset.image))];
  const key = PREFIX + location.href.split("#")[0];
  const created = section.dataset.created || "";
  const unit = (images[0] || "").match(/^sub-[^_]+(_ses-[^_]+)?/)?.[0] || "images";
  const kept = load(key);
  const state = { marks: kept && kept.marks || {} };
  state.total = images.length;
  let reviewer = load("cordqa-reviewer") || "";
  let shortcuts = load("cordqa-shortcuts") !== false;
  let stored = true;
  let now = figures[0] || null;
  let tile = null;

  const tilesOf = (figure) => [...figure.querySelectorAll(".tile[data-slice]")];
  const markOf = (figure, one) => {
    const mark = state.marks[figure.dataset.image];
    return mark && one ? (mark.slices || {})[one.dataset.slice] : mark;
  };
  const nameOf = (figure, one) => figure.dataset.image + (one ? ", slice " + one.dataset.slice : "");

  // --- Marks ------------------------------------------------------------------------------------
  function setMark(status) {
    if (!now) return;
    const image = now.dataset.image;
    const mark = state.marks[image] = state.marks[image] || {};
    if (tile) {
      mark.slices = mark.slices || {};
      const number = tile.dataset.slice;
      if (status) mark.slices[number] = { ...mark.slices[number], status };
      else delete mark.slices[number];
    } else if (status) {
      mark.status = status;
    } else {
      delete mark.status;
      delete mark.reason;
    }
    mark.date = new Date().toISOString().slice(0, 19) + "Z";
    mark.page = created;
    if (!mark.status && !Object.keys(mark.slices || {}).length) delete state.marks[image];
    keep();
    draw();
    say(nameOf(now, tile) + ": " + (status ? WORDS[status] : "no mark"));
  }

  function setReason(text) {
    const mark = markOf(now, tile);
    if (!mark) return;
    mark.reason = text.trim();
    keep();
    drawMarks();
  }

  function keep() {
    stored = save(key, state);
    area.value = yaml();
  }

  const yaml = () => yamlOf(
    Object.fromEntries(images.filter((image) => state.marks[image]).map((image) => [image, state.marks[image]])),
    reviewer);

  // --- The panel above the images and the bar below them ----------------------------------------
  const panel = make("div", "", "review-panel");
  const area = make("textarea");
  const live = make("p", "", "hidden");
  live.setAttribute("role", "status");
  const count = make("output", "", "progress");
  const notice = make("p", "", "remark");

  function say(text) { live.textContent = text; }

  function field(label, value, action, list) {
    const wrap = make("label", label, "field");
    const input = make("input");
    input.type = "text";
    input.maxLength = 200;
    input.value = value;
    input.autocomplete = "off";
    if (list) input.setAttribute("list", list);
    input.addEventListener("input", () => action(input.value));
    wrap.append(input);
    return [wrap, input];
  }

  function setUpPanel() {
    const lead = make("p");
    lead.append("Mark every image: pass, fail (the mask, the levels or the alignment are wrong) or artefact (the "
      + "image itself is spoiled). Images marked fail or artefact are left out by the next run with ",
    make("code", "--exclude-from"), ". With a slice chosen, the mark concerns that slice alone.");
    const [who] = field("Reviewer", reviewer, (value) => {
      reviewer = value.trim();
      save("cordqa-reviewer", reviewer);
      area.value = yaml();
    });
    const copied = button("Copy YAML", async () => {
      const done = await copy(yaml(), area);
      say(done ? "copied" : "not copied");
      copied.firstChild.textContent = done ? "Copied" : "Select and copy below";
      setTimeout(() => { copied.firstChild.textContent = "Copy YAML"; }, 2000);
    });
    const row = make("div", "", "exports");
    row.append(who, button("Download YAML", () => download(yaml(), "review_" + unit + ".yaml")),
      copied, button("Keys", () => help.showModal(), "?"), count);
    const details = make("details");
    area.readOnly = true;
    area.rows = 8;
    area.spellcheck = false;
    area.setAttribute("aria-label", "Marks as YAML");
    area.id = "review-yaml";
    details.append(make("summary", "The marks as text"), area);
    panel.append(lead, row, notice, details, live);
    section.querySelector("h2").after(panel);
  }

  const bar = make("div", "", "review-bar");
  bar.setAttribute("role", "toolbar");
  bar.setAttribute("aria-label", "Mark the image");
  const target = make("span", "", "target");
  const [reasonField, reason] = field("Reason", "", setReason, "review-reasons");

  function markButtons() {
    const group = make("span", "", "marks");
    for (const status of STATUSES) {
      const one = button("", () => setMark(markOf(now, tile)?.status === status ? "" : status), status[0], "set " + status);
      one.prepend(icon(LOOKS[status]), WORDS[status]);
      one.dataset.status = status;
      group.append(one);
    }
    return group;
  }

  function setUpBar() {
    const reasons = make("datalist");
    reasons.id = "review-reasons";
    reasons.append(...REASONS.map((text) => { const one = make("option"); one.value = text; return one; }));
    const whole = button("Whole image", () => choose(now, null), "Esc", "whole");
    bar.append(target, markButtons(), whole, reasonField, reasons);
    section.append(bar);
  }

  function badge(mark) {
    const node = make("span", "", "badge mark " + LOOKS[mark.status]);
    node.append(icon(LOOKS[mark.status]), WORDS[mark.status] + (mark.reason ? ": " + mark.reason : ""));
    return node;
  }

  function drawMarks() {
    for (const figure of figures) {
      const head = figure.querySelector(".mosaic-head");
      head.querySelector(".mark")?.remove();
      const mark = markOf(figure, null);
      if (mark && mark.status) head.append(badge(mark));
      for (const one of tilesOf(figure)) {
        one.querySelector(".mark")?.remove();
        const own = markOf(figure, one);
        if (own) one.append(badge(own));
      }
    }
    const done = images.filter((image) => state.marks[image] && state.marks[image].status).length;
    count.textContent = done + " of " + images.length + " images marked";
    notice.textContent = !stored
      ? "This browser keeps no marks for pages on disk: download them before you leave."
      : Object.values(state.marks).some((mark) => mark.page !== created)
        ? "Some marks were made on an earlier run of this page: look again, and mark anew."
        : "";
    notice.hidden = !notice.textContent;
  }

  function draw() {
    figures.forEach((figure) => figure.classList.toggle("now", figure === now));
    section.querySelectorAll(".tile.now").forEach((one) => one.classList.remove("now"));
    if (tile) tile.classList.add("now");
    if (!now) return;
    const mark = markOf(now, tile);
    target.textContent = nameOf(now, tile);
    bar.querySelector(".whole").hidden = !tile;
    for (const one of section.querySelectorAll("[data-status]")) {
      one.setAttribute("aria-pressed", String(mark?.status === one.dataset.status));
    }
    reasonField.hidden = !mark || !mark.status || mark.status === "pass";
    if (document.activeElement !== reason) reason.value = mark?.reason || "";
    drawMarks();
  }

  // --- Going from image to image and slice to slice ---------------------------------------------
  function choose(figure, one, scroll) {
    now = figure;
    tile = one;
    for (const other of figures) {
      tilesOf(other).forEach((node, index) => { node.tabIndex = node === one || (other !== figure || !one) && !index ? 0 : -1; });
    }
    draw();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (one && scroll) {
      one.focus({ preventScroll: true });
      one.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
    } else if (scroll) {
      document.activeElement?.blur?.();
      figure.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
    }
    if (zoom.open && one) enlarge();
  }

  function stepImage(by) {
    if (zoom.open) zoom.close();
    const next = figures[figures.indexOf(now) + by];
    if (next) choose(next, null, true);
  }

  function stepSlice(by) {
    if (!now) return;
    const all = tilesOf(now);
    const at = tile ? all.indexOf(tile) + by : by > 0 ? 0 : all.length - 1;
    if (all[at]) choose(now, all[at], true);
  }

  // --- Pictures and overlays --------------------------------------------------------------------
  function showPicture(index) {
    const picks = now ? [...now.querySelectorAll(".pick input")] : [];
    if (!picks.length) return;
    const at = index < 0 ? (picks.findIndex((one) => one.checked) + 1) % picks.length : index;
    if (picks[at]) { picks[at].checked = true; say(picks[at].parentNode.textContent); }
    if (zoom.open) nameZoom();
  }

  const hidden = new WeakMap();
  function toggleOverlays() {
    if (!now) return;
    const boxes = [...now.querySelectorAll(".show input")];
    const shown = boxes.filter((one) => one.checked);
    if (shown.length) {
      hidden.set(now, shown);
      shown.forEach((one) => { one.checked = false; });
    } else {
      (hidden.get(now) || boxes).forEach((one) => { one.checked = true; });
    }
    say(shown.length ? "overlays off" : "overlays on");
  }

  // --- One slice, large: inside its figure, so that the same switches hold ----------------------
  const zoom = make("dialog", "", "zoom");
  const zoomPicture = make("div", "", "zoom-picture");
  const zoomWords = make("p", "", "zoom-words");

  function nameZoom() {
    const pick = now.querySelector(".pick input:checked");
    zoomWords.textContent = now.dataset.image + ": " + tile.dataset.words + (pick ? "; " + pick.parentNode.textContent : "");
  }

  function enlarge() {
    if (!tile) return;
    if (zoom.parentNode !== now) now.append(zoom);
    zoomPicture.replaceChildren(tile.querySelector("svg").cloneNode(true));
    nameZoom();
    if (!zoom.open) zoom.showModal();
    // Not on a button: a second Enter must not mark anything.
    zoomPicture.focus({ preventScroll: true });
    draw();
  }

  function setUpZoom() {
    zoom.setAttribute("aria-label", "One slice, large");
    zoomPicture.tabIndex = -1;
    const close = button("Close", () => zoom.close(), "Esc");
    const row = make("div", "", "exports");
    row.append(button("Previous", () => stepSlice(-1), "\u2190"), button("Next", () => stepSlice(1), "\u2192"),
      button("Overlay", toggleOverlays, "Space"), button("Picture", () => showPicture(-1), "v"),
      button("Voxels", () => zoom.classList.toggle("crisp"), "x"), close);
    zoom.append(zoomWords, zoomPicture, markButtons(), row);
    zoom.addEventListener("close", () => { if (tile) tile.focus({ preventScroll: true }); });
    zoom.addEventListener("click", (event) => { if (event.target === zoom) zoom.close(); });
    section.append(zoom);
  }

  // --- Help -------------------------------------------------------------------------------------
  const help = make("dialog", "", "help");
  const KEYS = [
    ["p f a", "mark pass, fail, artefact: the image, or the slice that is chosen"],
    ["u", "take the mark back"],
    ["r", "write the reason of a mark"],
    ["j k", "next, previous image"],
    ["\u2192 \u2190", "next, previous slice"],
    ["Enter", "enlarge the slice"],
    ["Esc", "close; back to the whole image"],
    ["Space", "overlays off and on"],
    ["v", "next picture (MT-on, MT-off, maps)"],
    ["1 to 8", "picture of that number"],
    ["x", "voxels as squares, in the enlarged slice"],
    ["n b", "next, previous participant"],
    ["?", "this list"],
  ];

  function setUpHelp() {
    const table = make("table");
    const body = make("tbody");
    for (const [keys, words] of KEYS) {
      const row = make("tr");
      const head = make("th");
      head.scope = "row";
      keys.split(" ").forEach((one) => head.append(one === "to" ? " to " : make("kbd", one)));
      row.append(head, make("td", words));
      body.append(row);
    }
    table.append(body);
    const label = make("label");
    const box = make("input");
    box.type = "checkbox";
    box.checked = shortcuts;
    box.addEventListener("change", () => { shortcuts = box.checked; save("cordqa-shortcuts", shortcuts); });
    label.append(box, " Single keys work (switch off where they disturb another program)");
    help.setAttribute("aria-label", "Keys");
    const close = button("Close", () => help.close(), "Esc");
    close.autofocus = true;
    help.append(make("h3", "Keys"), table, label, close);
    help.addEventListener("click", (event) => { if (event.target === help) help.close(); });
    section.append(help);
  }

  // --- Keys and clicks --------------------------------------------------------------------------
  const ACTIONS = {
    p: () => setMark("pass"), f: () => setMark("fail"), a: () => setMark("artefact"), u: () => setMark(""),
    j: () => stepImage(1), k: () => stepImage(-1), l: () => stepSlice(1), h: () => stepSlice(-1),
    ArrowRight: () => stepSlice(1), ArrowLeft: () => stepSlice(-1),
    v: () => showPicture(-1), x: () => zoom.classList.toggle("crisp"),
    n: () => follow("next"), b: () => follow("prev"), "?": () => help.showModal(),
    r: () => { if (zoom.open) zoom.close(); if (!reasonField.hidden) reason.focus(); },
    " ": toggleOverlays,
  };

  function onKey(event) {
    const node = event.target instanceof Element ? event.target : document.body;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (isTyping(node)) {
      if (event.key === "Escape" || event.key === "Enter" && node === reason) node.blur();
      return;
    }
    if (help.open) return;
    if (event.key === "Escape") {
      if (!zoom.open && tile) choose(now, null, false);
      return;
    }
    const onTile = node.classList.contains("tile");
    // Buttons, links and switches keep their own keys; a tile has Enter for enlarging.
    const onControl = !onTile && node.closest("button, a, summary, input, [tabindex='0']:not(.tile)") !== null;
    if (event.key === "Enter") {
      if (onTile) { event.preventDefault(); enlarge(); }
      return;
    }
    const native = event.key === " " || event.key.startsWith("Arrow");
    if (native && onControl && !(zoom.open && event.key.startsWith("Arrow"))) return;
    if (!shortcuts && !native) return;
    const action = /^[1-8]$/.test(event.key) ? () => showPicture(Number(event.key) - 1) : ACTIONS[event.key];
    if (!action || event.repeat && STATUSES.some((status) => status[0] === event.key)) return;
    event.preventDefault();
    action();
  }

  function onClick(event) {
    const one = event.target.closest(".tile[data-slice]");
    const figure = event.target.closest(".mosaic[data-image]");
    if (!figure || zoom.contains(event.target)) return;
    if (one) {
      choose(figure, one, false);
      enlarge();
    } else if (figure !== now) {
      choose(figure, null, false);
    }
  }

  setUpPanel();
  if (figures.length) {
    setUpZoom();
    setUpBar();
    setUpHelp();
    for (const figure of figures) {
      for (const one of tilesOf(figure)) {
        one.parentNode.setAttribute("role", "group");
        one.setAttribute("role", "button");
        one.setAttribute("aria-label", one.dataset.words + ". Enlarge");
        one.addEventListener("focus", () => { if (tile !== one) choose(figure, one, false); });
      }
    }
    document.addEventListener("keydown", onKey);
    section.addEventListener("click", onClick);
    choose(now, null, false);
    stored = save(key, state) || !Object.keys(state.marks).length;
    area.value = yaml();
    addEventListener("beforeunload", (event) => {
      if (!stored && Object.keys(state.marks).length) event.preventDefault();
    });
  }
})();
