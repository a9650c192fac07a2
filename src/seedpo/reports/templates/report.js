"use strict";
for (const chapter of document.querySelectorAll("[data-chapter]")) {
  const stage = chapter.querySelector("[data-stepper]");
  if (stage) stepper(chapter, stage);
  const latents = chapter.querySelector("[data-latents]");
  if (latents) prompts(latents);
  for (const box of chapter.querySelectorAll("[data-pixels]")) box.addEventListener("change", () => chapter.classList.toggle("crisp", box.checked));
}

function stepper(chapter, stage) {
  const slider = stage.querySelector("input[type=range]");
  const steps = JSON.parse(stage.dataset.stepper);
  const play = stage.querySelector("[data-play]");
  let timer = 0;
  function show() {
    const step = steps[slider.value];
    stage.querySelector("output").textContent = "step " + step;
    slider.setAttribute("aria-valuetext", "step " + step);
    for (const part of stage.querySelectorAll("[data-at]")) part.classList.toggle("on", +part.dataset.at === step);
    for (const marker of chapter.querySelectorAll("[data-step]")) marker.classList.toggle("now", +marker.dataset.step === step);
    for (const svg of chapter.querySelectorAll("svg[data-range]")) {
      const [low, high, left, right] = JSON.parse(svg.dataset.range);
      const cursor = svg.querySelector(".cursor");
      const x = left + (step - low) / (high - low) * (right - left);
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.style.visibility = step <= high ? "visible" : "hidden";
    }
  }
  function move(by) {
    slider.value = Math.min(steps.length - 1, Math.max(0, +slider.value + by));
    show();
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "\u25b6 play";
  }
  slider.addEventListener("input", () => { stop(); show(); });
  stage.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target.closest("input, select, button")) return;
    event.preventDefault();
    stop();
    move(by);
  });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (+slider.value === steps.length - 1) slider.value = 0;
    show();
    play.textContent = "\u275a\u275a pause";
    timer = setInterval(() => {
      move(1);
      if (+slider.value === steps.length - 1) stop();
    }, 700);
  });
  for (const marker of chapter.querySelectorAll("[data-step]")) {
    const index = steps.indexOf(+marker.dataset.step);
    if (index >= 0) marker.addEventListener("click", () => { stop(); slider.value = index; show(); });
  }
  pages(stage);
  show();
}

function pages(stage) {
  const labels = [...stage.querySelectorAll(".labels > span")];
  const shown = +stage.dataset.rows;
  const last = labels.length - shown;
  let first = 0;
  for (const button of stage.querySelectorAll("[data-page]")) {
    button.addEventListener("click", () => {
      first = Math.max(0, Math.min(last, first + shown * +button.dataset.page));
      stage.style.setProperty("--y", (last ? 100 * first / last : 0) + "%");
      labels.forEach((label, row) => { label.hidden = row < first || row >= first + shown; });
      stage.querySelector("[data-pages]").textContent = "prompts " + (first + 1) + "\u2013" + (first + shown) + " of " + labels.length;
    });
  }
}

function prompts(latents) {
  const select = latents.querySelector("select");
  function show() {
    const last = select.options.length - 1;
    latents.style.setProperty("--y", (last ? 100 * select.selectedIndex / last : 0) + "%");
  }
  for (const button of latents.querySelectorAll("[data-move]")) {
    button.addEventListener("click", () => {
      const count = select.options.length;
      select.selectedIndex = (select.selectedIndex + +button.dataset.move + count) % count;
      show();
    });
  }
  select.addEventListener("change", show);
  show();
}

addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });

for (const frame of document.querySelectorAll("[data-viewer]")) viewer(frame);

function viewer(frame) {
  const steps = JSON.parse(frame.dataset.steps);
  const texts = [...frame.querySelectorAll("[data-prompts] li")].map((item) => item.textContent);
  const counts = { prompt: texts.length, latent: +frame.dataset.columns, step: steps.length };
  const start = frame.querySelector("[data-now=step]");
  const now = { prompt: 0, latent: 0, step: start ? +start.dataset.start : 0 };
  const selects = [...frame.querySelectorAll("[data-side]")];
  const views = [...frame.querySelectorAll("[data-view]")];
  const names = [...frame.querySelectorAll("[data-called]")];
  const share = (key) => (counts[key] > 1 ? 100 * now[key] / (counts[key] - 1) : 0) + "%";
  function show() {
    selects.forEach((select, which) => {
      const option = select.selectedOptions[0];
      const sheet = JSON.parse(option.dataset.classes)[now.step];
      views[which].className = "one " + (sheet || "void");
      views[which].style.backgroundPosition = share("latent") + " " + share("prompt");
      views[which].textContent = sheet ? "" : "no image at " + steps[now.step];
      views[which].setAttribute("aria-label", option.textContent + ", " + steps[now.step] + ", latent " + (now.latent + 1) + ": " + texts[now.prompt]);
      names[which].textContent = option.textContent;
      names[which].className = "name " + option.dataset.role;
    });
    frame.querySelector("[data-prompt]").textContent = texts[now.prompt];
    for (const key of ["prompt", "latent"]) frame.querySelector("[data-now=" + key + "]").textContent = key + " " + (now[key] + 1) + " of " + counts[key];
    if (start) start.textContent = steps[now.step];
  }
  function turn(key, by) {
    // Prompts and latents go round; steps have a first and a last one.
    const next = now[key] + by;
    now[key] = key === "step" ? Math.min(counts.step - 1, Math.max(0, next)) : (next + counts[key]) % counts[key];
    show();
  }
  for (const button of frame.querySelectorAll("[data-turn]")) button.addEventListener("click", () => turn(button.dataset.turn, +button.dataset.by));
  for (const select of selects) select.addEventListener("change", show);
  frame.addEventListener("keydown", (event) => {
    const found = { ArrowLeft: ["step", -1], ArrowRight: ["step", 1], ArrowUp: ["prompt", -1], ArrowDown: ["prompt", 1], PageUp: ["latent", -1], PageDown: ["latent", 1] }[event.key];
    if (!found || event.target.closest("select") || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    turn(...found);
  });
  show();
}
