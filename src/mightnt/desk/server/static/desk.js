// The desk. Everything that a person or a model wrote reaches the page as text nodes, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const SILENCE_MS = 16000; // three heartbeats of the server
const LATE_SECONDS = 60;
const SHOWN_MESSAGES = { wide: 12, narrow: 4 };

const state = {
  me: null, // what /desk/me said
  tickets: new Map(), // number -> summary
  open: null, // the whole ticket on show
  wanted: null, // tells the latest choice of a ticket from earlier ones; the ticket may still be on its way
  drafts: new Map(), // number -> {text, proposal, join}
  keys: new Map(), // what is about to be sent -> its key, so that a second sending counts once
  undo: null, // {number, until, total, verdict}
  live: false,
  skew: 0, // the server's clock minus ours, in seconds
  sending: false,
};

// ---- small helpers

function element(tag, classes, ...inside) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  made.append(...inside); // strings become text nodes
  return made;
}

function words(text, classes = "said") {
  const made = element("span", classes, text);
  made.dir = "auto";
  return made;
}

const now = () => Date.now() / 1000 + state.skew;
const percent = (p) => (p > 0 && p < 0.01 ? "under 1%" : `${Math.round(100 * p)}%`);
const nats = (x) => (x === "inf" ? "no limit" : Number(x).toFixed(2));

function minutes(seconds) {
  const left = Math.max(0, Math.ceil(seconds));
  if (left >= 5940) return `${Math.round(left / 3600)} h`;
  return `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
}

function person() {
  if (!state.me) return "";
  return state.me.tokens ? state.me.person : $("person").value.trim() || state.me.people[0];
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(path, body) {
  const options = { credentials: "same-origin", headers: { Accept: "application/json" } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.headers["X-Desk-Stamp"] = state.me ? state.me.stamp : "";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const value = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, value.error ? value.error.message : `status ${response.status}`);
  return value;
}

// ---- who, and whether the server is there

async function begin() {
  try {
    state.me = await call("/desk/me");
  } catch (error) {
    if (error.status === 401 || error.status === 403) return signIn();
    return offline();
  }
  const { tokens, people, model } = state.me;
  $("model").textContent = model;
  $("person").hidden = tokens;
  $("signed-in").hidden = $("sign-out").hidden = !tokens;
  $("signed-in").textContent = state.me.person;
  $("people").replaceChildren(...people.map((name) => Object.assign(element("option"), { value: name })));
  if (!tokens && !$("person").value) $("person").value = localStorage.getItem("person") || people[0];
  listen();
}

function signIn() {
  setLive(false, "Signed out");
  if (!$("sign-in").open) $("sign-in").showModal();
}

async function tryToken(event) {
  event.preventDefault();
  try {
    await call("/desk/login", { token: $("token").value });
    $("token").value = "";
    $("sign-in-trouble").hidden = true;
    $("sign-in").close();
    begin();
  } catch (error) {
    $("sign-in-trouble").hidden = false;
    $("sign-in-trouble").textContent =
      error.status === 401 ? "No demonstrator has this token." : error.message || "The server cannot be reached.";
  }
}

async function signOut() {
  await call("/desk/logout", {}).catch(() => {});
  if (source) source.close();
  clearTimeout(watchdog);
  signIn();
}

let source = null;
let watchdog = 0;

function listen() {
  if (source) source.close();
  source = new EventSource("/desk/events");
  const hear = (name, then) =>
    source.addEventListener(name, (event) => {
      const value = JSON.parse(event.data);
      state.skew = value.now - Date.now() / 1000;
      setLive(true);
      watch();
      then(value);
    });
  hear("queue", (value) => fill(value.tickets));
  hear("ticket", changed);
  hear("beat", () => {});
  source.onerror = () => offline();
  watch();
}

function watch() {
  clearTimeout(watchdog);
  watchdog = setTimeout(offline, SILENCE_MS);
}

function offline() {
  setLive(false);
  if (source) source.close();
  source = null;
  clearTimeout(watchdog);
  watchdog = setTimeout(begin, 2000);
}

function setLive(live, said = "Offline") {
  state.live = live;
  $("connection").dataset.state = live ? "live" : "offline";
  $("connection-words").textContent = live ? "Live" : said;
  $("offline").hidden = live || said !== "Offline";
  $("offline").textContent = $("offline").hidden
    ? ""
    : "You are offline: the server cannot be reached. Nothing is sent and nothing is kept for later; your draft stays in the box. Trying again by itself.";
  buttons();
}

// ---- the queue

function fill(tickets) {
  state.tickets = new Map(tickets.map((ticket) => [ticket.number, ticket]));
  drawQueue();
  if (state.open) show(state.open.number, false);
  else if (location.hash.length > 1) show(location.hash.slice(1), false);
  else if (wide() && waiting().length) show(waiting()[0].number, false);
}

function changed(ticket) {
  const known = state.tickets.get(ticket.number);
  if (known && known.sequence > ticket.sequence) return;
  const final = !["waiting", "decided"].includes(ticket.state);
  if (final) {
    state.tickets.delete(ticket.number);
    state.drafts.delete(ticket.number);
  } else state.tickets.set(ticket.number, ticket);
  if (!known && !final) {
    announce(`A new question: ${ticket.excerpt}. ${waiting().length} waiting.`);
    ticket.isNew = true;
  }
  drawQueue();
  if (state.open && state.open.number === ticket.number) {
    Object.assign(state.open, ticket);
    standing();
  } else if (!state.open && wide() && !final) show(ticket.number, false);
}

const wide = () => matchMedia("(min-width: 48.01rem)").matches;
const inOrder = () => [...state.tickets.values()].sort((a, b) => a.asked_at - b.asked_at);
const waiting = () => inOrder().filter((ticket) => ticket.state === "waiting");
const announce = (text) => ($("news").textContent = text);

function drawQueue() {
  const rows = inOrder().map(row);
  const focused = document.activeElement && document.activeElement.dataset.number;
  $("tickets").replaceChildren(...rows.map((button) => element("li", "", button)));
  if (focused) rows.find((button) => button.dataset.number === focused)?.focus();
  const n = waiting().length;
  $("count").textContent = n;
  $("nothing").hidden = rows.length > 0;
  document.title = n ? `(${n}) Desk` : "Desk";
  tick();
}

function row(ticket) {
  const decided = ticket.state === "decided";
  const left = element("span", "left");
  left.dataset.until = ticket.expires_at;
  const facts = element("span", "facts", decided ? `decided by ${ticket.decided_by}` : left);
  const why = ticket.forced ? "must ask" : `${percent(ticket.asking_probability)} unsure`;
  if (!decided) facts.append(element("span", "", `for ${ticket.person}`), element("span", "", why));
  const button = element("button", `ticket${decided ? " decided" : ""}${ticket.isNew ? " new" : ""}`);
  ticket.isNew = false;
  button.append(words(ticket.excerpt || "(the agent opens)", "excerpt"), facts);
  button.type = "button";
  button.dataset.number = ticket.number;
  if (state.open && state.open.number === ticket.number) button.setAttribute("aria-current", "true");
  button.addEventListener("click", () => show(ticket.number));
  return button;
}

// ---- the open question

async function show(number, focus = true) {
  const wanted = (state.wanted = {});
  let whole;
  try {
    whole = await call(`/desk/tickets/${encodeURIComponent(number)}`);
  } catch (error) {
    if (state.wanted !== wanted) return;
    if (error.status === 404) return close();
    if (error.status) return signIn();
    return offline();
  }
  if (state.wanted !== wanted) return; // another one was chosen meanwhile
  keepDraft();
  state.open = whole;
  history.replaceState(null, "", `#${number}`);
  document.body.classList.add("reading");
  $("empty").hidden = true;
  $("open").hidden = false;
  draw(whole.inquiry);
  restoreDraft();
  standing();
  drawQueue();
  if (focus) {
    $("question").focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

function close() {
  keepDraft();
  state.open = state.wanted = null;
  history.replaceState(null, "", location.pathname);
  document.body.classList.remove("reading");
  $("empty").hidden = false;
  $("open").hidden = true;
  drawQueue();
}

function draw(inquiry) {
  const name = inquiry.conversation;
  $("where").textContent = `Conversation ${name.length > 12 ? `${name.slice(0, 10)}…` : name}, turn ${inquiry.turn + 1}.`;
  $("where").title = name;
  drawMessages(inquiry);
  $("reason").textContent = reason(inquiry);
  $("asking").textContent = percent(inquiry.asking_probability);
  fillBar($("asking-bar"), inquiry.asking_probability);
  const bounded = inquiry.limit_nats !== "inf";
  $("account").textContent = bounded ? `${nats(inquiry.left_nats)} of ${nats(inquiry.limit_nats)} nats` : "no limit";
  fillBar($("account-bar"), bounded ? inquiry.left_nats / (inquiry.limit_nats || 1) : 1);
  $("proposed").hidden = !inquiry.proposals.length;
  $("proposals").replaceChildren(...inquiry.proposals.map(proposal));
}

function fillBar(bar, share) {
  bar.firstElementChild.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
}

function reason(inquiry) {
  const why = inquiry.forced
    ? "The account cannot pay for anything that the agent could do here, so only a person may go on."
    : `The models of what you might say agree on ${percent(1 - inquiry.asking_probability)} of what could come next; the rest is asked.`;
  return inquiry.disagreement ? `${why} ${sentence(inquiry.disagreement)}` : why;
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

function drawMessages(inquiry) {
  const rows = inquiry.messages.map((message) => bubble(message.role === "user" ? "User" : "Agent", message.content));
  if (inquiry.begun) {
    const begun = bubble("Agent has begun", inquiry.begun);
    begun.classList.add("begun");
    rows.push(begun);
  }
  const hidden = rows.splice(0, Math.max(0, rows.length - SHOWN_MESSAGES[wide() ? "wide" : "narrow"]));
  if (hidden.length) {
    const button = element("button", "quiet", `Show ${hidden.length} earlier`);
    button.type = "button";
    const fold = element("li", "fold", button);
    button.addEventListener("click", () => fold.replaceWith(...hidden));
    rows.unshift(fold);
  }
  $("messages").replaceChildren(...rows);
  $("messages").scrollTop = $("messages").scrollHeight;
}

function bubble(who, text) {
  return element("li", who === "User" ? "" : "agent", element("span", "role", who), words(text));
}

function proposal(proposed, index) {
  const bar = element("span", "bar", element("i"));
  fillBar(bar, proposed.probability);
  const button = element(
    "button",
    "",
    element("kbd", "", String(index + 1)),
    words(proposed.text.trimStart()),
    element("span", "p", percent(proposed.probability)),
    element("span", "by", proposed.model, bar),
  );
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => take(index));
  return element("li", "", button);
}

function take(index) {
  const proposed = state.open.inquiry.proposals[index];
  if (!proposed || !editable()) return;
  $("text").value = proposed.text;
  $("text").dataset.proposal = index;
  $("text").focus();
  typed();
}

// ---- the draft

const chosen = () => ($("text").dataset.proposal === undefined ? null : Number($("text").dataset.proposal));

function unchanged() {
  return chosen() !== null && $("text").value === state.open.inquiry.proposals[chosen()].text;
}

function answerText() {
  const text = $("text").value;
  return needsSpace(text) && !$("join").checked ? ` ${text}` : text;
}

function needsSpace(text) {
  const ends = /[\p{L}\p{N}]$/u.test(state.open.inquiry.begun) && /^[\p{L}\p{N}]/u.test(text);
  return ends && !unchanged();
}

function typed() {
  if (!state.open) return;
  const text = $("text").value;
  if (!text) delete $("text").dataset.proposal;
  $("join-row").hidden = !needsSpace(text);
  $("from").textContent =
    chosen() === null ? "" : `${unchanged() ? "as proposed in" : "made from"} ${chosen() + 1}`;
  const begun = state.open.inquiry.begun;
  $("preview").replaceChildren(element("span", "soft", begun), text ? answerText() : begun ? " …" : "…");
  [...$("proposals").children].forEach((item, i) =>
    item.firstElementChild.setAttribute("aria-pressed", String(i === chosen())),
  );
  buttons();
}

function keepDraft() {
  if (!state.open) return;
  const text = $("text").value;
  if (text) state.drafts.set(state.open.number, { text, proposal: chosen(), join: $("join").checked });
  else state.drafts.delete(state.open.number);
}

function restoreDraft() {
  const draft = state.drafts.get(state.open.number) || { text: "", proposal: null, join: false };
  $("text").value = draft.text;
  $("join").checked = draft.join;
  if (draft.proposal === null) delete $("text").dataset.proposal;
  else $("text").dataset.proposal = draft.proposal;
  trouble("");
  typed();
}

// ---- how it stands, and what can be done

const editable = () => state.open && state.open.state === "waiting";

function standing() {
  const ticket = state.open;
  const by = ticket.decided_by ? ` by ${ticket.decided_by}` : "";
  const said = { answer: "answered", edit: "answered", refuse: "refused", stop: "stopped" }[ticket.verdict];
  const stands = {
    waiting: "",
    decided: `This is ${said}${by}. It can still be undone by who decided.`,
    answered: `This was answered${by}.`,
    refused: `This was refused${by}. Nothing was said.`,
    stopped: `The conversation was stopped${by}.`,
    expired: "Nobody answered in time. Nothing was said.",
  }[ticket.state];
  $("verdict").textContent = stands;
  $("verdict").hidden = !stands;
  $("answer").hidden = Boolean(stands);
  $("clock").hidden = Boolean(stands);
  buttons();
  tick();
}

function buttons() {
  const can = state.live && editable() && !state.sending;
  const mine = state.open && state.open.person === person();
  enable("send", can && $("text").value.trim() !== "", state.live ? "Write something, or take a proposal" : "Offline");
  enable("refuse", can, "Offline");
  enable("stop", can, "Offline");
  enable("pass", can && mine, state.live && state.open ? `It is the turn of ${state.open.person}` : "Offline");
}

function enable(id, can, why) {
  $(id).setAttribute("aria-disabled", String(!can));
  $(id).title = can ? $(id).getAttribute("aria-label") || "" : why;
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function fresh() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function decide(verdict) {
  const id = { answer: "send", refuse: "refuse", escalate: "pass", stop: "stop" }[verdict];
  if (!state.open || $(id).getAttribute("aria-disabled") === "true") return;
  const { number } = state.open;
  const { wanted } = state;
  const body = { verdict, person: person() };
  if (verdict === "answer") {
    body.text = answerText();
    body.proposal = chosen();
    if (chosen() !== null && !unchanged()) body.verdict = "edit";
  }
  const sent = JSON.stringify([number, body]);
  if (!state.keys.has(sent)) state.keys.set(sent, fresh());
  const ticket = await change(`/desk/tickets/${number}/decide`, { ...body, key: state.keys.get(sent) });
  if (!ticket) return;
  state.keys.delete(sent);
  if (ticket.state === "decided") startUndo(ticket);
  else announce(`Passed on to ${ticket.person}.`);
  if (verdict !== "escalate") keepDraft();
  if (state.wanted === wanted) goOn(number); // else a ticket was chosen meanwhile
}

async function change(path, body) {
  state.sending = true;
  trouble("");
  buttons();
  try {
    const ticket = await call(path, body);
    changed(ticket);
    return ticket;
  } catch (error) {
    if (error.status === 401) signIn();
    else if (error.status === 403) begin();
    if (error.status) trouble(`Not done: ${error.message}.`);
    else {
      offline();
      trouble("No answer from the server: it may or may not have heard. Send again when you are back; it counts once.");
    }
    return null;
  } finally {
    state.sending = false;
    buttons();
  }
}

function goOn(number) {
  const next = waiting().find((ticket) => ticket.number !== number);
  if (next && wide()) show(next.number);
  else close();
}

function step(by) {
  const order = inOrder();
  if (!order.length) return;
  const at = order.findIndex((ticket) => state.open && ticket.number === state.open.number);
  show(order[at < 0 ? 0 : Math.min(order.length - 1, Math.max(0, at + by))].number);
}

// ---- undo

function startUndo(ticket) {
  const total = state.me.undo_seconds;
  if (!total) return;
  const said = { answer: "Answered.", edit: "Answered.", refuse: "Refused.", stop: "Stopped." }[ticket.verdict];
  state.undo = { number: ticket.number, until: ticket.decided_at + total, total };
  $("undo-words").textContent = said;
  $("undo").hidden = false;
  tick();
}

async function undo() {
  if (!state.undo) return;
  const { number } = state.undo;
  const ticket = await change(`/desk/tickets/${number}/undo`, { person: person() });
  if (!ticket) {
    $("undo-words").textContent = "Not undone: too late, or the server is away.";
    return;
  }
  state.undo = null;
  $("undo").hidden = true;
  await show(number);
  announce("Undone. The question waits again.");
}

// ---- time

function tick() {
  for (const left of document.querySelectorAll("[data-until]")) {
    const seconds = left.dataset.until - now();
    left.textContent = minutes(seconds);
    left.classList.toggle("late", seconds < LATE_SECONDS);
  }
  if (state.open && state.open.state === "waiting") {
    const seconds = state.open.expires_at - now();
    $("clock").textContent = `${state.open.person} has ${minutes(seconds)} left.`;
    $("clock").classList.toggle("late", seconds < LATE_SECONDS);
  }
  if (state.undo) {
    const left = state.undo.until - now();
    $("undo-seconds").textContent = `${Math.max(0, Math.ceil(left))} s`;
    $("undo-bar").style.width = `${Math.max(0, (100 * left) / state.undo.total)}%`;
    if (left <= 0) {
      state.undo = null;
      $("undo").hidden = true;
    }
  }
}

// ---- keys

const DECIDE = { R: "refuse", P: "escalate", S: "stop" };

function pressed(event) {
  const inside = event.target.matches("input, textarea, select");
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!event.repeat) decide("answer");
  } else if (event.key === "Enter" && event.target.closest(".actions")) {
    event.preventDefault(); // Enter alone decides nothing; Space and Ctrl Enter do
  } else if (event.key === "Escape") {
    if (inside) event.target.blur();
    else if (state.open) close();
  } else if (!inside && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat && singleKeys()) {
    single(event);
  }
}

const singleKeys = () => $("keys").checked;

function single(event) {
  const key = event.key;
  const act = {
    "?": () => $("help").showModal(),
    j: () => step(1),
    k: () => step(-1),
    w: () => editable() && $("text").focus(),
    u: undo,
  }[key];
  if (act) act();
  else if (event.shiftKey && DECIDE[key]) decide(DECIDE[key]);
  else if (/^[1-9]$/.test(key) && state.open) take(Number(key) - 1);
  else return;
  event.preventDefault();
}

function wire() {
  $("send").addEventListener("click", () => decide("answer"));
  $("refuse").addEventListener("click", () => decide("refuse"));
  $("pass").addEventListener("click", () => decide("escalate"));
  $("stop").addEventListener("click", () => decide("stop"));
  $("undo-button").addEventListener("click", undo);
  $("back").addEventListener("click", close);
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("sign-in-form").addEventListener("submit", tryToken);
  $("sign-in").addEventListener("cancel", (event) => event.preventDefault());
  $("sign-out").addEventListener("click", signOut);
  $("answer").addEventListener("submit", (event) => event.preventDefault());
  $("text").addEventListener("input", typed);
  $("join").addEventListener("change", typed);
  $("person").addEventListener("change", () => {
    localStorage.setItem("person", $("person").value.trim());
    buttons();
  });
  $("keys").checked = localStorage.getItem("keys") !== "off";
  $("keys").addEventListener("change", () => localStorage.setItem("keys", $("keys").checked ? "on" : "off"));
  document.addEventListener("keydown", pressed);
  window.addEventListener("offline", offline);
  window.addEventListener("online", begin);
  setInterval(tick, 250);
}

wire();
begin();
