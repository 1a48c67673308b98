// The list of alerts: ranked, one line of words each, with its age and how sure it is.

import { $, h, reconcile } from "./dom.js";
import { age, moment, percent } from "./format.js";

const MARKS = { critical: "▲", high: "◆", low: "●", info: "○" };

export class Queue {
  constructor(onSelect) {
    this.onSelect = onSelect;
    this.list = $("alerts");
    this.note = $("queue-note");
    setInterval(() => this.#tick(), 5000);
  }

  /** note : { title, text } shown instead of, or below, the list */
  render(alerts, selectedId, note = null) {
    $("queue-body").setAttribute("aria-busy", "false");
    reconcile(this.list, alerts, (alert) => alert.alert_id, (alert) => this.#make(alert.alert_id), (item, alert) => {
      fill(item, alert);
      const selected = alert.alert_id === selectedId;
      item.firstElementChild.setAttribute("aria-current", selected);
    });
    this.note.replaceChildren(...(note ? [h("h3", {}, note.title), h("p", {}, note.text)] : []));
    this.#tick();
  }

  loading() {
    this.note.replaceChildren(...[1, 2, 3].map(() => h("div.ghost", { "aria-hidden": "true" })), h("p.unseen", {}, "Loading alerts"));
  }

  focus(alertId) {
    const button = this.list.querySelector(`[data-key="${alertId}"] button`);
    button?.focus({ preventScroll: true });
    button?.scrollIntoView({ block: "nearest" });
  }

  #make(alertId) {
    return h("li", {},
      h("button.alert", { type: "button", onclick: () => this.onSelect(alertId) },
        h("span.severity"), h("span.state"), h("time.age"), h("strong.who"), h("span.sentence"), h("span.sure")));
  }

  #tick() {
    for (const time of this.list.querySelectorAll("time")) set(time, age(time.dateTime));
  }
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function fill(item, alert) {
  const button = item.firstElementChild;
  const [severity, state, time, who, sentence, sure] = button.children;
  button.dataset.severity = alert.severity;
  button.dataset.state = alert.state;
  set(severity, `${MARKS[alert.severity] ?? "○"} ${alert.severity}`);
  set(state, alert.state === "open" ? "" : (alert.outcome ?? alert.state));
  time.dateTime = alert.opened_at;
  time.title = moment(alert.opened_at);
  set(who, alert.device_id);
  set(sentence, alert.sentence);
  set(sure, alert.confidence == null ? "" : `${percent(alert.confidence)} sure`);
}
