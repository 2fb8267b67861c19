// The page of `genmix review`. It talks to the server that it came from, and to nobody else.

const token = new URLSearchParams(location.search).get("token") ?? "";
const at = (id) => document.getElementById(id);
const LEAST_CELL = matchMedia("(max-width: 800px)").matches ? 72 : 88;
const GAP = 6;
const KEPT_PICTURES = 600;
const POLL_MS = 4000;

let facts; // what does not change: total, classes, labels, marks, answers
let letters; // one a patch; "." where nothing is decided
let truth = null; // after a blind test: what each patch was
let current = 0;
let columns = 1;
let cellSize = LEAST_CELL;
let waiting = Promise.resolve(); // requests that change something go one after the other
let inFlight = 0;
const done = []; // what can be undone here: {id, image}
const pictures = new Map(); // number -> promise of a blob's address, oldest first
const shown = new Map(); // number -> its cell in the sheet

async function ask(path, body) {
  const headers = { Authorization: `Bearer ${token}` };
  const options = { headers, keepalive: body !== undefined };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer: it was stopped. Every decision that was shown as saved is kept.");
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `The server said ${answer.status}.`);
  return answer;
}

function picture(number) {
  let found = pictures.get(number);
  pictures.delete(number);
  if (!found) {
    found = ask(`/api/picture/${number}?v=${facts.version}`).then(async (answer) => URL.createObjectURL(await answer.blob()));
    found.catch(() => pictures.delete(number));
  }
  pictures.set(number, found);
  for (const [old, address] of pictures) {
    if (pictures.size <= KEPT_PICTURES) break;
    if (shown.has(old) || old === current) continue;
    pictures.delete(old);
    address.then(URL.revokeObjectURL, () => {});
  }
  return found;
}

async function show(image, number) {
  if (image.dataset.number === String(number) && !image.hidden) return;
  image.dataset.number = number;
  image.hidden = true; // an old picture must not stand under a new name
  try {
    const address = await picture(number);
    if (image.dataset.number !== String(number)) return; // it is to show another by now
    image.src = address;
    await image.decode();
    if (image.dataset.number === String(number)) image.hidden = false;
  } catch (error) {
    if (error.name !== "EncodingError") complain(error.message);
  }
}

const answerOf = (letter) => facts.answers.find((answer) => answer.letter === letter);
const className = (number) => facts.classes[facts.labels[number]];

function word(number) {
  const answer = answerOf(letters[number]);
  const said = answer ? answer.verdict : "open";
  if (!truth) return said;
  return `called ${said}, was ${answerOf(truth[number]).verdict}`;
}

function tone(number) {
  const letter = letters[number];
  if (truth) return letter === truth[number] ? "good" : "bad";
  if (facts.mode === "blind" || letter === ".") return "";
  return letter === "a" ? "good" : "bad";
}

function badge(number) {
  if (letters[number] === ".") return "";
  if (facts.mode === "review") return letters[number] === "a" ? "✓" : "✕";
  return truth ? (letters[number] === truth[number] ? "✓" : "✕") : letters[number].toUpperCase();
}

function say(text) {
  at("said").textContent = text;
}

function complain(text) {
  at("trouble").textContent = text;
  at("trouble").hidden = !text;
}

// The sheet: only the rows in sight are there, so that ten thousand patches cost no more than a hundred.

function layOut() {
  const width = at("rows").clientWidth;
  columns = Math.max(1, Math.floor((width + GAP) / (LEAST_CELL + GAP)));
  cellSize = Math.floor((width + GAP) / columns) - GAP;
  at("rows").style.height = `${Math.ceil(facts.total / columns) * (cellSize + GAP)}px`;
  for (const cell of shown.values()) cell.remove();
  shown.clear();
  paintSheet();
}

function paintSheet() {
  const sheet = at("sheet");
  const row = cellSize + GAP;
  const first = Math.max(0, Math.floor(sheet.scrollTop / row) - 2) * columns;
  const last = Math.min(facts.total, Math.ceil((sheet.scrollTop + sheet.clientHeight) / row + 2) * columns);
  for (const [number, cell] of shown) {
    if ((number < first || number >= last) && number !== current) {
      cell.remove();
      shown.delete(number);
    }
  }
  for (let number = first; number < last; number++) addCell(number);
  addCell(current); // what the list says is its active one must be there
}

function addCell(number) {
  if (shown.has(number)) return;
  const cell = document.createElement("div");
  cell.className = "patch";
  cell.id = `patch-${number}`;
  cell.setAttribute("role", "option");
  cell.setAttribute("aria-setsize", facts.total);
  cell.setAttribute("aria-posinset", number + 1);
  cell.style.width = cell.style.height = `${cellSize}px`;
  cell.style.left = `${(number % columns) * (cellSize + GAP)}px`;
  cell.style.top = `${Math.floor(number / columns) * (cellSize + GAP)}px`;
  const image = document.createElement("img");
  image.alt = "";
  const mark = document.createElement("span");
  mark.className = "badge";
  mark.setAttribute("aria-hidden", "true");
  cell.append(image, mark);
  cell.addEventListener("click", () => goTo(number));
  shown.set(number, cell);
  at("rows").append(cell);
  paintCell(number);
  show(image, number);
}

function paintCell(number) {
  const cell = shown.get(number);
  if (!cell) return;
  cell.dataset.tone = tone(number);
  cell.lastChild.textContent = badge(number);
  cell.setAttribute("aria-label", `Patch ${number + 1}, ${className(number)}, ${word(number)}`);
  cell.setAttribute("aria-selected", number === current);
}

function bringIntoSight() {
  const sheet = at("sheet");
  const top = Math.floor(current / columns) * (cellSize + GAP);
  if (top < sheet.scrollTop) sheet.scrollTop = top;
  else if (top + cellSize > sheet.scrollTop + sheet.clientHeight) sheet.scrollTop = top + cellSize - sheet.clientHeight;
}

// The card: the patch that is decided on

function paintCard() {
  at("which").textContent = `Patch ${current + 1} of ${facts.total}: ${className(current)}`;
  at("picture").alt = `Patch ${current + 1}, ${className(current)}, ${word(current)}`;
  at("frame").dataset.tone = tone(current);
  const marks = facts.marks[current];
  at("marks").hidden = !marks;
  at("marks").textContent = marks ? `Marked: ${marks.join(", ")}` : "";
  for (const button of at("answers").children) {
    button.setAttribute("aria-pressed", button.dataset.letter === letters[current]);
    button.disabled = Boolean(truth);
  }
  at("undo").disabled = !done.length || Boolean(truth);
  at("open").disabled = !letters.includes(".");
}

function goTo(number, { quietly = false } = {}) {
  const before = current;
  current = Math.min(facts.total - 1, Math.max(0, number));
  paintSheet();
  bringIntoSight();
  paintCell(before);
  paintCell(current);
  at("sheet").setAttribute("aria-activedescendant", `patch-${current}`);
  paintCard();
  show(at("picture"), current);
  if (current + 1 < facts.total) picture(current + 1).catch(() => {}); // the next is there when it is asked for
  if (!quietly) say(`Patch ${current + 1}, ${className(current)}, ${word(current)}.`);
}

function nextOpen(from) {
  const after = letters.indexOf(".", from);
  return after >= 0 ? after : letters.indexOf(".");
}

function setLetter(number, letter) {
  letters = letters.slice(0, number) + letter + letters.slice(number + 1);
  paintCell(number);
}

function take(state) {
  const before = letters;
  letters = state.letters;
  at("progress").textContent = state.text;
  at("bar").value = facts.total - (letters.split(".").length - 1);
  if (state.score && !truth) {
    truth = state.truth;
    const heading = document.createElement("h2");
    const sentence = document.createElement("p");
    heading.textContent = "Result";
    sentence.textContent = `${state.score.text}.`;
    at("score").append(heading, sentence);
    for (const number of shown.keys()) paintCell(number);
    say("The last patch is answered: each patch shows now whether it was called right.");
  }
  if (before !== letters) {
    for (const number of shown.keys()) if (before?.[number] !== letters[number]) paintCell(number);
  }
  paintCard();
}

// Changes: shown at once, sent one after the other; what the server refuses is taken back and said

function change(work) {
  inFlight += 1;
  waiting = waiting.then(work).finally(() => {
    inFlight -= 1;
  });
}

function decide(letter) {
  if (truth) return;
  const number = current;
  const answer = answerOf(letter);
  if (at("picture").hidden) {
    say("The picture is not there yet: nothing was decided.");
    return;
  }
  complain("");
  setLetter(number, letter);
  const next = nextOpen(number + 1);
  if (next >= 0) goTo(next, { quietly: true });
  else paintCard();
  const there = next >= 0 ? ` Patch ${next + 1}, ${className(next)}.` : " Every patch is decided.";
  say(`Patch ${number + 1} ${answer.verdict}.${there}`);
  change(async () => {
    try {
      const state = await (await ask("/api/decide", { image: number, verdict: answer.verdict })).json();
      done.push({ id: state.id, image: number });
      if (inFlight === 1) take(state);
    } catch (error) {
      await refused(error, number);
    }
  });
}

function undo() {
  if (truth) return;
  change(async () => {
    const last = done.pop();
    if (!last) {
      say("Nothing was decided on this page that could be undone. Go to a patch, and decide anew.");
      return;
    }
    try {
      const state = await (await ask("/api/undo", { id: last.id })).json();
      complain("");
      take(state);
      goTo(state.image, { quietly: true });
      say(`Undone. Patch ${state.image + 1}, ${className(state.image)}, ${word(state.image)}.`);
    } catch (error) {
      done.push(last);
      await refused(error, last.image);
    }
  });
}

async function refused(error, number) {
  complain(`Patch ${number + 1} was not saved. ${error.message}`);
  setLetter(number, ".");
  goTo(number, { quietly: true });
  await look();
}

async function look() {
  try {
    const state = await (await ask("/api/state")).json();
    if (inFlight <= 1) take(state);
  } catch (error) {
    if (at("trouble").hidden) complain(error.message);
  }
}

// Keys. Single letters can be switched off; arrows always work in the sheet.

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inSheet = document.activeElement === at("sheet");
  const moves = { ArrowLeft: -1, ArrowRight: 1 };
  if (inSheet) Object.assign(moves, { ArrowUp: -columns, ArrowDown: columns, Home: -facts.total, End: facts.total });
  if (event.key in moves && (inSheet || at("keys").checked)) {
    event.preventDefault();
    goTo(current + moves[event.key]);
    return;
  }
  if (!at("keys").checked || event.repeat) return;
  const key = event.key.toLowerCase();
  const answer = facts.answers.find((one) => one.key === key);
  if (answer) decide(answer.letter);
  else if (key === "u") undo();
  else if (key === "n" && nextOpen(current + 1) >= 0) goTo(nextOpen(current + 1));
  else return;
  event.preventDefault();
}

function makeAnswers() {
  for (const answer of facts.answers) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.letter = answer.letter;
    button.dataset.tone = facts.mode === "blind" ? "even" : answer.letter === "a" ? "good" : "bad";
    button.setAttribute("aria-keyshortcuts", answer.key.toUpperCase());
    const key = document.createElement("kbd");
    key.textContent = answer.key.toUpperCase();
    button.append(answer.label, key);
    button.addEventListener("click", () => decide(answer.letter));
    at("answers").append(button);
  }
}

async function begin() {
  try {
    facts = await (await ask("/api/start")).json();
  } catch (error) {
    at("progress").textContent = "";
    complain(error.message);
    return;
  }
  const blind = facts.mode === "blind";
  const title = `${blind ? "Real or synthetic" : "Review"}: ${facts.name}`;
  at("title").textContent = document.title = title;
  at("bar").max = facts.total;
  letters = facts.letters;
  makeAnswers();
  layOut();
  take(facts);
  goTo(Math.max(0, nextOpen(0)), { quietly: true });
  say(letters.includes(".") ? "" : "Every patch is decided.");
  at("back").addEventListener("click", () => goTo(current - 1));
  at("forth").addEventListener("click", () => goTo(current + 1));
  at("open").addEventListener("click", () => goTo(nextOpen(current + 1)));
  at("undo").addEventListener("click", undo);
  at("sheet").addEventListener("scroll", paintSheet, { passive: true });
  document.addEventListener("keydown", onKey);
  new ResizeObserver(layOut).observe(at("sheet"));
  setInterval(() => document.hidden || inFlight || look(), POLL_MS);
}

begin();
