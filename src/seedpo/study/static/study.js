"use strict";
// The page on which a rater judges pairs. An answer is kept here (memory and localStorage) until the server has said
// that it is saved; it is sent again with the same key after a failure, so that it counts exactly once.
(() => {
  const $ = (id) => document.getElementById(id);
  const address = $("study").dataset.address;
  const collects = $("study").dataset.kind === "collect";
  const NAMES = { left: "A", right: "B" };
  const KEYS = {
    ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right", ArrowDown: "tie", 3: "tie", t: "tie", b: "bad", s: "skip",
  };
  const REST = 400; // milliseconds after an answer in which no other is taken
  const choices = [...document.querySelectorAll("button[data-side]")];

  let csrf = "";
  let current = null; // the task on the screen
  let asked = null; // the question of the newest task
  let revisited = false; // whether it was answered before and is shown for correction
  let progress = { done: 0, total: 0 };
  let shownAt = null; // when both images were there
  let busy = false; // an answer is on its way
  let resting = false; // an answer was given a moment ago: the second half of a double click is not a vote on the next pair
  let ended = false; // the link does not work any more
  let wanted = null; // the button that had the focus when it was disabled
  let serial = 0; // of what is on the screen; what belongs to an earlier one is dropped
  let retryNow = () => {};
  const given = new Map(); // answers of this visit by show, to mark them when going back

  // ---- The queue of answers that the server has not confirmed

  const SHELF = `seedpo-answers:${address}`;
  let kept = [];
  function queue() {
    let stored = [];
    try { stored = JSON.parse(localStorage.getItem(SHELF)) || []; } catch { /* no storage: memory has to do */ }
    const known = new Set(kept.map((entry) => entry.key));
    return [...stored.filter((entry) => entry && entry.key && !known.has(entry.key)), ...kept];
  }
  function keep(entries) {
    kept = entries;
    try {
      if (entries.length) localStorage.setItem(SHELF, JSON.stringify(entries));
      else localStorage.removeItem(SHELF);
    } catch { /* full or forbidden: memory has to do */ }
  }
  const drop = (key) => keep(queue().filter((entry) => entry.key !== key));
  function newKey() {
    if (crypto.randomUUID) return crypto.randomUUID(); // exists on HTTPS and localhost only
    return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  // ---- Requests

  class Refused extends Error {
    constructor(status, sentence) { super(sentence); this.status = status; }
  }
  async function once(path, options) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), 20000);
    try {
      const answer = await fetch(address + path, { ...options, signal: stop.signal, cache: "no-store" });
      const body = await answer.json().catch(() => ({}));
      if (answer.ok) return { body };
      const sentence = body.error || "The server gave an answer that this page does not understand.";
      if (answer.status === 429) return { wait: Number(answer.headers.get("Retry-After")) || 1, sentence: "" };
      if (answer.status >= 500) return { wait: 0, sentence };
      throw new Refused(answer.status, sentence);
    } finally { clearTimeout(timer); }
  }
  async function ask(path, options, whatFailed) {
    for (let attempt = 0; ; attempt++) {
      let result;
      try { result = await once(path, options); }
      catch (error) {
        if (error instanceof Refused) throw error;
        result = { wait: 0, sentence: whatFailed };
      }
      if (result.body) { if (attempt) trouble(""); return result.body; }
      if (result.sentence) trouble(result.sentence, true);
      await pause(result.wait || Math.min(15, 2 ** attempt));
    }
  }
  function pause(seconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, 1000 * seconds);
      retryNow = () => { clearTimeout(timer); resolve(); };
    });
  }
  window.addEventListener("online", () => retryNow());
  $("retry").addEventListener("click", () => retryNow());

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

  function section(name) {
    for (const id of ["instructions", "task", "done"]) $(id).hidden = id !== name;
  }
  function showProgress() {
    const { done, total } = progress;
    $("progress").querySelector("[data-count]").textContent = `${done} of ${total}`;
    const bar = $("progress").querySelector("progress");
    bar.max = Math.max(total, 1);
    bar.value = done;
  }
  function able(yes) {
    const focused = document.activeElement;
    if (!yes && choices.includes(focused)) wanted = focused;
    for (const button of choices) {
      button.disabled = ended || busy || resting || !current || !(yes || button.dataset.side === "skip");
    }
    if (!yes || resting || busy) return;
    if (wanted && document.activeElement === document.body) (wanted.hidden ? $("question") : wanted).focus({ preventScroll: true });
    wanted = null;
  }
  function frames(task) {
    const images = [];
    const count = task.items[0].length;
    const columns = Math.ceil(Math.sqrt(count));
    $("pair").style.setProperty("--ratio", (task.ratio || 1) * columns / Math.ceil(count / columns));
    $("pair").style.setProperty("--columns", columns);
    for (const [place, side] of ["left", "right"].entries()) {
      const frame = $(side).querySelector(".frame");
      frame.replaceChildren(...task.items[place].map((url, index) => {
        const cell = document.createElement("span");
        const image = document.createElement("img");
        cell.className = "cell";
        image.alt = count === 1 ? `Image ${NAMES[side]}` : `Image ${NAMES[side]}, ${index ? `other ${index}` : "reference"}`;
        image.draggable = false;
        image.decoding = "async";
        image.dataset.url = url;
        cell.append(image);
        if (count > 1 && !index) {
          const badge = document.createElement("span");
          badge.className = "badge";
          badge.textContent = "Reference";
          badge.setAttribute("aria-hidden", "true");
          cell.append(badge);
        }
        images.push(image);
        return cell;
      }));
      frame.classList.toggle("set", count > 1);
      $(side).setAttribute("aria-label", `Choose ${NAMES[side]}${count > 1 ? `: reference and ${count - 1} others` : ""}`);
    }
    return images;
  }
  function load(image) {
    return new Promise((resolve, reject) => {
      image.onload = () => resolve();
      image.onerror = () => reject(new Error("image"));
      const again = Number(image.dataset.again || 0);
      image.src = again ? `${image.dataset.url}?again=${again}` : image.dataset.url;
      image.dataset.again = again + 1;
    }).then(() => {
      image.parentElement.classList.remove("failed");
      image.classList.toggle("small", image.naturalWidth <= 128);
      image.classList.add("there");
    });
  }
  async function loadAll(images, mine) {
    const failed = [];
    await Promise.all(images.map(async (image) => {
      try { await load(image); }
      catch {
        await new Promise((resolve) => setTimeout(resolve, 700));
        if (mine !== serial) return;
        try { await load(image); }
        catch { image.parentElement.classList.add("failed"); failed.push(image); }
      }
    }));
    if (mine !== serial) return;
    if (failed.length) {
      const sides = [...new Set(failed.map((image) => NAMES[image.closest("button").id]))].join(" and ");
      trouble(`An image of ${sides} did not load. Try again, or skip this pair.`, true);
      retryNow = () => { trouble(""); loadAll(failed, mine); };
      return;
    }
    shownAt = performance.now();
    able(true);
    if (!revisited) preload();
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
    for (const button of choices) {
      button.hidden = !task.choices.includes(button.dataset.side);
      button.removeAttribute("aria-pressed");
      if (again && given.get(task.show) === button.dataset.side) button.setAttribute("aria-pressed", "true");
    }
    for (const line of document.querySelectorAll("[data-help]")) line.hidden = !task.choices.includes(line.dataset.help);
    able(false);
    rescue(focused);
    loadAll(frames(task), mine);
  }
  function finish() {
    section("done");
    $("correct").hidden = !progress.done;
    $("done").querySelector("h2").focus();
    if (collects) setTimeout(look, 10000);
  }
  let ahead = []; // images of the next pair, held so that the browser keeps them
  async function preload() {
    try {
      const { body } = await once("/ahead", {});
      ahead = (body?.preload || []).map((url) => Object.assign(new Image(), { src: url }));
    } catch { /* only a convenience */ }
  }

  // ---- What a rater does

  async function answer(side) {
    const button = choices.find((one) => one.dataset.side === side);
    if (!current || busy || !button || button.disabled || button.hidden) return;
    busy = true;
    resting = true;
    setTimeout(() => { resting = false; able(shownAt !== null); }, REST);
    const seconds = shownAt === null ? null : Math.min(86400, Math.round(performance.now() - shownAt) / 1000);
    keep([...queue(), { show: current.show, side, key: newKey(), seconds }]);
    given.set(current.show, side);
    for (const one of choices) one.removeAttribute("aria-pressed");
    button.setAttribute("aria-pressed", "true");
    able(false);
    say("Saving…");
    await flush();
  }
  let flushing = null;
  function flush() {
    flushing = flushing || sendAll().finally(() => { flushing = null; });
    return flushing;
  }
  async function sendAll() {
    let last = null;
    let refreshed = false;
    for (let entry = queue()[0]; entry; entry = queue()[0]) {
      try {
        const options = {
          method: "POST",
          headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
          body: JSON.stringify(entry),
        };
        last = await ask("/vote", options, "Your answer is not saved yet: no connection. It is kept here and sent again by itself.");
        drop(entry.key);
        tabs?.postMessage({ saved: entry.show });
      } catch (error) {
        if (error instanceof Refused && error.status === 403 && !refreshed) {
          refreshed = true; // the server was given a new key; the page's token is old
          csrf = (await ask("/task", {}, "No connection.")).csrf;
          continue;
        }
        drop(entry.key);
        busy = false;
        refused(error);
        if (!ended) { await newest(); trouble(error.message); }
        return;
      }
    }
    if (!last) return;
    progress = last.progress;
    showProgress();
    present(last.task);
    say(last.task ? `Saved. ${progress.done} of ${progress.total} done.` : "Saved.", news());
  }
  async function newest() {
    try {
      const state = await ask("/task", {}, "There is no connection to the server. Trying again…");
      csrf = state.csrf;
      progress = state.progress;
      showProgress();
      say("");
      present(state.task);
    } catch (error) { refused(error); }
  }
  async function back(before) {
    if (busy || ended) return;
    try {
      const query = before ? `?before=${encodeURIComponent(before)}` : "";
      const { task } = await ask(`/previous${query}`, {}, "There is no connection to the server. Trying again…");
      if (!task) { say("This is the first pair."); return; }
      present(task, { again: true });
      say("You can change your answer to this pair.", news());
    } catch (error) { refused(error); }
  }
  // Whether another tab has gone on, or new pairs have come.
  async function look() {
    if (document.hidden || busy || revisited || ended || !$("instructions").hidden) return;
    const mine = serial;
    let state;
    try { state = (await once("/task", {})).body; } catch { state = null; }
    if (mine !== serial || busy) return;
    const changed = state && (state.task?.show !== current?.show);
    if (changed) {
      csrf = state.csrf;
      progress = state.progress;
      showProgress();
      present(state.task);
      say(state.task ? "Here is the next pair." : "", news());
    } else if (!current && collects) setTimeout(look, 10000);
  }
  const tabs = window.BroadcastChannel ? new BroadcastChannel(SHELF) : null;
  tabs?.addEventListener("message", (event) => { if (!current || event.data.saved === current.show) look(); });
  document.addEventListener("visibilitychange", look);

  // ---- Full size

  let side = "left";
  function enlarge(which) {
    if (!current) return;
    side = which;
    $("large").querySelector("[data-name]").textContent = NAMES[side];
    $("large").querySelector("[data-swap]").textContent = `Show ${NAMES[side === "left" ? "right" : "left"]}`;
    const sheet = $("large").querySelector(".sheet");
    sheet.classList.toggle("set", current[side].length > 1);
    sheet.replaceChildren(...[...$(side).querySelectorAll("img")].map((image) => image.cloneNode()));
    if (!$("large").open) $("large").showModal();
  }
  const swap = () => enlarge(side === "left" ? "right" : "left");
  $("large").querySelector("[data-close]").addEventListener("click", () => $("large").close());
  $("large").querySelector("[data-swap]").addEventListener("click", swap);
  for (const button of document.querySelectorAll("[data-enlarge]")) {
    button.addEventListener("click", () => enlarge(button.dataset.enlarge));
  }

  // ---- Mouse, touch and keys

  for (const button of choices) button.addEventListener("click", () => answer(button.dataset.side));
  $("back").addEventListener("click", () => back(current?.show));
  $("correct").addEventListener("click", () => back());
  $("forward").addEventListener("click", newest);
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
      if (shownAt !== null) able(true);
      $("question").focus({ preventScroll: true });
    } else finish();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.defaultPrevented) return;
    if (event.key.length === 1 && !$("letters").checked) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if ($("large").open) {
      if (key === "ArrowLeft" || key === "ArrowRight") { event.preventDefault(); swap(); }
      return;
    }
    if (key === "Backspace" && !$("done").hidden) { event.preventDefault(); back(); return; }
    if (key === "Enter" && document.activeElement === $("instructions").querySelector("h2")) { event.preventDefault(); $("start").click(); }
    if ($("task").hidden) return;
    if (KEYS[key] && current?.choices.includes(KEYS[key])) { event.preventDefault(); answer(KEYS[key]); }
    else if (key === "Backspace") { event.preventDefault(); back(current?.show); }
    else if (key === "e") enlarge("left");
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
    const waiting = queue().length > 0;
    await newest();
    if (ended) return;
    const task = current;
    if (waiting) {
      await flush();
      say("An answer that was not saved last time is saved now.");
    } else if (task && progress.done === 0) {
      section("instructions");
      $("instructions").querySelector("h2").focus();
    }
  })();
})();
