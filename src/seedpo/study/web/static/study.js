"use strict";
// The page on which a rater judges images: pairs, single images, or the best and the worst of several.
(() => {
  const $ = (id) => document.getElementById(id);
  const address = $("study").dataset.address;
  const collects = $("study").dataset.kind === "collect";
  const server = serverOf(address, trouble);
  const { items, name, frames, arrange } = viewOf($("items"), $("item"));
  const FORMS = {
    pair: {
      ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right", ArrowDown: "tie", 3: "tie", t: "tie", b: "bad", s: "skip",
    },
    single: { ArrowLeft: "dislike", 1: "dislike", d: "dislike", ArrowRight: "like", 2: "like", l: "like", s: "skip" },
    "best-worst": { c: "ranked", x: "bad", s: "skip" },
  }; // keys of each form
  const REST = 400; // milliseconds after an answer in which no other is taken

  let csrf = "";
  let current = null; // the task on the screen
  let asked = null; // the question of the newest task
  let revisited = false; // whether it was answered before and is shown for correction
  let progress = { done: 0, total: 0 };
  let coming = []; // addresses of images that come next
  let ahead = []; // these images, held so that the browser keeps them
  let shownAt = null; // when all images were there
  let marks = {}; // best and worst: places, as far as they are chosen
  let busy = false; // an answer is on its way
  let resting = false; // an answer was given a moment ago: the second half of a double click is not a vote on the next task
  let ended = false; // the link does not work any more
  let wanted = null; // the button that had the focus when it was disabled
  let serial = 0; // of what is on the screen; what belongs to an earlier one is dropped
  const given = new Map(); // answers of this visit by show, to mark them when going back

  const choices = () => [...$("task").querySelectorAll("button[data-side]")];

  function trouble(sentence, canRetry = false) {
    const focused = document.activeElement;
    $("error").hidden = !sentence;
    $("retry").hidden = !canRetry;
    const text = $("error").querySelector("[data-text]");
    if (text.textContent !== sentence) text.textContent = sentence;
    rescue(focused);
  }
  // `spoken` is for screen readers only: what everybody else sees at a glance.
  function say(sentence, spoken = "") {
    $("status").querySelector("[data-shown]").textContent = sentence;
    $("status").querySelector("[data-spoken]").textContent = spoken;
  }
  const news = () => (current ? `${$("fresh").hidden ? "" : `New question: ${current.question} `}Prompt: ${current.prompt}` : "");
  // Where the element that had the focus has gone, the focus goes to the question, not to the beginning of the page.
  function rescue(focused) {
    if (focused !== document.body && !focused.checkVisibility()) $("question").focus({ preventScroll: true });
  }
  function refused(error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 410 || error.status === 404) { ended = true; able(false); }
    trouble(error.message, false);
  }

  // ---- Showing

  function section(shown) {
    for (const id of ["instructions", "task", "done"]) $(id).hidden = id !== shown;
  }
  function take(state) {
    csrf = state.csrf || csrf;
    progress = state.progress;
    coming = state.preload || [];
    const { done, total } = progress;
    $("progress").querySelector("[data-count]").textContent = `${done} of ${total}`;
    const bar = $("progress").querySelector("progress");
    bar.max = Math.max(total, 1);
    bar.value = done;
  }
  function able(yes) {
    const focused = document.activeElement;
    const marking = [...$("items").querySelectorAll(".mark")];
    if (!yes && [...choices(), ...marking].includes(focused)) wanted = focused;
    const closed = ended || busy || resting || !current;
    const complete = marks.best !== undefined && marks.worst !== undefined;
    for (const button of choices()) {
      const { side } = button.dataset;
      button.disabled = closed || !(side === "skip" || yes) || (side === "ranked" && !complete);
    }
    for (const button of marking) button.disabled = closed || !yes;
    if (!yes || resting || busy) return;
    if (wanted && document.activeElement === document.body) {
      (wanted.isConnected && !wanted.hidden && !wanted.disabled ? wanted : $("question")).focus({ preventScroll: true });
    }
    wanted = null;
  }
  async function loadAll(images, mine) {
    const failed = [];
    await Promise.all(images.map(async (picture) => {
      try { await load(picture); }
      catch {
        await new Promise((resolve) => setTimeout(resolve, 700));
        if (mine !== serial) return;
        try { await load(picture); }
        catch { picture.parentElement.classList.add("failed"); failed.push(picture); }
      }
    }));
    if (mine !== serial) return;
    if (failed.length) {
      const lost = items().map((_, place) => place).filter((place) => failed.some((picture) => items()[place].contains(picture)));
      const which = current.form === "single" ? "The image" : `An image of ${lost.map(name).join(" and ")}`;
      trouble(`${which} did not load. Try again${current.choices.includes("skip") ? ", or skip" : ""}.`, true);
      server.onRetry(() => { trouble(""); loadAll(failed, mine); });
      return;
    }
    shownAt = performance.now();
    able(true);
    if (!revisited) ahead = coming.map((url) => Object.assign(new Image(), { src: url }));
  }
  function present(task, { again = false } = {}) {
    const mine = ++serial;
    const focused = document.activeElement;
    current = task;
    revisited = again;
    busy = false;
    shownAt = null;
    trouble("");
    if (!task) { finish(); return; }
    section("task");
    $("fresh").hidden = again || asked === null || asked === task.question;
    if (!again) asked = task.question;
    $("question").textContent = task.question;
    $("prompt").textContent = task.prompt;
    $("prompt").parentElement.hidden = !task.prompt;
    $("prompt").scrollTop = 0;
    const long = $("prompt").scrollHeight > $("prompt").clientHeight + 2;
    $("prompt").classList.toggle("long", long);
    $("prompt").tabIndex = long ? 0 : -1;
    $("forward").hidden = !again;
    const images = frames(task);
    for (const part of document.querySelectorAll("#instructions [data-form], #guide, .answers [data-form]")) part.hidden = !fit(part, task);
    const before = again && given.get(task.show);
    marks = before && before.side === "ranked" ? { best: before.best, worst: before.worst } : {};
    pressed(before?.side);
    showMarks();
    able(false);
    rescue(focused);
    loadAll(images, mine);
  }
  function pressed(side) {
    for (const button of choices()) {
      if (button.dataset.side === side) button.setAttribute("aria-pressed", "true");
      else button.removeAttribute("aria-pressed");
    }
  }
  function finish() {
    section("done");
    $("correct").hidden = !progress.done;
    $("done").querySelector("h2").focus();
    if (collects) setTimeout(look, 10000);
  }

  // ---- Best and worst of several

  function mark(kind, place) {
    const other = kind === "best" ? "worst" : "best";
    if (marks[kind] === place) delete marks[kind];
    else {
      if (marks[other] === place) delete marks[other];
      marks[kind] = place;
    }
    showMarks();
    able(true);
    const chosen = ["best", "worst"].filter((one) => marks[one] !== undefined).map((one) => `${name(marks[one])} is the ${one}.`);
    say("", [...chosen, $("guide").textContent].join(" "));
  }
  // The number of an image marks it as the best, or then as the worst, or takes its mark away.
  function markByNumber(place) {
    const kind = ["best", "worst"].find((one) => marks[one] === place) || ["best", "worst"].find((one) => marks[one] === undefined);
    if (kind) mark(kind, place);
    else say("Take a mark away first.");
  }
  function showMarks() {
    for (const [place, item] of items().entries()) {
      item.dataset.marked = ["best", "worst"].find((kind) => marks[kind] === place) || "";
      for (const button of item.querySelectorAll(".mark")) button.setAttribute("aria-pressed", String(marks[button.dataset.mark] === place));
    }
    const missing = ["best", "worst"].filter((kind) => marks[kind] === undefined);
    $("guide").textContent = missing.length ? `Mark the ${missing.join(" and the ")}.` : "Confirm, or change your marks.";
  }

  // ---- What a rater does

  async function answer(side) {
    const button = choices().find((one) => one.dataset.side === side && !one.hidden);
    if (!current || busy || !button || button.disabled) return;
    busy = true;
    resting = true;
    setTimeout(() => { resting = false; able(shownAt !== null); }, REST);
    const seconds = shownAt === null ? null : Math.min(86400, Math.round(performance.now() - shownAt) / 1000);
    const places = side === "ranked" ? marks : {};
    server.add({ show: current.show, side, seconds, ...places });
    given.set(current.show, { side, ...places });
    pressed(side);
    able(false);
    say("Saving…");
    await flush();
  }
  let flushing = null;
  function flush() {
    flushing = flushing || sendAll().finally(() => { flushing = null; });
    return flushing;
  }
  // Whether all answers are saved, of which there was at least one.
  async function sendAll() {
    let last = null;
    let refreshed = false;
    for (let entry = server.queue()[0]; entry; entry = server.queue()[0]) {
      try {
        const options = {
          method: "POST",
          headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
          body: JSON.stringify(entry),
        };
        last = await server.ask("/vote", options, "Your answer is not saved yet: no connection. It is kept here and sent again by itself.");
        server.drop(entry);
        tabs?.postMessage({ saved: entry.show });
      } catch (error) {
        if (error instanceof Refused && error.status === 403 && !refreshed) {
          refreshed = true; // the server was given a new key; the page's token is old
          csrf = (await server.ask("/task")).csrf;
          continue;
        }
        server.drop(entry);
        busy = false;
        refused(error);
        if (!ended) { await newest(); trouble(error.message); }
        say("Your last answer was not saved.");
        return false;
      }
    }
    if (!last) return false;
    take(last);
    present(last.task);
    say(last.task ? `Saved. ${progress.done} of ${progress.total} done.` : "Saved.", news());
    return true;
  }
  async function newest() {
    try {
      const state = await server.ask("/task");
      take(state);
      say("");
      present(state.task);
    } catch (error) { refused(error); }
  }
  async function back(before) {
    if (busy || ended) return;
    try {
      const query = before ? `?before=${encodeURIComponent(before)}` : "";
      const { task } = await server.ask(`/previous${query}`);
      if (!task) { say("This is the first one."); return; }
      present(task, { again: true });
      say("You can change this answer.", news());
    } catch (error) { refused(error); }
  }
  // Whether another tab has gone on, or new images have come.
  async function look() {
    if (document.hidden || busy || revisited || ended || !$("instructions").hidden) return;
    const mine = serial;
    let state;
    try { state = (await server.once("/task", {})).body; } catch { state = null; }
    if (mine !== serial || busy) return;
    const changed = state && (state.task?.show !== current?.show);
    if (changed) {
      take(state);
      present(state.task);
      say(state.task ? "Here is the next one." : "", news());
    } else if (!current && collects) setTimeout(look, 10000);
  }
  const tabs = window.BroadcastChannel ? new BroadcastChannel(server.SHELF) : null;
  tabs?.addEventListener("message", (event) => { if (!current || event.data.saved === current.show) look(); });
  document.addEventListener("visibilitychange", look);

  // ---- Full size

  let large = 0;
  function enlarge(place) {
    if (!current) return;
    large = place;
    const count = current.items.length;
    $("large").querySelector("[data-name]").textContent = name(place);
    $("large").querySelector("[data-swap]").textContent = `Show ${name((place + 1) % count)}`;
    for (const part of $("large").querySelectorAll("[data-swap], [data-hint]")) part.hidden = count === 1;
    const sheet = $("large").querySelector(".sheet");
    sheet.classList.toggle("set", current.items[place].length > 1);
    sheet.replaceChildren(...[...items()[place].querySelectorAll("img")].map((picture) => picture.cloneNode()));
    if (!$("large").open) $("large").showModal();
  }
  function swap(by = 1) {
    const count = current.items.length;
    enlarge((large + by + count) % count);
  }
  $("large").querySelector("[data-close]").addEventListener("click", () => $("large").close());
  $("large").querySelector("[data-swap]").addEventListener("click", () => swap());

  // ---- Mouse, touch and keys

  $("task").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const place = items().indexOf(button.closest(".item"));
    if (button.dataset.side) answer(button.dataset.side);
    else if (button.dataset.mark) mark(button.dataset.mark, place);
    else if (place >= 0) enlarge(place);
  });
  $("back").addEventListener("click", () => back(current?.show));
  $("correct").addEventListener("click", () => back());
  $("forward").addEventListener("click", newest);
  $("retry").addEventListener("click", () => server.retry());
  $("help").addEventListener("click", help);
  function help() {
    if (!$("instructions").hidden) return;
    $("start").textContent = "Go on";
    section("instructions");
    $("instructions").querySelector("h2").focus();
  }
  $("start").addEventListener("click", () => {
    if (current) {
      section("task");
      arrange();
      if (shownAt !== null) able(true);
      $("question").focus({ preventScroll: true });
    } else finish();
  });

  // A single image can be swiped: to the right like, to the left dislike.
  let swipe = null; // {choice, x, way}
  const FAR = 80; // px
  function lean(event) {
    if (!swipe || event.pointerId !== swipe.id) return;
    const by = event.clientX - swipe.x;
    swipe.way = Math.abs(by) < FAR ? "" : by > 0 ? "like" : "dislike";
    swipe.choice.style.setProperty("--by", `${by}px`);
    swipe.choice.dataset.lean = swipe.way;
    swipe.choice.querySelector(".lean").textContent = { like: "Like", dislike: "Dislike" }[swipe.way] || "";
  }
  function release(event) {
    if (!swipe || event.pointerId !== swipe.id) return;
    const { choice, way } = swipe;
    swipe = null;
    choice.style.removeProperty("--by");
    delete choice.dataset.lean;
    choice.querySelector(".lean").textContent = "";
    if (way && event.type === "pointerup") answer(way);
  }
  $("items").addEventListener("pointerdown", (event) => {
    const choice = event.target.closest(".choice");
    if (!choice || current?.form !== "single" || event.pointerType === "mouse" || !event.isPrimary) return;
    swipe = { choice, id: event.pointerId, x: event.clientX, way: "" };
  });
  window.addEventListener("pointermove", lean);
  for (const type of ["pointerup", "pointercancel"]) window.addEventListener(type, release);

  // Arrow keys go from an image to its neighbour, to the same control.
  function goBeside(by) {
    const place = items().findIndex((item) => item.contains(document.activeElement));
    const count = items().length;
    const controls = (index) => [...items()[index].querySelectorAll("button")];
    const next = place < 0 ? (by > 0 ? 0 : count - 1) : (place + by + count) % count;
    controls(next)[place < 0 ? 0 : controls(place).indexOf(document.activeElement)].focus();
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.defaultPrevented) return;
    if (event.key.length === 1 && !$("letters").checked) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if ($("large").open) {
      if (by && current.items.length > 1) { event.preventDefault(); swap(by); }
      return;
    }
    if (key === "Backspace" && !$("done").hidden) { event.preventDefault(); back(); return; }
    if (key === "Enter" && document.activeElement === $("instructions").querySelector("h2")) { event.preventDefault(); $("start").click(); }
    if ($("task").hidden || !current) return;
    const side = FORMS[current.form][key];
    const several = current.form === "best-worst";
    if (side && current.choices.includes(side)) { event.preventDefault(); answer(side); }
    else if (key === "Backspace") { event.preventDefault(); back(current.show); }
    else if (several && by) { event.preventDefault(); goBeside(by); }
    else if (several && key === "Enter" && !document.activeElement.closest("button")) answer("ranked");
    else if (several && items()[key - 1]?.querySelector(".mark:enabled")) markByNumber(key - 1);
    else if (key === "e") enlarge(Math.max(0, items().findIndex((item) => item.contains(document.activeElement))));
    else if (key === "?" || key === "h") help();
  });

  // Who dictates, or types by accident, switches keys of one sign off (WCAG 2.1, 2.1.4).
  const LETTERS = "seedpo-letters";
  try { $("letters").checked = localStorage.getItem(LETTERS) !== "off"; } catch { /* no storage: they are on */ }
  $("letters").addEventListener("change", () => {
    try { localStorage.setItem(LETTERS, $("letters").checked ? "on" : "off"); } catch { /* for this visit only */ }
  });

  // ---- Beginning

  (async () => {
    const waiting = server.queue().length > 0;
    await newest();
    if (ended) return;
    const task = current;
    if (waiting) {
      if (await flush()) say("An answer that was not saved last time is saved now.");
    } else if (task && progress.done === 0) {
      section("instructions");
      $("instructions").querySelector("h2").focus();
    }
  })();
})();
