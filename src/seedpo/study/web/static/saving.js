"use strict";
// What the rating page asks the server, and the answers that the server has not confirmed yet. An answer is kept here
// (memory and localStorage) until the server has said that it is saved; it is sent again with the same key after a
// failure, so that it counts exactly once.

class Refused extends Error {
  constructor(status, sentence) { super(sentence); this.status = status; }
}

// address: of the rater's page. trouble(sentence, canRetry): shows what is wrong; "" takes it away.
function serverOf(address, trouble) {
  let retryNow = () => {};

  // ---- The queue of answers that are not confirmed

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
  function add(entry) { keep([...queue(), { ...entry, key: newKey() }]); }
  function drop(entry) { keep(queue().filter((other) => other.key !== entry.key)); }
  function newKey() {
    if (crypto.randomUUID) return crypto.randomUUID(); // exists on HTTPS and localhost only
    return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  // ---- Requests

  // One try: {body}, or after how many seconds to try again (0: as the page sees fit) and what to say meanwhile.
  async function once(path, options) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), 20000);
    try {
      const answer = await fetch(address + path, { ...options, signal: stop.signal, cache: "no-store" });
      const body = await answer.json().catch(() => null);
      if (answer.ok && body) return { body };
      const sentence = body?.error || "The server gave an answer that this page does not understand.";
      const wait = Number(answer.headers.get("Retry-After")) || 0;
      if (answer.status === 429) return { wait: wait || 1, sentence: "" };
      // A page without our JSON comes from something in between: a log-in of a network, a proxy.
      if (answer.status >= 500 || !body?.error) return { wait: Math.min(wait, 60), sentence };
      throw new Refused(answer.status, sentence);
    } finally { clearTimeout(timer); }
  }
  // Until it succeeds or is refused for good.
  async function ask(path, options, whatFailed = "There is no connection to the server. Trying again…") {
    for (let attempt = 0; ; attempt++) {
      let result;
      try { result = await once(path, options); }
      catch (error) {
        if (error instanceof Refused) throw error;
        result = { wait: 0, sentence: whatFailed };
      }
      if (result.body) { if (attempt) trouble(""); return result.body; }
      if (result.sentence) trouble(result.sentence, true);
      // Not all pages at the same moment: a server that was away has to serve them all.
      await pause((result.wait || Math.min(15, 2 ** attempt)) * (1 + Math.random() / 2));
    }
  }
  function pause(seconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, 1000 * seconds);
      retryNow = () => { clearTimeout(timer); resolve(); };
    });
  }
  window.addEventListener("online", () => retryNow());

  return {
    SHELF, queue, add, drop, once, ask,
    retry: () => retryNow(),
    onRetry: (act) => { retryNow = act; },
  };
}
