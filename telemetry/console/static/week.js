// A device's rules over a week: bars for the eye, the same as a table, and the leaves that are cut out of it.

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { sentences } from "./format.js";

const DAY_MS = 86_400_000;
const KIND = { outside: "exclusion", inside: "inclusion" };

export class Week {
  /** announce(text) tells a screen reader */
  constructor(announce) {
    this.announce = announce;
    this.deviceId = null;
    this.body = h("div.week-body");
    this.root = h("details.week", { ontoggle: () => this.root.open && !this.week && this.#load() },
      h("summary", { dataset: { focus: "week" } }, "Rules of the week and leave"), this.body);
    this.dialog = $("leave");
    this.form = $("leave-form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (event.submitter?.value === "cancel") return this.dialog.close();
      this.#grant();
    });
  }

  /** Be about this device; what is open stays open, and loads anew. */
  show(deviceId) {
    if (deviceId === this.deviceId) return;
    this.deviceId = deviceId;
    this.day = null;
    this.week = null;
    this.body.replaceChildren();
    if (this.root.open) this.#load();
  }

  async #load(say = "") {
    const { deviceId, day } = this;
    const current = () => deviceId === this.deviceId && day === this.day;
    if (!this.week) this.body.replaceChildren(h("p.small", {}, "Loading the week…"));
    try {
      const week = await api.week(deviceId, day);
      if (!current()) return;
      this.week = week;
      this.#draw(say);
    } catch (error) {
      if (current()) this.body.replaceChildren(h("p.problem", { role: "alert" }, sentences(error.message, error.remedy)));
    }
  }

  #draw(say) {
    const { week } = this;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    const part = (options) => new Intl.DateTimeFormat(undefined, { timeZone: week.timezone, ...options });
    const clock = part({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    const dayName = part({ weekday: "short", day: "numeric" });
    const dated = part({ day: "numeric", month: "short" });
    const [start, end] = [week.days[0].from, week.days.at(-1).until].map(Date.parse);
    const isWhole = ({ intervals: [first] }) => first && Date.parse(first.from) <= start && Date.parse(first.until) >= end;
    const always = week.rules.filter(isWhole);
    const timed = week.rules.filter((rule) => !isWhole(rule));
    const days = week.days.map((day) => ({ day, name: dayName.format(Date.parse(day.from)), spans: timed.map((rule) => within(rule, day)) }));
    this.body.replaceChildren(...[
      h("div.week-head", {},
        h("button.icon", { type: "button", "aria-label": "The week before", dataset: { focus: "week-before" }, onclick: () => this.#go(-7) }, "‹"),
        h("span", {}, `${dated.format(start)} – ${dated.format(end - 1)}, ${week.timezone}`),
        h("button.icon", { type: "button", "aria-label": "The week after", dataset: { focus: "week-after" }, onclick: () => this.#go(7) }, "›")),
      timed.length ? chart(days, timed) : null,
      timed.length ? table(days, timed, clock) : h("p.small", {}, week.rules.length ? "No rule has hours." : "No rule binds this device."),
      always.length ? h("p.small", {}, `The whole week: ${always.map((rule) => rule.rule_id).join(", ")}.`) : null,
      h("h3", {}, "Leave in this week"),
      week.leaves.length ? h("ul.leaves", {}, week.leaves.map((leave) => this.#leave(leave))) : h("p.small", {}, "None."),
      h("button", { type: "button", id: "leave-open", dataset: { focus: "leave-open" }, onclick: () => this.#open() }, "Grant leave…"),
      h("p.small", { role: "status", id: "week-said" }, say),
    ].filter(Boolean));
    if (focused) this.body.querySelector(`[data-focus="${focused}"]`)?.focus();
  }

  #leave(leave) {
    const long = new Intl.DateTimeFormat(undefined, { timeZone: this.week.timezone, dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
    const of = leave.rules.length ? leave.rules.join(", ") : "every rule";
    return h("li", {},
      h("span", {}, `${long.formatRange(Date.parse(leave.from), Date.parse(leave.until))}: ${of}, by ${leave.granted_by}`, leave.reason ? h("q", {}, leave.reason) : null),
      h("button", { type: "button", "aria-label": `Revoke the leave from ${long.format(Date.parse(leave.from))}`, dataset: { focus: `revoke-${leave.leave_id}` }, onclick: () => this.#revoke(leave.leave_id) }, "Revoke"));
  }

  #go(days) {
    this.day = new Date(Date.parse(this.week.days[0].date) + days * DAY_MS).toISOString().slice(0, 10);
    this.#load();
  }

  #open() {
    this.form.reset();
    $("leave-problem").textContent = "";
    $("leave-title").textContent = `Leave for ${this.deviceId}`;
    this.form.elements.rule.replaceChildren(
      h("option", { value: "" }, "every rule"),
      ...this.week.rules.map((rule) => h("option", { value: rule.rule_id }, rule.rule_id)));
    this.dialog.showModal();
  }

  async #grant() {
    const { from, until, rule, reason } = this.form.elements;
    const leave = {
      subjects: [`device:${this.deviceId}`],
      rules: rule.value ? [rule.value] : [],
      from: new Date(from.value).toISOString(),
      until: new Date(until.value).toISOString(),
      reason: reason.value.trim() || null,
    };
    try {
      await api.grantLeave(leave, await api.newestVersion());
      this.dialog.close();
      this.announce(`Leave granted to ${this.deviceId}`);
      this.day = isoDay(leave.from);
      this.#load("The leave is granted.");
    } catch (error) {
      $("leave-problem").textContent = sentences(error.message, error.remedy);
    }
  }

  async #revoke(leaveId) {
    try {
      const { effective_at: at } = await api.revokeLeave(leaveId, await api.newestVersion());
      this.announce("The leave is revoked");
      this.#load(`The leave is revoked; the rules hold again from ${new Date(at).toLocaleTimeString()} on.`);
    } catch (error) {
      $("week-said").textContent = sentences(error.message, error.remedy);
    }
  }
}

const isoDay = (time) => time.slice(0, 10);

/** The parts of a rule's intervals that lie in a day: [from, until] in milliseconds since 1970. */
function within(rule, day) {
  const [start, end] = [Date.parse(day.from), Date.parse(day.until)];
  return rule.intervals
    .map(({ from, until }) => [Math.max(start, Date.parse(from)), Math.min(end, Date.parse(until))])
    .filter(([from, until]) => from < until);
}

/** A row for each day, in it a bar for each rule; a day of 23 or 25 hours fills its row too. */
function chart(days, rules) {
  const rows = days.flatMap(({ day, name, spans }) => {
    const start = Date.parse(day.from);
    const length = Date.parse(day.until) - start;
    const lanes = spans.map((parts, i) =>
      h("div.lane", {}, parts.map(([from, until]) => {
        const bar = h("i", { class: `span ${KIND[rules[i].require] ?? "other"}`, title: rules[i].rule_id });
        bar.style.left = `${(100 * (from - start)) / length}%`;
        bar.style.width = `${(100 * (until - from)) / length}%`;
        return bar;
      })));
    return [h("span.day", {}, name), h("div.lanes", {}, lanes)];
  });
  const hours = h("div.hours", {}, ["0", "6", "12", "18", "24"].map((hour) => h("span", {}, hour)));
  const label = `When ${rules.map((rule) => rule.rule_id).join(", ")} apply on each day; the table below says the same`;
  return h("div.week-chart", { role: "img", "aria-label": label }, rows, h("span"), hours);
}

function table(days, rules, clock) {
  const ending = (time, day) => (time === Date.parse(day.until) ? "24:00" : clock.format(time));
  const cell = (parts, day) => parts.map(([from, until]) => `${clock.format(from)}–${ending(until, day)}`).join(", ") || "—";
  return h("details", {}, h("summary", { dataset: { focus: "week-table" } }, "As a table"),
    h("div.table", { tabindex: "0", role: "region", "aria-label": "The week as a table" },
      h("table", {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Day"), rules.map((rule) => h("th", { scope: "col" }, rule.rule_id)))),
        h("tbody", {}, days.map(({ day, name, spans }) => h("tr", {}, h("th", { scope: "row" }, name), spans.map((parts) => h("td", {}, cell(parts, day)))))))));
}
