// The console: loads what is, listens to what changes, and lets an operator act on alerts.

import * as api from "./api.js";
import { CanvasMap } from "./canvas-map.js";
import { Detail } from "./detail.js";
import { Drawing } from "./draw.js";
import { $ } from "./dom.js";
import { count, sentences } from "./format.js";
import { drawable, positionsOf } from "./geometry.js";
import { createGlMap, hasWebGl } from "./gl-map.js";
import { History } from "./history.js";
import { Model } from "./model.js";
import { Queue } from "./queue.js";
import { isDark, startTheme } from "./theme.js";
import { Week } from "./week.js";

const TRACK_BEFORE_MS = 90 * 60_000; // what led to an alert
const TRACK_LENGTH_MS = 3 * 3600_000;
const DONE_LOADED = 200;
const MANY = 20; // from so many on, the lists are cheaper than each alert by itself

const model = new Model();
const narrow = matchMedia("(max-width: 760px)");
let map = null;
let zones = { type: "FeatureCollection", features: [] };
let selection = null; // { kind: "alert" | "device", id, deviceId, zoneId, extra }
let tab = "live";
let trouble = null;
let loaded = false; // zones and the whole fleet are there, not just what the stream has told so far
let framed = false;

const queue = new Queue((alertId) => selectAlert(alertId));
const history = new History((fix) => map?.setReplay(fix));
const detail = new Detail({ close: deselect, acknowledge, resolve, ask: askDevice }, history, new Week(announce));
let drawing = null;

// --- loading

async function loadAlerts() {
  try {
    const [live, done] = await Promise.all([
      api.alerts(["open", "acknowledged"], 2000),
      api.alerts(["resolved", "withdrawn"], DONE_LOADED),
    ]);
    model.replaceAlerts([...live, ...done]);
    setTrouble(null);
  } catch (error) {
    setTrouble(error);
    setTimeout(loadAlerts, 3000);
  }
  render();
}

async function loadMap() {
  try {
    const [collection, positions] = await Promise.all([api.zones(), api.positions()]);
    zones = drawable(collection);
    map.setZones(zones);
    model.mergePositions(positions);
    renderMap();
    loaded = true;
    frameOnce();
  } catch (error) {
    setTrouble(error);
    setTimeout(loadMap, 3000);
  }
}

function frameOnce() {
  if (framed || !loaded || !(model.devices.size || zones.features.length)) return;
  framed = true;
  showFleet();
}

// --- showing

function renderQueue() {
  const alerts = tab === "live" ? model.live : model.done;
  queue.render(alerts, selection?.kind === "alert" ? selection.id : null, noteFor(alerts));
}

function render() {
  renderQueue();
  const live = model.live;
  const open = live.filter((alert) => alert.state === "open").length;
  $("count-live").textContent = model.loaded ? String(live.length) : "";
  document.title = open ? `(${open}) Ringfence` : "Ringfence";
  renderMap();
}

function noteFor(alerts) {
  if (!model.loaded) return trouble && { title: "The alerts can't be loaded", text: sentences(trouble.message, trouble.remedy) };
  if (alerts.length) return null;
  if ($("connection").dataset.state !== "live") return { title: "Not connected", text: "Whether there are alerts is not known." };
  if (tab === "done") return { title: "Nothing done yet", text: "Resolved and withdrawn alerts are listed here." };
  const fleet = model.devices.size
    ? `${count(model.devices.size, "device", "devices")} ${model.devices.size === 1 ? "is" : "are"} watched.`
    : "No device has spoken yet.";
  return { title: "No alert to do", text: fleet };
}

let mapFrame = null;

function renderMap() {
  const { size } = model.devices;
  const text = size ? count(size, "device", "devices") : "";
  if ($("counts").textContent !== text) {
    $("counts").textContent = text;
    if (model.loaded) renderQueue(); // an empty list says how many are watched
  }
  mapFrame ??= requestAnimationFrame(() => {
    mapFrame = null;
    map?.setDevices(model.devices, model.alerting);
    map?.select(selection ? { position: model.devices.get(selection.deviceId), zoneId: selection.zoneId } : {});
  });
}

function setTrouble(error) {
  trouble = error;
  const banner = $("banner");
  banner.hidden = !error;
  banner.textContent = error ? sentences(error.message, error.remedy, "Trying again…") : "";
}

/** Say why there is no connection, as far as the server can tell. */
async function explain() {
  const error = await api.ready().then(() => null, (reason) => reason);
  if (!error || $("connection").dataset.state === "live") return;
  setTrouble(error);
  render();
}

function setConnection(state, problem) {
  const text = { live: "Live", connecting: "Reconnecting…", trouble: "No database" }[state];
  $("connection").dataset.state = state;
  $("connection-text").textContent = text;
  if (state === "connecting") explain();
  if (state === "trouble") setTrouble({ message: problem });
  if (state === "live" && trouble) setTrouble(null);
  if (model.loaded) render();
}

function announce(text) {
  $("announce").textContent = text;
}

// --- selecting

async function selectAlert(alertId, { focus = false } = {}) {
  const known = model.alerts.get(alertId);
  history.clear();
  selection = { kind: "alert", id: alertId, deviceId: known?.device_id, zoneId: known?.zone_id, extra: null };
  const mine = selection;
  render();
  queue.focus(alertId);
  if (known) showSelection();
  if (focus || narrow.matches) detail.root.focus();
  try {
    const alert = await api.alert(alertId);
    model.putAlert(alert);
    if (selection !== mine) return;
    render();
    showSelection();
    await loadTrack(alert);
  } catch (error) {
    if (selection === mine) detail.showError(alertId, "This alert can't be loaded", error);
  }
}

async function selectDevice(deviceId) {
  const alert = model.alertOf(deviceId);
  if (alert) return selectAlert(alert.alert_id);
  history.clear();
  selection = { kind: "device", id: deviceId, deviceId, zoneId: null, extra: null };
  const mine = selection;
  render();
  try {
    mine.device = await api.device(deviceId);
    if (selection !== mine) return;
    showSelection();
    await loadTrack(null);
  } catch (error) {
    if (selection === mine) detail.showError(deviceId, "This device can't be loaded", error);
  }
}

/** Load and show where the device was: around the alert, or lately. */
async function loadTrack(alert) {
  const mine = selection;
  const last = Date.parse(model.devices.get(mine.deviceId)?.time ?? new Date().toISOString());
  const start = alert ? Date.parse(alert.opened_at) - TRACK_BEFORE_MS : last - TRACK_LENGTH_MS;
  const end = Math.min(last + 1000, start + TRACK_LENGTH_MS);
  const window = [start, Math.max(end, start)].map((time) => new Date(time).toISOString());
  try {
    const pings = await api.track(mine.deviceId, ...window);
    if (selection !== mine) return;
    const fixes = pings.filter((ping) => ping.lat !== null);
    mine.track = fixes;
    mine.extra = { window, fixes: fixes.length };
    map.setTrack(fixes);
    showOnMap(fixes);
    history.show(mine.deviceId, fixes, window, mine.zoneId);
    loadExtras(mine);
  } catch (error) {
    if (selection !== mine) return;
    mine.extra = { error };
  }
  showSelection();
}

/** What else a device page shows: its last check-ins and commands. */
async function loadExtras(mine) {
  const [checkIns, commands] = await Promise.all([api.checkIns(mine.deviceId), api.commands(mine.deviceId)].map((p) => p.catch(() => [])));
  if (selection !== mine) return;
  mine.extra = { ...mine.extra, checkIns, commands };
  showSelection();
}

async function askDevice(deviceId, command) {
  try {
    await api.ask(deviceId, command);
    announce(`${deviceId} was asked to ${command}`);
    if (selection?.deviceId === deviceId) loadExtras(selection);
  } catch (error) {
    detail.problem(error);
  }
}

/** Let the line of the selected device grow as it moves. */
function followSelected() {
  const position = model.devices.get(selection?.deviceId);
  const track = selection?.track;
  if (!track || !position || position.time === selection.followed) return;
  selection.followed = position.time;
  if (position.lat !== null && !(Date.parse(position.time) <= Date.parse(track.at(-1)?.time))) {
    track.push(position);
    map.setTrack(track);
  }
  showSelection();
}

/** Draw the details of what is selected, from what is known now. */
function showSelection() {
  if (!selection) return;
  const extra = { ...selection.extra, position: model.devices.get(selection.deviceId) };
  if (selection.kind === "device") return selection.device && detail.showDevice(selection.device, extra);
  const alert = model.alerts.get(selection.id);
  if (alert) detail.showAlert(alert, extra);
}

function showOnMap(fixes) {
  const position = model.devices.get(selection.deviceId);
  const places = fixes.map((fix) => [fix.lon, fix.lat]);
  if (position && position.lat !== null) places.push([position.lon, position.lat]);
  const zone = zones.features.find((feature) => feature.properties.id === selection.zoneId);
  if (zone) places.push(...positionsOf(zone.geometry));
  const covered = $("map").getBoundingClientRect().bottom - detail.root.getBoundingClientRect().top;
  map.show(places, { room: narrow.matches ? { bottom: Math.max(0, covered) } : { right: detail.root.offsetWidth } });
}

/** Devices and zones, but for the outermost percent: one stray fix must not shrink the city to a dot. */
function showFleet() {
  const places = [...model.devices.values()].filter((p) => p.lat !== null).map((p) => [p.lon, p.lat]);
  for (const feature of zones.features) places.push(positionsOf(feature.geometry).next().value);
  map.show(places.filter(Boolean), { trim: 0.01, maxZoom: 15 });
}

function deselect() {
  const alertId = selection?.kind === "alert" ? selection.id : null;
  selection = null;
  detail.close();
  history.clear();
  map.setTrack(null);
  render();
  if (alertId) queue.focus(alertId);
}

function step(by) {
  const alerts = tab === "live" ? model.live : model.done;
  if (!alerts.length) return;
  const at = alerts.findIndex((alert) => alert.alert_id === selection?.id);
  const next = at < 0 ? (by > 0 ? 0 : alerts.length - 1) : Math.min(alerts.length - 1, Math.max(0, at + by));
  selectAlert(alerts[next].alert_id);
}

// --- acting

const who = () => $("operator").value.trim() || "local operator";

async function act(alertId, request, said) {
  try {
    const alert = await request;
    model.putAlert(alert);
    announce(said(alert));
    render();
    if (selection?.id === alertId) showSelection();
  } catch (error) {
    detail.problem(error);
  }
}

function acknowledge(alertId) {
  return act(alertId, api.acknowledge(alertId, { who: who() }), (alert) => `Alert of ${alert.device_id} acknowledged`);
}

function resolve(alertId, outcome, note) {
  const body = { who: who(), outcome, note: note || null };
  return act(alertId, api.resolve(alertId, body), (alert) => `Alert of ${alert.device_id} resolved as ${outcome}`);
}

// --- what changes

const changed = new Set(); // ids of alerts that were heard of and are not loaded yet
let loading = false;

/** Load what changed. What is heard of while a load is under way is loaded together after it. */
async function onAlertEvent(event) {
  changed.add(event.data.alert_id);
  if (loading) return;
  loading = true;
  while (changed.size) {
    const ids = [...changed];
    changed.clear();
    const before = new Set(model.live.map((alert) => alert.alert_id));
    if (ids.length > MANY) await loadAlerts();
    else await loadEach(ids);
    tellOfNew(model.live.filter((alert) => !before.has(alert.alert_id)));
    if (ids.includes(selection?.id)) showSelection();
  }
  loading = false;
}

async function loadEach(ids) {
  for (const result of await Promise.allSettled(ids.map(api.alert))) {
    if (result.status === "fulfilled") model.putAlert(result.value);
    else if (result.reason.status !== 404) setTimeout(loadAlerts, 3000);
  }
  render();
}

function tellOfNew(alerts) {
  if (alerts.length === 1) announce(`New ${alerts[0].severity} alert: ${alerts[0].device_id}, ${alerts[0].sentence}`);
  if (alerts.length > 1) announce(`${alerts.length} new alerts`);
}

function onKey(event) {
  if (event.key === "Escape" && drawing?.active) return drawing.stop();
  if (event.key === "Escape" && detail.open && !document.querySelector("dialog[open]")) return deselect();
  const typing = event.target.closest("input:not([type=radio], [type=checkbox]), textarea, select, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !$("keys-on").checked) return;
  const selected = selection?.kind === "alert" ? model.alerts.get(selection.id) : null;
  const actions = {
    j: () => step(1),
    k: () => step(-1),
    a: () => selected?.state === "open" && acknowledge(selected.alert_id),
    r: () => detail.startResolve(),
    f: showFleet,
    "?": () => $("help").showModal(),
  };
  const action = actions[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
}

async function logIn(event) {
  event.preventDefault();
  const { name, password } = event.target.elements;
  try {
    await api.logIn(name.value.trim(), password.value);
    location.reload(); // everything anew, as somebody else may have been here before
  } catch (error) {
    $("log-in-problem").textContent = sentences(error.message, error.remedy);
    password.value = "";
    password.focus();
  }
}

function remember(input, name) {
  const property = input.type === "checkbox" ? "checked" : "value";
  try {
    const stored = localStorage.getItem(name);
    if (stored !== null) input[property] = JSON.parse(stored);
    input.addEventListener("change", () => localStorage.setItem(name, JSON.stringify(input[property])));
  } catch {
    // storage is blocked: the setting lasts as long as the page
  }
}

async function createMap(settings) {
  const options = {
    onPick: selectDevice,
    dark: isDark(),
    tileUrl: settings.tile_url,
    reducedMotion: matchMedia("(prefers-reduced-motion: reduce)").matches,
  };
  const wanted = new URLSearchParams(location.search).get("map");
  if (wanted !== "canvas" && hasWebGl()) {
    try {
      return await createGlMap($("map"), options);
    } catch (error) {
      console.warn("MapLibre does not start, so the plain map is used:", error);
      $("map").replaceChildren();
    }
  }
  return new CanvasMap($("map"), options);
}

async function start() {
  queue.loading();
  startTheme((dark) => map?.setDark(dark));
  remember($("operator"), "operator");
  remember($("keys-on"), "keys-on");
  $("help-open").addEventListener("click", () => $("help").showModal());
  $("tabs").addEventListener("change", (event) => {
    tab = event.target.value;
    render();
  });
  $("legend").addEventListener("change", () => {
    map.setShown(Object.fromEntries([...$("legend").elements].filter((box) => box.name).map((box) => [box.name, box.checked])));
  });
  const toggleLegend = (open) => {
    $("legend-body").hidden = !open;
    $("legend-toggle").setAttribute("aria-expanded", open);
  };
  $("legend-toggle").addEventListener("click", () => toggleLegend($("legend-body").hidden));
  toggleLegend(!narrow.matches);
  addEventListener("keydown", onKey);
  addEventListener("log-in-needed", () => $("log-in").open || $("log-in").showModal());
  $("log-in").addEventListener("cancel", (event) => event.preventDefault()); // there is nothing to see behind it
  $("log-in").addEventListener("close", () => $("log-in").showModal()); // a second Escape can't be prevented
  $("log-in-form").addEventListener("submit", logIn);

  const settings = await api.settings().catch(() => ({}));
  $("version").textContent = settings.version ?? "";
  map = await createMap(settings);
  document.documentElement.dataset.map = map.name;
  drawing = new Drawing(map.map ?? null, (outcome) => {
    announce(`Zone saved as version ${outcome.version} of the rules`);
    setTimeout(loadMap, Math.max(0, Date.parse(outcome.effective_at) - Date.now()) + 500);
  });
  $("draw-open").addEventListener("click", () => drawing.start());
  $("change-open").addEventListener("click", () => drawing.start({ existing: zones.features.map((zone) => zone.properties.id) }));

  api.listen({
    state: setConnection,
    hello: () => {
      loadAlerts();
      loadMap();
    },
    alert: onAlertEvent,
    positions: (positions) => {
      model.mergePositions(positions);
      followSelected();
      renderMap();
      frameOnce();
    },
    reload: loadMap,
  });
}

start();
