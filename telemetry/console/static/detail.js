// One alert, or one device, beside the map: what happened, how sure that is, and what to do about it.

import { trackUrl } from "./api.js";
import { $, h } from "./dom.js";
import { age, count, metres, moment, percent, sentences, shortMoment, words } from "./format.js";
import { isLive } from "./model.js";

const OUTCOMES = [
  ["real", "Real", "the rule was broken"],
  ["false", "False", "nothing was broken"],
  ["excused", "Excused", "broken, with leave or good reason"],
  ["equipment", "Equipment", "the device or its signal failed"],
];

export class Detail {
  /**
   * on      : { close(), acknowledge(alertId), resolve(alertId, outcome, note), ask(deviceId, command) }
   * week    : the rules of the week, likewise
   * history : the replay and the chart, which keep their own state while the details are drawn anew
   */
  constructor(on, history, week) {
    this.on = on;
    this.week = week;
    this.history = history;
    this.root = $("detail");
    this.key = null;
    setInterval(() => this.#tick(), 5000);
  }

  get open() {
    return !this.root.hidden;
  }

  close() {
    this.root.hidden = true;
    this.key = null;
  }

  /** extra : { position, window: [from, to], fixes, error } */
  showAlert(alert, extra) {
    this.week.show(alert.device_id);
    const draft = this.key === alert.alert_id ? this.#draft() : null;
    this.#show(alert.alert_id,
      this.#head(`${alert.severity} · ${alert.outcome ?? alert.state}`, alert.severity),
      h("h2", { id: "detail-title" }, alert.device_id),
      h("p.sentence", {}, alert.sentence),
      this.#actions(alert, draft),
      facts([
        ["Rule", alert.rule_id],
        ["Zone", alert.zone_id],
        ["Opened", stamp(alert.opened_at)],
        ["Ended", alert.violation && (alert.violation.closed_at ? stamp(alert.violation.closed_at) : "not yet")],
        // the engine speaks when a violation opens and closes: in between, these numbers are not of now
        ["As of", alert.violation && !alert.violation.closed_at ? stamp(alert.violation.confirmed_at) : null],
        ["Sure", alert.confidence == null ? null : percent(alert.confidence)],
        ["Depth", depth(alert.violation)],
        ["Fixes", alert.violation?.fixes],
      ]),
      this.#signals(extra?.position),
      this.history.root,
      this.#links(alert.device_id, extra),
      this.week.root,
      this.#commands(alert.device_id, extra),
      alert.log?.length ? log(alert.log) : null);
  }

  showDevice(device, extra) {
    this.week.show(device.device_id);
    this.#show(device.device_id,
      this.#head("device"),
      h("h2", { id: "detail-title" }, device.device_id),
      h("p.sentence", {}, device.open_alerts ? `${device.open_alerts} alert${device.open_alerts === 1 ? "" : "s"} to do` : "No open alert."),
      facts([
        ["Kind", device.kind],
        ["Participant", device.participant],
        ["Groups", device.groups?.join(", ")],
        ["Connection", device.online == null ? null : device.online ? "online" : "offline"],
      ]),
      h("p.problem", { role: "alert" }),
      this.#signals(extra?.position),
      this.history.root,
      this.#links(device.device_id, extra),
      this.week.root,
      this.#commands(device.device_id, extra));
  }

  showError(key, title, error) {
    this.#show(key, this.#head("error"), h("h2", { id: "detail-title" }, title), h("p.problem", {}, sentences(error.message)), h("p", {}, sentences(error.remedy)));
  }

  startResolve() {
    const form = this.root.querySelector("form.resolve");
    if (!form) return;
    form.hidden = false;
    form.querySelector("input").focus();
    form.scrollIntoView({ block: "nearest" });
  }

  /** Say what went wrong with a step, beside its button. */
  problem(error) {
    const place = this.root.querySelector(".problem");
    if (place) place.textContent = sentences(error.message, error.remedy);
  }

  /** A server that is away sends nothing to draw anew, and just then ages matter. */
  #tick() {
    for (const element of this.root.querySelectorAll("[data-since]")) element.textContent = age(element.dataset.since);
  }

  #show(key, ...children) {
    const scroll = this.key === key ? this.root.scrollTop : 0;
    const focused = this.key === key ? document.activeElement?.dataset?.focus : null;
    this.key = key;
    this.root.replaceChildren(...children.filter(Boolean));
    this.root.hidden = false;
    this.root.scrollTop = scroll;
    if (focused) this.root.querySelector(`[data-focus="${focused}"]`)?.focus();
  }

  #head(label, severity = "info") {
    return h("div.detail-head", {},
      h("span.badge", { dataset: { severity } }, label),
      h("button.quiet.icon", { type: "button", "aria-label": "Close the details", "aria-keyshortcuts": "Escape", dataset: { focus: "close" }, onclick: () => this.on.close() }, "✕"));
  }

  #actions(alert, draft) {
    if (!isLive(alert)) return null;
    const form = h("form.resolve", {
      hidden: !draft?.open,
      onsubmit: (event) => {
        event.preventDefault();
        const given = new FormData(event.target);
        this.on.resolve(alert.alert_id, given.get("outcome"), given.get("note"));
      },
    },
      h("fieldset", {}, h("legend", {}, "How did it end?"),
        OUTCOMES.map(([value, name, meaning]) =>
          h("label", {}, h("input", { type: "radio", name: "outcome", value, required: true, checked: draft?.outcome === value, dataset: { focus: `outcome-${value}` } }),
            h("b", {}, name), h("span", {}, meaning)))),
      h("label.field", {}, "Note ", h("textarea", { name: "note", rows: "2", maxlength: "2000", dataset: { focus: "note" } }, draft?.note ?? "")),
      h("button.primary", { dataset: { focus: "resolve" } }, "Resolve"));
    return h("div.actions", {},
      h("div.buttons", {},
        alert.state === "open" && h("button.primary", { type: "button", id: "acknowledge", "aria-keyshortcuts": "A", dataset: { focus: "acknowledge" }, onclick: () => this.on.acknowledge(alert.alert_id) }, "Acknowledge"),
        h("button", { type: "button", id: "resolve", "aria-keyshortcuts": "R", dataset: { focus: "start" }, onclick: () => this.startResolve() }, "Resolve…")),
      h("p.problem", { role: "alert" }),
      form);
  }

  /** What is typed into the form, so that news about the alert does not wipe it. */
  #draft() {
    const form = this.root.querySelector("form.resolve");
    if (!form) return null;
    const given = new FormData(form);
    return { open: !form.hidden, outcome: given.get("outcome"), note: given.get("note") };
  }

  #signals(position) {
    if (!position) return null;
    const status = position.status.map(words);
    return h("section.signals", { "aria-label": "Newest ping" },
      h("h3", {}, "Newest ping"),
      facts([
        ["Heard", stamp(position.time)],
        ["Error", position.accuracy_m == null ? "unknown" : `± ${metres(position.accuracy_m)}`],
        ["Battery", position.battery_pct == null ? null : `${position.battery_pct} %`],
        ["Strap", position.status.includes("strap_open") ? h("b.bad", {}, "open") : "closed"],
        ["Says", status.length ? status.join(", ") : null],
        ["Doubts", position.marks.length ? position.marks.map(words).join(", ") : null],
      ]));
  }

  #commands(deviceId, extra) {
    const asked = extra?.commands?.map((command) =>
      h("li", {}, h("time", { datetime: command.asked_at }, since(command.asked_at)),
        h("span", {}, h("b", {}, command.command), ` by ${command.who}: ${command.outcome ?? (command.sent_at ? "no answer yet" : "waiting to be sent")}`)));
    const calls = extra?.checkIns?.map((call) =>
      h("li", {}, h("time", { datetime: call.time }, since(call.time)), h("span", {}, h("b", {}, words(call.outcome)), `, ${call.method}`)));
    return h("section", { "aria-label": "Commands and check-ins" },
      h("h3", {}, "Ask the device"),
      h("div.buttons", {},
        h("button", { type: "button", dataset: { focus: "locate" }, onclick: () => this.on.ask(deviceId, "locate") }, "Locate now"),
        h("button", { type: "button", dataset: { focus: "vibrate" }, onclick: () => this.on.ask(deviceId, "vibrate") }, "Vibrate")),
      asked?.length ? h("ol.log", {}, asked) : null,
      calls?.length ? [h("h3", {}, "Check-ins"), h("ol.log", {}, calls)] : null);
  }

  #links(deviceId, extra) {
    if (extra?.error) return h("p.problem", {}, sentences(`the track can't be shown: ${extra.error.message}`));
    if (!extra?.window) return h("p.small", {}, "Loading the track…");
    const [from, to] = extra.window;
    return h("p.small", {},
      extra.fixes ? `The line shows ${count(extra.fixes, "fix", "fixes")} from ${shortMoment(from)} on. ` : "No fix in this time. ",
      h("a", { href: trackUrl(deviceId, from, to, "csv"), download: `${deviceId}.csv` }, "CSV"), " · ",
      h("a", { href: trackUrl(deviceId, from, to, "geojson"), download: `${deviceId}.geojson` }, "GeoJSON"));
  }
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value != null && value !== "");
  return h("dl", {}, shown.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value instanceof Node ? value : String(value))]));
}

const since = (time) => h("span", { dataset: { since: time } }, age(time));

const stamp = (time) => h("time", { datetime: time, title: moment(time) }, `${shortMoment(time)} (`, since(time), ")");

function depth(violation) {
  if (!violation?.zone_id) return null;
  const error = violation.depth_error_m == null ? "" : ` ± ${metres(violation.depth_error_m)}`;
  return `${metres(violation.depth_m)}${error} past the line`;
}

function log(steps) {
  return h("section", { "aria-label": "History" }, h("h3", {}, "History"),
    h("ol.log", {}, steps.toReversed().map((step) =>
      h("li", {}, h("time", { datetime: step.time, title: moment(step.time) }, since(step.time)),
        h("span", {}, h("b", {}, words(step.change)), step.who ? ` by ${step.who}` : "",
          step.note ? h("q", {}, step.note) : null)))));
}
