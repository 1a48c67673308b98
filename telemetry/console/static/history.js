// What lies behind: a slider over the fixes of a track, and how sure the engine was after each of them.

import uPlot from "./vendor/uplot/uPlot.esm.js";
import * as api from "./api.js";
import { h } from "./dom.js";
import { metres, percent, sentences, shortMoment, span } from "./format.js";

const LINES_SHOWN = 4;
const HEIGHT = 150;
const PLAY_MS = 120;
const GAP_S = 15 * 60; // as the default of a contact rule
const DASHES = [[], [6, 3], [2, 3], [9, 3, 2, 3]]; // lines differ by more than their colour

export class History {
  /** onFix(fix | null) : the fix that the slider stands on */
  constructor(onFix) {
    this.onFix = onFix;
    this.slider = h("input", { type: "range", min: "0", step: "1", "aria-label": "Fix of the track", dataset: { focus: "slider" }, oninput: () => this.#stand(Number(this.slider.value)) });
    this.play = h("button", { type: "button", dataset: { focus: "play" }, onclick: () => this.#toggle() }, "Play");
    this.said = h("output.said", { "aria-live": "off" });
    this.plot = h("div.plot");
    this.note = h("p.small");
    this.root = h("section.history", { "aria-label": "Track and belief" },
      h("h3", {}, "Replay"), h("div.replay", {}, this.play, this.slider), this.said,
      h("h3", {}, "How sure the engine was"), this.plot, this.note);
    this.clear();
  }

  clear() {
    this.#stop();
    this.fixes = [];
    this.key = null;
    this.chart?.destroy();
    this.chart = null;
    this.root.hidden = true;
    this.onFix(null);
  }

  /** fixes: pings with a position; zoneId: the one that an alert is about, or null */
  async show(deviceId, fixes, [from, to], zoneId) {
    this.clear();
    if (!fixes.length) return;
    const key = (this.key = `${deviceId} ${from} ${to}`);
    this.fixes = fixes;
    this.root.hidden = false;
    this.slider.max = String(fixes.length - 1);
    this.slider.value = this.slider.max;
    this.said.textContent = "Move the slider to see where the device was.";
    this.note.textContent = "Working it out…";
    try {
      const belief = await api.belief(deviceId, from, to);
      if (this.key === key) this.#draw(belief, zoneId);
    } catch (error) {
      if (this.key === key) this.note.textContent = sentences(error.message, error.remedy);
    }
  }

  #draw(belief, zoneId) {
    const peak = (line) => Math.max(...line.confidence.filter((value) => value != null));
    const lines = belief.series
      .toSorted((a, b) => (b.zone_id === zoneId) - (a.zone_id === zoneId) || peak(b) - peak(a))
      .slice(0, LINES_SHOWN);
    if (!lines.length) {
      this.note.textContent = "No zone was in question in this time.";
      return;
    }
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const strokes = ["exclusion", "inclusion", "other", "device"].map(colour);
    const x = belief.times.map((time) => Date.parse(time) / 1000);
    const opens = lines[0].opens_at;
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
    this.chart = new uPlot(
      {
        width: this.plot.clientWidth || 320,
        height: HEIGHT,
        legend: { show: true, live: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { x: { time: true }, y: { range: [0, 1.02] } },
        axes: [axis, { ...axis, size: 54, values: (_chart, values) => values.map((value) => `${Math.round(value * 100)} %`) }],
        series: [
          {},
          ...lines.map((line, i) => ({
            label: line.zone_id, stroke: strokes[i], dash: DASHES[i], width: 2, points: { show: x.length < 60, size: 4 }, spanGaps: false,
          })),
          { label: `opens at ${percent(opens)}`, stroke: colour("soft"), dash: [3, 4], width: 1, points: { show: false } },
        ],
      },
      [x, ...lines.map((line) => line.confidence), x.map(() => opens)],
      this.plot,
    );
    this.belief = belief;
    const [first] = lines;
    const canvas = this.plot.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Belief that ${first.rule_id} was broken at ${first.zone_id}: at most ${percent(peak(first))}, and ${percent(first.confidence.findLast((v) => v != null))} at the last`);
    this.note.textContent = `Worked out again from the stored pings since ${shortMoment(belief.warm_from)}; a belief is held whether or not its rule applies at that hour. What was decided stands in the alert.`;
  }

  #stand(at) {
    const fix = this.fixes[at];
    if (!fix) return;
    const before = this.fixes[at - 1];
    const gapS = before ? (Date.parse(fix.time) - Date.parse(before.time)) / 1000 : 0;
    const strap = fix.status.includes("strap_open") ? "strap open" : "strap closed";
    const parts = [
      shortMoment(fix.time), fix.accuracy_m == null ? "error unknown" : `± ${metres(fix.accuracy_m)}`,
      fix.battery_pct == null ? null : `battery ${fix.battery_pct} %`, strap, gapS > GAP_S ? `silent ${span(gapS)} before` : null,
    ];
    this.said.textContent = parts.filter(Boolean).join(", ");
    this.slider.setAttribute("aria-valuetext", this.said.textContent);
    this.onFix(fix);
    if (this.chart) {
      const left = this.chart.valToPos(Date.parse(fix.time) / 1000, "x");
      this.chart.setCursor({ left, top: 0 });
    }
  }

  #toggle() {
    if (this.timer) return this.#stop();
    let at = Number(this.slider.value) >= this.fixes.length - 1 ? 0 : Number(this.slider.value);
    this.play.textContent = "Stop";
    this.timer = setInterval(() => {
      this.slider.value = String(at);
      this.#stand(at);
      if (++at >= this.fixes.length) this.#stop();
    }, PLAY_MS);
  }

  #stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.play.textContent = "Play";
  }
}
