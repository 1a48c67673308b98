// The API as functions. Every failure is an ApiError that says what is wrong and what to do.

const ROOT = "/api/v1";

export class ApiError extends Error {
  constructor(message, remedy, status) {
    super(message);
    this.remedy = remedy;
    this.status = status;
  }
}

async function request(path, options = {}, root = ROOT) {
  let response;
  try {
    response = await fetch(root + path, options);
  } catch {
    throw new ApiError("The server can't be reached.", "Check that ringfence up is running.", 0);
  }
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401 && path !== "/session") dispatchEvent(new Event("log-in-needed"));
  throw new ApiError(
    problem.detail ?? `The server answered ${response.status}.`,
    problem.remedy ?? "Try again.",
    response.status,
  );
}

const post = (path, body) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

const query = (parameters) => new URLSearchParams(parameters.filter(([, value]) => value != null)).toString();

/** Resolves when the server is ready; else the error says why it is not. */
export const ready = () => request("/readyz", {}, "");

export const settings = () => fetch("/console/settings.json").then((response) => response.json());

/** Alerts in these states, newest first; at most `most`, however many pages that takes. */
export async function alerts(states, most = 1000) {
  const items = [];
  let cursor = null;
  do {
    const page = await request(
      `/alerts?${query([...states.map((state) => ["state", state]), ["limit", Math.min(most, 500)], ["cursor", cursor]])}`,
    );
    items.push(...page.items);
    cursor = page.next;
  } while (cursor && items.length < most);
  return items;
}

export const alert = (id) => request(`/alerts/${id}`);
export const device = (id) => request(`/devices/${id}`);
export const zones = () => request("/zones");
export const positions = () => request("/positions");
export const acknowledge = (id, body) => post(`/alerts/${id}/acknowledge`, body);
export const resolve = (id, body) => post(`/alerts/${id}/resolve`, body);

const change = (method) => (path, body, version) =>
  request(path, {
    method,
    headers: { "Content-Type": "application/json", ...(version ? { "If-Match": `"rules-${version}"` } : {}) },
    body: body && JSON.stringify(body),
  });

const put = change("PUT");

export const logIn = (name, password) => post("/session", { name, password });

export const rules = () => request("/rules");

/** The version on which a change is made: of two people who change at once the second is told. */
export const newestVersion = () => rules().then((answer) => answer.newest_version);

export const putZone = (id, zone, version) => put(`/zones/${encodeURIComponent(id)}`, zone, version);
export const checkZone = (id, zone) => put(`/zones/${encodeURIComponent(id)}?validate=only`, zone);
export const zone = (id, version) => request(`/zones/${encodeURIComponent(id)}?${query([["version", version]])}`);
export const week = (deviceId, day) => request(`/devices/${deviceId}/week?${query([["week_of", day]])}`);
export const grantLeave = (leave, version) => change("POST")("/leaves", leave, version);
export const revokeLeave = (id, version) => change("DELETE")(`/leaves/${id}`, null, version);
export const putRule = (id, rule, version) => put(`/rules/${encodeURIComponent(id)}`, rule, version);
export const belief = (id, from, to) => request(`/devices/${id}/belief?${query([["from", from], ["to", to]])}`);
export const checkIns = (id) => request(`/devices/${id}/check-ins?limit=5`).then((answer) => answer.items);
export const commands = (id) => request(`/devices/${id}/commands?limit=3`).then((answer) => answer.items);
export const ask = (id, command) => post(`/devices/${id}/commands`, { command });

export const trackUrl = (id, from, to, format) =>
  `${ROOT}/devices/${id}/track?${query([["from", from], ["to", to], ["format", format]])}`;

export const track = (id, from, to) =>
  request(trackUrl(id, from, to, "json").slice(ROOT.length)).then((answer) => answer.items);

/**
 * The live stream. EventSource connects again by itself and sends the last id that it has, so no step of an
 * alert is lost; where it gives up (the server answered with an error), this begins again with that id.
 *
 * on : { hello(data), alert(event), positions(data), reload(), state("live" | "connecting", problem) }
 */
export function listen(on) {
  let source = null;
  let lastId = null;
  let waitMs = 1000;

  function connect() {
    source = new EventSource(`${ROOT}/stream?${query([["positions", "true"], ["last_event_id", lastId]])}`);
    source.addEventListener("hello", (event) => {
      lastId = event.lastEventId;
      waitMs = 1000;
      on.state("live");
      on.hello(JSON.parse(event.data));
    });
    source.addEventListener("alert", (event) => {
      lastId = event.lastEventId;
      on.alert(JSON.parse(event.data));
    });
    source.addEventListener("positions", (event) => on.positions(JSON.parse(event.data)));
    source.addEventListener("positions-reset", () => on.reload());
    source.addEventListener("trouble", (event) => on.state("trouble", JSON.parse(event.data).detail));
    source.addEventListener("recovered", () => on.state("live"));
    source.addEventListener("error", () => {
      on.state("connecting");
      if (source.readyState !== EventSource.CLOSED) return;
      rules().catch(() => {}); // an EventSource hides its status; where a log-in is needed this says so
      setTimeout(connect, waitMs);
      waitMs = Math.min(waitMs * 2, 10_000);
    });
  }

  connect();
  addEventListener("pagehide", () => source.close());
}
