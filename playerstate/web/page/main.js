/** The page: puts its parts together, and passes on what the feed brings. */

import { Api } from "./api.js";
import { Charts } from "./charts.js";
import { Crowd } from "./crowd.js";
import { Feed } from "./feed.js";
import { count } from "./format.js";
import { PlayerMap } from "./map.js";
import { Panel } from "./panel.js";
import { Status } from "./status.js";
import { PlayerTable } from "./table.js";
import { themeButton } from "./theme.js";
import { Tiles } from "./tiles.js";
import { Token } from "./token.js";

const get = (id) => document.getElementById(id);
const MOST_ID = 2n ** 63n - 1n;

const crowd = new Crowd();
const tiles = new Tiles(get("figures"));
const charts = new Charts(get("charts"));
const status = new Status({ pill: get("state"), notice: get("notice"), announce: get("announce") });
const token = new Token(get("token-dialog"), () => feed.open());
let isDeclined = false;
const api = new Api(
  () => token.value,
  (why) => unauthorized(why),
);
const map = new PlayerMap(get("map"), crowd, (id) => pick(id), showMode);
const table = new PlayerTable(get("table"), api, (id) => pick(id));
const panel = new Panel(get("panel"), api, {
  closed: () => select(null),
  centred: (isOn) => map.centre(isOn),
  token: () => token.ask(),
  said: (text) => (get("announce").textContent = text),
});
const feed = new Feed(() => token.value, {
  changed(state) {
    status.changed(state);
    panel.live(state.name === "live");
    showTable();
    if (state.name === "token") unauthorized(state.why);
  },
  start: started,
  gauges(gauges) {
    status.heard(gauges);
    tiles.show(gauges);
    charts.add(gauges.history);
  },
  players(picture) {
    crowd.take(picture);
    if (picture.x) map.pictured();
    showLegend();
    followIfSampled();
  },
});

let hasAxes = true;
let view = "map";
let fields = "";
let axes = "";

function started(start) {
  const described = JSON.stringify(start.fields);
  hasAxes = start.axes !== null;
  document.body.toggleAttribute("data-axes", hasAxes);
  crowd.clear();
  if (JSON.stringify([described, start.axes]) !== axes) map.cleared();
  axes = JSON.stringify([described, start.axes]);
  tiles.start(start);
  charts.start(start.history);
  panel.start(start.fields, start.may_write);
  if (described !== fields) table.start(start.fields);
  fields = described;
  get("version").textContent = start.version;
  const right = start.may_write ? "May edit" : "Read only";
  get("token").querySelector(".word").textContent = right;
  get("token").setAttribute("aria-label", `${right}: the token`);
  showAxes(start);
  showView(hasAxes ? view : "table");
}

function unauthorized(why) {
  const had = token.value !== "";
  if (had) token.refused();
  else if (isDeclined) return;
  token.ask(had ? `The server says: ${why}.` : "");
}

function showAxes({ axes, fields }) {
  get("axes").hidden = axes === null || fields.filter(({ kind }) => kind === "float").length < 3;
  if (axes === null) return;
  const names = fields.filter(({ kind }) => kind === "float").map(({ name }) => name);
  [get("axis-x"), get("axis-y")].forEach((select, at) => {
    select.replaceChildren(...names.map((name) => new Option(name, name, false, name === axes[at])));
  });
}

function axesChosen() {
  feed.open({ ...feed.query, x: get("axis-x").value, y: get("axis-y").value });
}

function showView(name) {
  if (hasAxes) view = name;
  get("view-map").hidden = !hasAxes;
  for (const each of ["map", "table"]) {
    get(`view-${each}`).setAttribute("aria-pressed", String(each === name));
  }
  get("players").dataset.view = name;
  get("table").hidden = name !== "table";
  showTable();
}

function showTable() {
  table.show(get("players").dataset.view === "table" && status.state.name === "live");
}

function showMode() {
  get("fit").setAttribute("aria-pressed", String(map.fits));
  panel?.centred(map.keepsSelectedCentred);
}

function showLegend() {
  crowd.counts.forEach((number, kind) => {
    const place = get("legend").querySelector(`[data-kind="${kind}"] b`);
    if (place.textContent !== count(number)) place.textContent = count(number);
  });
  const notes = [];
  if (crowd.stride > 1) notes.push(`a sample: 1 of ${crowd.stride}`);
  if (map.outside > 0 && hasAxes) notes.push(`${count(map.outside)} outside the view`);
  if (get("sample").textContent !== notes.join(" · ")) get("sample").textContent = notes.join(" · ");
  get("empty").hidden = crowd.n > 0;
}

/** Show a player in the panel, or none. */
function pick(id) {
  if (id === null) return panel.close();
  select(id);
  panel.open(id);
  // On a phone the panel covers the lower half: bring the map above it.
  if (getComputedStyle(get("panel")).position === "fixed") get("players").scrollIntoView();
}

function select(id) {
  map.select(id);
  const { follow, ...query } = feed.query;
  if (follow !== undefined) feed.open(query);
}

/** A player who is looked at stays in the picture, also where it is a sample. */
function followIfSampled() {
  const id = map.selected;
  if (id === null || crowd.stride === 1 || feed.query.follow === String(id)) return;
  if (crowd.find(id) < 0) feed.open({ ...feed.query, follow: String(id) });
}

function find(event) {
  event.preventDefault();
  const input = get("find").elements.id;
  const text = input.value.trim();
  const isId = /^[0-9]{1,19}$/.test(text) && BigInt(text) > 0n && BigInt(text) <= MOST_ID;
  input.setAttribute("aria-invalid", String(!isId));
  get("find-error").textContent = isId ? "" : "A session id is a whole number from 1 on.";
  if (!isId) return input.focus();
  pick(BigInt(text));
  get("panel").focus({ preventScroll: true });
}

themeButton(get("theme"));
get("token").addEventListener("click", () => token.ask());
get("token-dialog").addEventListener("close", () => {
  isDeclined = token.value === "";
  // Where reading needs no token, the page goes on without one that is not known.
  if (isDeclined && status.state.name === "token") feed.open();
});
get("notice").querySelector("button").addEventListener("click", () => {
  if (status.state.name === "token") token.ask();
  else if (status.state.name === "outdated") location.reload();
  else feed.open();
});
get("find").addEventListener("submit", find);
get("find").elements.id.addEventListener("input", (event) => {
  event.target.removeAttribute("aria-invalid");
  get("find-error").textContent = "";
});
get("axis-x").addEventListener("change", axesChosen);
get("axis-y").addEventListener("change", axesChosen);
get("view-map").addEventListener("click", () => showView("map"));
get("view-table").addEventListener("click", () => showView("table"));
get("zoom-in").addEventListener("click", () => map.zoom(1.4));
get("zoom-out").addEventListener("click", () => map.zoom(1 / 1.4));
get("fit").addEventListener("click", () => map.fit());
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
  event.preventDefault();
  get("find").elements.id.focus();
});

/** For tests, and for who looks closer in the browser's console. */
globalThis.playerstate = {
  whereIs: (id) => map.whereIs(id),
  get drawn() {
    return map.drawn;
  },
};

feed.open();
