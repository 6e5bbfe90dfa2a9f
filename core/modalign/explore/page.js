"use strict";

const $ = (id) => document.getElementById(id);
let modalities = [];
let asked = 0; // the newest search: answers to older ones are dropped

/** An element with properties and children; strings become text, never markup. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").className = wrong ? "wrong" : "";
}

/** A place without its folders. */
const short = (place) => place.split(/[\\/]/).pop();

/** An item's preview, as its modality made it. */
async function show(number, place, into) {
  try {
    const answer = await fetch(`/items/${number}`);
    const kind = (answer.headers.get("Content-Type") || "").split(";")[0];
    if (answer.status === 204) {
      into.replaceChildren(make("p", { className: "none", textContent: "no preview" }));
    } else if (!answer.ok || kind === "text/plain") {
      const text = await answer.text();
      into.replaceChildren(make("p", { className: answer.ok ? "" : "none", dir: "auto", textContent: text }));
    } else {
      into.replaceChildren(media(kind, await dataURL(await answer.blob()), place));
    }
  } catch {
    into.replaceChildren(make("p", { className: "none", textContent: "the server has ended" }));
  }
}

function media(kind, address, place) {
  if (kind.startsWith("image/")) {
    const image = make("img", { alt: place, title: place });
    image.onload = () => image.classList.toggle("tiny", image.naturalWidth < 96);
    image.src = address;
    return image;
  }
  const player = make(kind.startsWith("audio/") ? "audio" : "video", { controls: true, title: place });
  player.setAttribute("controlslist", "nodownload noplaybackrate");
  player.src = address;
  return player;
}

/** One part of the query: a literal, a file, or an item found before. */
function term({ item = null, place = "", minus = false } = {}) {
  const row = make("li");
  const sign = make("button", { type: "button", className: "sign" });
  const setSign = (on) => {
    sign.setAttribute("aria-pressed", String(on));
    sign.setAttribute("aria-label", on ? "taken away" : "added");
    sign.textContent = on ? "−" : "+";
  };
  setSign(minus);
  sign.onclick = () => setSign(sign.getAttribute("aria-pressed") !== "true");
  const weight = make("input", { type: "number", min: "0.1", step: "0.1", value: "1", title: "weight" });
  weight.setAttribute("aria-label", "weight");
  const away = make("button", { type: "button", textContent: "×", title: "remove" });
  away.setAttribute("aria-label", "remove");
  away.onclick = () => { row.remove(); if (!$("terms").children.length) term(); };
  const weighed = () => Number(weight.value || 1) * (sign.getAttribute("aria-pressed") === "true" ? -1 : 1);

  if (item !== null) {
    const preview = make("span", { className: "value", textContent: short(place), title: place });
    row.append(sign, preview, weight, away);
    show(item, place, preview);
    row.read = async () => ({ item, weight: weighed() });
  } else {
    const choice = make("select", {}, ...modalities.map((m) => make("option", { value: m.name }, m.name)));
    choice.setAttribute("aria-label", "modality");
    choice.value = (modalities.find((m) => m.literal) || modalities[0]).name;
    const slot = make("span", { className: "value" });
    row.append(sign, choice, slot, weight, away);
    const fill = () => {
      const literal = modalities.find((m) => m.name === choice.value).literal;
      const input = make("input", literal ? { type: "text", placeholder: `${choice.value} …` } : { type: "file" });
      input.setAttribute("aria-label", "value");
      if (literal) input.style.width = "100%";
      slot.replaceChildren(input);
    };
    choice.onchange = fill;
    fill();
    row.ondragover = (event) => { event.preventDefault(); row.classList.add("over"); };
    row.ondragleave = () => row.classList.remove("over");
    row.ondrop = (event) => {
      event.preventDefault();
      row.classList.remove("over");
      if (slot.firstChild.type === "file") slot.firstChild.files = event.dataTransfer.files;
      else say("choose the modality of the file first", true);
    };
    row.read = async () => {
      const input = slot.firstChild;
      const part = { modality: choice.value, weight: weighed() };
      if (input.type !== "file") return input.value.trim() ? { ...part, value: input.value } : null;
      return input.files.length ? { ...part, data: (await dataURL(input.files[0])).replace(/^[^,]*,/, "") } : null;
    };
  }
  $("terms").append(row);
  return row;
}

/** A blob as an address of its own, which needs no giving back. */
function dataURL(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function search() {
  const mine = ++asked;
  try {
    const terms = (await Promise.all([...$("terms").children].map((row) => row.read()))).filter(Boolean);
    if (!terms.length) return say("type something to look for, or choose a file");
    say("searching …");
    const to = [...$("to").querySelectorAll("input:checked")].map((box) => box.value);
    if (!to.length) return say("choose what to find", true);
    const body = JSON.stringify({ terms, to, k: Number($("k").value) || 12, combine: $("combine").value });
    const headers = { "Content-Type": "application/json" };
    const started = performance.now();
    const answer = await fetch("/search", { method: "POST", headers, body });
    const found = await answer.json();
    if (mine !== asked) return;
    if (found.error) return say(found.error, true);
    draw(found.results);
    const count = Object.values(found.results).reduce((sum, best) => sum + best.length, 0);
    say(`${count} items in ${Math.round(performance.now() - started)} ms`);
    scrollTo({ top: 0 });
  } catch (error) {
    if (mine === asked) say(`no answer: ${error.message}`, true);
  }
}

function draw(results) {
  const sections = Object.entries(results).filter(([, found]) => found.length).map(([name, found]) => {
    const best = Math.max(1, found[0].score);
    const cards = found.map(({ number, score, place }) => {
      const preview = make("div", { className: "preview" });
      show(number, place, preview);
      const again = (label, title, use) => make("button", { type: "button", textContent: label, title, onclick: use });
      const alone = () => { $("terms").replaceChildren(); term({ item: number, place }); search(); };
      const also = (minus) => () => { term({ item: number, place, minus }); search(); };
      const card = make("article", {}, preview, make("div", { className: "facts" },
        make("div", {}, make("meter", { min: 0, max: best, value: Math.max(0, score) }),
          make("span", { className: "score", textContent: score.toFixed(3) })),
        make("p", { className: "place", title: place, textContent: short(place) }),
        make("div", {}, again("similar", "look for this alone", alone),
          again("+", "add this to the query", also(false)), again("−", "take this away from the query", also(true)))));
      card.dataset.number = number;
      return card;
    });
    const section = make("section", {},
      make("h2", {}, name, " ", make("small", { textContent: `${found.length} nearest` })),
      make("div", { className: "grid" }, ...cards));
    section.dataset.modality = name;
    return section;
  });
  $("results").replaceChildren(...sections);
}

async function start() {
  const about = await (await fetch("/about")).json();
  modalities = about.modalities;
  $("name").textContent = about.name;
  for (const { name, items } of modalities.filter((m) => m.items)) {
    const box = make("input", { type: "checkbox", value: name, checked: true });
    $("to").append(make("label", {}, box, ` ${name} (${items.toLocaleString()})`));
  }
  term();
  $("terms").querySelector("input").focus();
  $("more").onclick = () => term().querySelector("input, select").focus();
  $("query").onsubmit = (event) => { event.preventDefault(); search(); };
}

start().catch((error) => say(`no answer: ${error.message}`, true));
