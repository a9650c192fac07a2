"use strict";
// The images of a task on the screen: one figure for each candidate.

// What belongs to another form, or is not among the choices, is neither shown nor explained.
function fit(part, task) {
  const { form, side, help } = part.dataset;
  const choice = help || side;
  return (!form || form.split(" ").includes(task.form)) && (!choice || task.choices.includes(choice));
}

// root: element of the figures. template: of one figure.
function viewOf(root, template) {
  const SIDES = ["left", "right"]; // of a pair, by place
  let shown = null; // the task
  const items = () => [...root.children];
  const name = (place) => (shown.form === "single" ? "" : String.fromCharCode(65 + place));
  const image = (place) => `Image ${name(place)}`.trim();

  function figure(place, task) {
    const part = template.content.cloneNode(true);
    const choice = part.querySelector(".choice");
    for (const piece of part.querySelectorAll("[data-form]")) if (!fit(piece, task)) piece.remove();
    part.querySelector("figure").setAttribute("aria-label", name(place) || "Image");
    part.querySelector(".name").textContent = name(place);
    const key = { pair: "←→"[place], "best-worst": place + 1 }[task.form] || "";
    part.querySelector("kbd").textContent = key;
    part.querySelector("kbd").hidden = !key;
    if (task.form === "pair") Object.assign(choice, { disabled: true }).dataset.side = SIDES[place];
    for (const hidden of part.querySelectorAll("figcaption .hidden")) hidden.textContent = ` ${name(place)}`;
    return part;
  }
  // Shows a task; gives its images, which have yet to be loaded.
  function frames(task) {
    shown = task;
    const images = [];
    const count = task.items[0].length;
    const columns = Math.ceil(Math.sqrt(count));
    const kind = `${task.form} ${task.items.length}`;
    if (root.dataset.kind !== kind) {
      root.replaceChildren(...task.items.map((_, place) => figure(place, task)));
      Object.assign(root.dataset, { kind, form: task.form });
    }
    root.style.setProperty("--ratio", (task.ratio || 1) * columns / Math.ceil(count / columns));
    root.style.setProperty("--columns", columns);
    const does = task.form === "pair" ? "Choose" : "Enlarge";
    for (const [place, item] of items().entries()) {
      const label = `${does} ${name(place) || "the image"}${count > 1 ? `: reference and ${count - 1} others` : ""}`;
      item.querySelector(".choice").setAttribute("aria-label", label);
      const frame = item.querySelector(".frame");
      frame.classList.toggle("set", count > 1);
      frame.replaceChildren(...task.items[place].map((url, index) => {
        const cell = document.createElement("span");
        const picture = document.createElement("img");
        cell.className = "cell";
        picture.alt = count === 1 ? image(place) : `${image(place)}, ${index ? `other ${index}` : "reference"}`;
        picture.draggable = false;
        picture.decoding = "async";
        picture.dataset.url = url;
        cell.append(picture);
        if (count > 1 && !index) {
          const badge = document.createElement("span");
          badge.className = "badge";
          badge.textContent = "Reference";
          badge.setAttribute("aria-hidden", "true");
          cell.append(badge);
        }
        images.push(picture);
        return cell;
      }));
    }
    arrange();
    return images;
  }
  // Several images stand in as many columns as make them largest.
  function arrange() {
    if (shown?.form !== "best-worst") return;
    const style = getComputedStyle(root);
    const read = (key) => parseFloat(style.getPropertyValue(key));
    const count = shown.items.length;
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const height = document.documentElement.clientHeight - rem * read("--rest");
    const gap = parseFloat(style.columnGap);
    let best = { width: 0 };
    for (let rows = 1; rows <= count; rows++) {
      const columns = Math.ceil(count / rows);
      const free = height / rows - rem * read("--caption");
      const wide = (root.clientWidth - gap * (columns - 1)) / columns;
      const width = Math.min(wide, Math.max(rem * read("--least"), free * read("--ratio")));
      if (width > best.width) best = { width, columns };
    }
    root.style.setProperty("--across", best.columns);
    root.style.setProperty("--width", `${Math.floor(best.width)}px`);
  }
  window.addEventListener("resize", arrange);

  return { items, name, frames, arrange };
}

function load(picture) {
  return new Promise((resolve, reject) => {
    picture.onload = () => resolve();
    picture.onerror = () => reject(new Error("image"));
    const again = Number(picture.dataset.again || 0);
    picture.src = again ? `${picture.dataset.url}?again=${again}` : picture.dataset.url;
    picture.dataset.again = again + 1;
  }).then(() => {
    picture.parentElement.classList.remove("failed");
    picture.classList.toggle("small", picture.naturalWidth <= 128);
    picture.classList.add("there");
  });
}
