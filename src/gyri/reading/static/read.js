// The readers' page: one question at a time, asked and answered through the server.
"use strict";

const find = (id) => document.getElementById(id);
const ahead = new Map(); // volumes loaded before they are needed, by case
const QUESTIONS = {
  yes_no: {
    title: "Real or synthetic",
    text: "Was this brain scanned from a person, or was it made by a computer?",
    choices: [["real", "Real", "1"], ["synthetic", "Synthetic", "2"]],
  },
  pairs: {
    title: "Which is real",
    text: "One of the two was scanned from a person, the other was made by a computer. Which is real?",
    choices: [["left", "Left is real", "1"], ["right", "Right is real", "2"]],
  },
  ratings: { title: "Rate what you see", text: "1 is poor, 5 is excellent." },
};
const SCALE_WORDS = {
  anatomy: "Anatomy", contrast: "Grey–white contrast", noise: "Noise", artefacts: "Artefacts",
  acceptability: "Diagnostic acceptability",
};
const SCALE_ENDS = {
  anatomy: "1 impossible – 5 normal", contrast: "1 none – 5 clear", noise: "1 severe – 5 none",
  artefacts: "1 severe – 5 none", acceptability: "1 unusable – 5 fully usable",
};

let viewers = [];
let made = { count: 0, ready: Promise.resolve() };
let now = null; // state of the server
let block = ""; // whose introduction was read
let visible = 0; // ms that the present trial was on the screen
let since = 0;
let sending = false;
let pressed = 0; // when the last answer was given

document.addEventListener("visibilitychange", () => {
  if (document.hidden) visible += performance.now() - since;
  since = performance.now();
});

async function start() {
  if (!canDraw()) return banner(NO_WEBGL);
  const token = location.hash.slice(1);
  // The token leaves the address bar before anybody looks over a shoulder.
  if (token) history.replaceState(null, "", location.pathname);
  try {
    if (token) await getJson("/api/enter", { token });
    await go(await getJson("/api/state"));
  } catch (error) {
    if (error.status === 401) askToken();
    else if (error.status === 403) askToken("Nobody has this token. Check the link you were given.");
    else banner(`${error.message} Reload the page; nothing that you answered is lost.`);
  }
}

function banner(text) {
  find("banner").textContent = text;
  find("banner").hidden = !text;
}

function sheet(...children) {
  find("reading").hidden = find("keys").hidden = true;
  find("reading").classList.remove("waiting");
  find("sheet").hidden = false;
  find("sheet").replaceChildren(...children);
  find("sheet").querySelector("[autofocus]")?.focus();
}

function askToken(text = "") {
  const field = element("input", { type: "password", id: "token", autofocus: true,
    autocomplete: "off", maxlength: 64, "aria-label": "Reader token" });
  sheet(
    element("h1", {}, "Reader token"),
    element("p", { class: "lead" }, text || "Open the link that you were given, or enter its token."),
    element("form", { class: "row", onsubmit: (event) => {
      event.preventDefault();
      location.hash = field.value.trim();
      start();
    } }, field, element("button", { class: "main" }, "Begin")),
  );
}

function progress(state) {
  const blocks = state.blocks || [];
  const total = blocks.reduce((sum, each) => sum + each.total, 0);
  const done = blocks.reduce((sum, each) => sum + each.done, 0);
  const bar = find("progress");
  bar.setAttribute("aria-valuemax", total);
  bar.setAttribute("aria-valuenow", done);
  bar.firstElementChild.style.width = total ? `${(100 * done) / total}%` : "0";
  find("count").textContent = total ? `${done} of ${total}` : "";
  find("where").textContent = [state.pilot ? "CUES: pilot" : "", state.reader].filter(Boolean).join(" · ");
}

async function go(state) {
  now = state;
  progress(state);
  document.body.dataset.stage = state.stage;
  if (state.stage === "consent") return consent(state);
  if (state.stage === "done") return done(state);
  const asked = state.trials[0].block;
  if (asked !== block) return introduce(asked, state);
  return ask(state);
}

function consent(state) {
  const tick = element("input", { type: "checkbox", id: "agree" });
  const begin = element("button", { class: "main", disabled: true }, "Take part");
  tick.addEventListener("change", () => { begin.disabled = !tick.checked; });
  sheet(
    element("div", { class: "consent", tabindex: "0" }, ...paragraphs(state.consent)),
    element("form", { class: "row", onsubmit: async (event) => {
      event.preventDefault();
      await go(await getJson("/api/consent", { agreed: true }));
    } }, element("label", {}, tick, " I have read this and agree to take part"), begin),
  );
}

/** Headings, bold words and paragraphs of a Markdown text; everything else stays as it is written. */
function paragraphs(text) {
  const inline = (line) => line.split("**").map((part, place) => (place % 2 ? element("b", {}, part) : part));
  return text.split(/\n\s*\n/).map((part) => {
    const heading = /^#+\s+(.*)/.exec(part);
    return heading ? element("h2", {}, heading[1]) : element("p", {}, ...inline(part.replaceAll("\n", " ")));
  });
}

function introduce(asked, state) {
  const number = state.blocks.findIndex((each) => each.block === asked) + 1;
  const counted = state.blocks[number - 1];
  const texts = {
    yes_no: "You will see one brain at a time, in three planes. Say whether you think that it is real " +
      "or synthetic. About as many are real as are not. You will not be told whether you were right.",
    pairs: "You will see two brains beside each other, of people of the same sex and about the same " +
      "age. Exactly one is real. Scrolling moves both.",
    ratings: "Give each brain five grades. Tick what is wrong with it, if anything; to mark where, click " +
      "the place in any plane and then press “here”.",
  };
  sheet(
    element("p", { class: "kicker" }, `Part ${number} of ${state.blocks.length}`),
    element("h1", {}, QUESTIONS[asked].title),
    element("p", { class: "lead" }, texts[asked]),
    element("p", { class: "lead" }, `${counted.total - counted.done} to go in this part. An answer cannot be ` +
      "changed. Close the page whenever you like: you go on where you were."),
    element("form", { class: "row", onsubmit: (event) => {
      event.preventDefault();
      block = asked;
      ask(now);
    } }, element("button", { class: "main", autofocus: true }, "Go on")),
  );
  prepare(state.trials[0]);
}

/** Draw the first volume of a part behind its introduction, so that it is there at once. */
async function prepare(trial) {
  find("reading").hidden = false;
  find("reading").classList.add("waiting");
  preload(trial);
  try {
    const buffers = await Promise.all(trial.cases.map((id) => ahead.get(id)));
    await screens(trial.cases.length);
    if (now.trials?.[0] !== trial || !find("reading").classList.contains("waiting")) return;
    for (const [place, buffer] of buffers.entries()) await viewers[place].show(buffer);
  } catch {
    // What is wrong is said when the volume is asked for.
  }
}

function done(state) {
  sheet(
    element("h1", {}, "Thank you"),
    element("p", { class: "lead" }, "All your answers are kept. You may close this page."),
    element("p", { class: "note" }, "Receipt, the hash of the study's log with your last answer in it. Keep it: " +
      "no answer before it can be changed unnoticed."),
    element("pre", { id: "receipt" }, state.receipt),
  );
}

function preload(trial) {
  for (const id of trial?.cases || []) {
    if (!ahead.has(id)) {
      const coming = getVolume(`/api/case/${id}.nii`);
      coming.catch(() => ahead.delete(id));
      ahead.set(id, coming);
    }
  }
}

/** Make the screens of a block once; whoever asks meanwhile waits for the same ones. */
function screens(count) {
  if (made.count !== count) made = { count, ready: build(count) };
  return made.ready;
}

async function build(count) {
  const canvases = Array.from({ length: count }, (_, place) =>
    element("canvas", { tabindex: "0", "aria-label": count > 1 ? ["Left", "Right"][place] + " brain" : "Brain" }));
  find("screens").replaceChildren(...canvases.map((canvas, place) => element("figure", {}, canvas,
    ...(count > 1 ? [element("figcaption", {}, ["Left", "Right"][place])] : []))));
  find("screens").className = count > 1 ? "two" : "one";
  const attached = [];
  for (const canvas of canvases) attached.push(await new Viewer(canvas).attach());
  viewers = attached;
  if (count > 1) yoke(viewers);
}

async function ask(state) {
  const trial = state.trials[0];
  find("sheet").hidden = true;
  find("reading").hidden = find("keys").hidden = false;
  find("reading").classList.remove("waiting");
  document.body.dataset.block = trial.block;
  try {
    preload(trial);
    const [buffers] = await Promise.all([
      Promise.all(trial.cases.map((id) => ahead.get(id))),
      screens(trial.cases.length),
    ]);
    for (const [place, buffer] of buffers.entries()) await viewers[place].show(buffer);
  } catch (error) {
    return banner(`${error.message} Reload the page; nothing that you answered is lost.`);
  }
  banner("");
  if (trial.block === "ratings") ratings(trial, state);
  else choices(trial);
  [visible, since, sending] = [0, performance.now(), false];
  requestAnimationFrame(() => {
    document.body.dataset.trial = trial.id;
    document.body.dataset.waitedMs = Math.round(performance.now() - pressed);
    for (const id of ahead.keys()) {
      if (!trial.cases.includes(id)) ahead.delete(id);
    }
    preload(state.trials[1]);
  });
}

async function send(answer) {
  if (sending) return;
  sending = true;
  pressed = performance.now();
  const shown = document.hidden ? visible : visible + pressed - since;
  try {
    await go(await getJson("/api/answer",
      { trial: now.trials[0].id, shown_ms: Math.round(shown), ...answer }));
  } catch (error) {
    sending = false;
    banner(error.status === 401
      ? "Your session was opened in another window or browser. Open your link again to go on here."
      : `The answer was not kept (${error.message}). Reload the page and answer again.`);
  }
}

function choices(trial) {
  const { text, choices: offered } = QUESTIONS[trial.block];
  let chosen = "";
  const confirm = element("button", { class: "main", disabled: true }, "Confirm ", element("kbd", {}, "Enter"));
  const buttons = offered.map(([value, word, key]) => element("button", {
    type: "button", class: "choice", value, "aria-pressed": "false", onclick: () => choose(value),
  }, word, " ", element("kbd", {}, key)));
  const choose = (value) => {
    chosen = value;
    confirm.disabled = false;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.value === value));
  };
  const form = find("question");
  form.className = "choices";
  form.replaceChildren(element("p", {}, text), ...buttons, confirm);
  form.onsubmit = (event) => {
    event.preventDefault();
    if (chosen) send({ choice: chosen });
  };
  form.onkey = (key) => {
    const hit = offered.find((each) => each[2] === key);
    if (hit) choose(hit[0]);
    else if (key === "Enter" && chosen) send({ choice: chosen });
    else return false;
    return true;
  };
}

function ratings(trial, state) {
  const grades = {};
  const places = {};
  let marked = 0;
  const confirm = element("button", { class: "main", disabled: true }, "Confirm ", element("kbd", {}, "Enter"));
  const rows = state.scales.map((scale, row) => element("div", { class: "scale", role: "radiogroup",
    "aria-label": SCALE_WORDS[scale] || scale },
  element("span", {}, SCALE_WORDS[scale] || scale, element("small", {}, SCALE_ENDS[scale] || "")),
  ...[1, 2, 3, 4, 5].map((grade) => element("button", { type: "button", role: "radio", "aria-checked": "false",
    value: grade, onclick: () => give(row, grade) }, String(grade)))));
  const show = () => rows.forEach((row, place) => {
    row.classList.toggle("marked", place === marked);
    for (const button of row.querySelectorAll("button")) {
      button.setAttribute("aria-checked", String(grades[state.scales[place]] === Number(button.value)));
    }
  });
  const give = (row, grade) => {
    grades[state.scales[row]] = grade;
    marked = Math.min(row + 1, rows.length - 1);
    confirm.disabled = state.scales.some((scale) => !grades[scale]);
    show();
  };
  const faults = state.faults.map((name) => {
    const tick = element("input", { type: "checkbox", name });
    const place = element("button", { type: "button", class: "place", hidden: true, onclick: () => {
      places[name] = viewers[0].at.map((value) => Math.round(value * 10) / 10);
      place.textContent = `at ${places[name].map(Math.round).join(", ")} mm`;
    } }, "here");
    tick.addEventListener("change", () => {
      place.hidden = !tick.checked;
      if (!tick.checked) { delete places[name]; place.textContent = "here"; }
    });
    return element("li", {}, element("label", {}, tick, " ", name), " ", place);
  });
  const form = find("question");
  form.className = "ratings";
  form.replaceChildren(
    element("div", {}, element("p", {}, QUESTIONS.ratings.text, " The number keys grade the marked row."), ...rows),
    element("div", {}, element("p", {}, "What is wrong? Click the place, then “here”."),
      element("ul", { class: "faults" }, ...faults)),
    confirm,
  );
  const submit = () => {
    if (confirm.disabled) return;
    const ticked = Array.from(form.querySelectorAll(".faults input:checked"), (tick) => tick.name);
    send({ grades, faults: ticked.map((name) => ({ name, place: places[name] || null })) });
  };
  form.onsubmit = (event) => { event.preventDefault(); submit(); };
  form.onkey = (key) => {
    if ("12345".includes(key) && key.length === 1) give(marked, Number(key));
    else if (key === "Enter") submit();
    else return false;
    return true;
  };
  show();
}

document.addEventListener("keydown", (event) => {
  if (!find("sheet").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  // A button or box that has the focus keeps its own keys.
  const own = event.target.matches("button, input") && ["Enter", " "].includes(event.key);
  if (!own && find("question").onkey?.(event.key)) event.preventDefault();
  else if (!own) viewers[0]?.key(event) && viewers.slice(1).forEach((other) => other.setWindow(
    viewers[0].window.low, viewers[0].window.high));
}, { capture: true });

start();
