// The viewer of folders: a list that filters, one volume, and beside it the nearest of another folder.
"use strict";

const find = (id) => document.getElementById(id);
let list = null;
let shown = []; // rows that pass the filters
let row = -1;
let viewers = [];
let turn = 0; // the latest choice wins

function banner(text) {
  find("banner").textContent = text;
  find("banner").hidden = !text;
}

async function start() {
  if (!canDraw()) return banner(NO_WEBGL);
  const token = location.hash.slice(1);
  if (token) history.replaceState(null, "", location.pathname);
  try {
    if (token) await getJson("/api/enter", { token });
    list = await getJson("/api/list");
  } catch (error) {
    return banner(error.status === 401 || error.status === 403
      ? "Open the address that gyri view printed, with all that follows #." : error.message);
  }
  find("where").textContent = `${list.name} · ${list.kind}` + (list.beside ? ` · beside the nearest of ${list.beside.name}` : "");
  filters();
  await screens(list.beside ? ["", ""] : [""]);
  apply();
}

function filters() {
  const fields = list.columns.flatMap(({ name, levels, low, high }) => {
    const field = levels
      ? element("select", { name, onchange: apply, "aria-label": name }, element("option", { value: "" }, "any"),
        ...levels.map((level) => element("option", { value: level }, level)))
      : element("span", { class: "span" }, ...[["from", low], ["to", high]].map(([end, value]) =>
        element("input", { type: "search", name: `${name}.${end}`, inputmode: "decimal", placeholder: String(value),
          "aria-label": `${name} ${end}`, oninput: apply })));
    return [element("label", {}, name), field];
  });
  find("filters").replaceChildren(...fields);
  find("filters").onsubmit = (event) => event.preventDefault();
}

function passes({ facts }) {
  const form = find("filters").elements;
  return list.columns.every(({ name, levels }) => {
    if (levels) return !form[name].value || facts[name] === form[name].value;
    const [from, to] = ["from", "to"].map((end) => form[`${name}.${end}`].value.trim());
    return (from === "" || facts[name] >= Number(from)) && (to === "" || facts[name] <= Number(to));
  });
}

const words = (facts) => Object.values(facts).slice(0, 4).join(" · ");

function apply() {
  shown = list.cases.map((_, place) => place).filter((place) => passes(list.cases[place]));
  find("count").textContent = `${shown.length} of ${list.cases.length}`;
  find("cases").replaceChildren(...shown.map((place) => element("li", {}, element("button", {
    type: "button", "data-row": place, onclick: () => choose(place),
  }, list.cases[place].label, element("small", {}, words(list.cases[place].facts))))));
  if (shown.length && !shown.includes(row)) choose(shown[0]);
  else mark();
}

function mark() {
  for (const button of find("cases").querySelectorAll("button")) {
    const here = Number(button.dataset.row) === row;
    button.setAttribute("aria-current", String(here));
    if (here) button.scrollIntoView({ block: "nearest" });
  }
}

async function screens(titles) {
  const canvases = titles.map(() => element("canvas", { tabindex: "0" }));
  find("screens").className = titles.length > 1 ? "two" : "one";
  find("screens").replaceChildren(...canvases.map((canvas) => element("figure", {}, canvas, element("figcaption"))));
  for (const canvas of canvases) viewers.push(await new Viewer(canvas).attach());
  if (viewers.length > 1) yoke(viewers);
}

function caption(place, title, more) {
  const made = find("screens").children[place].querySelector("figcaption");
  made.replaceChildren(title, element("small", {}, more));
  find("screens").children[place].querySelector("canvas").setAttribute("aria-label", title);
}

async function choose(place) {
  row = place;
  mark();
  const mine = ++turn;
  try {
    const volume = await getVolume(`/api/volume/${place}.nii`);
    if (mine !== turn) return;
    await viewers[0].show(volume);
    caption(0, list.cases[place].label, words(list.cases[place].facts));
    if (list.beside) {
      caption(1, "", "looking for the nearest …");
      const near = await getJson(`/api/nearest/${place}`);
      const other = await getVolume(`/api/beside/${near.row}.nii`);
      if (mine !== turn) return;
      await viewers[1].show(other);
      const found = list.beside.cases[near.row];
      caption(1, found.label, `${words(found.facts)} · r = ${near.correlation}${near.mirrored ? ", mirrored" : ""}`);
    }
    document.body.dataset.row = place;
    banner("");
  } catch (error) {
    banner(error.message);
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  const step = { n: 1, p: -1 }[event.key];
  if (step) {
    const next = shown[shown.indexOf(row) + step];
    if (next !== undefined) choose(next);
  } else if (viewers[0]?.key(event)) {
    viewers.slice(1).forEach((other) => other.setWindow(viewers[0].window.low, viewers[0].window.high));
  }
}, { capture: true });

start();
