// The map without WebGL: the same zones, devices and track on a plain canvas. Drag, wheel, buttons and arrow
// keys move it. It shows every device as its own dot.

import { bounds, graticule, positionsOf } from "./geometry.js";
import { h } from "./dom.js";
import { DASH, KINDS, PALETTES } from "./palette.js";

const TILE = 512;
const MIN_ZOOM = 0;
const MAX_ZOOM = 20;
const RAD = Math.PI / 180;

// Web Mercator on a unit square.
const toUnit = ([lon, lat]) => {
  const s = Math.sin(Math.max(-85, Math.min(85, lat)) * RAD);
  return [lon / 360 + 0.5, 0.5 - Math.log((1 + s) / (1 - s)) / (4 * Math.PI)];
};
const toLonLat = ([x, y]) => [(x - 0.5) * 360, (2 * Math.atan(Math.exp((0.5 - y) * 2 * Math.PI)) - Math.PI / 2) / RAD];
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export class CanvasMap {
  constructor(container, { onPick, dark }) {
    this.name = "canvas";
    this.colours = PALETTES[dark ? "dark" : "light"];
    this.centre = toUnit([0, 20]);
    this.zoom = 1.2;
    this.zones = [];
    this.devices = [];
    this.alerting = new Set();
    this.track = [];
    this.selection = {};
    this.shown = { exclusion: true, inclusion: true, other: true };
    this.onPick = onPick;
    this.canvas = h("canvas.canvas-map", { tabindex: "0", role: "img", "aria-label": "Map; arrow keys move it, plus and minus zoom" });
    this.scale = h("div.scale", { "aria-hidden": "true" });
    container.replaceChildren(
      this.canvas,
      this.scale,
      h("div.zoom", {},
        h("button", { type: "button", "aria-label": "Zoom in", onclick: () => this.#zoomBy(1) }, "+"),
        h("button", { type: "button", "aria-label": "Zoom out", onclick: () => this.#zoomBy(-1) }, "−")),
    );
    new ResizeObserver(() => this.resize()).observe(container);
    this.#listen();
    this.resize();
  }

  // --- what is shown

  setDark(dark) {
    this.colours = PALETTES[dark ? "dark" : "light"];
    this.#soon();
  }

  setZones(collection) {
    const order = (zone) => KINDS.indexOf(zone.properties.kind);
    this.zones = collection.features.map((feature) => ({ ...feature, rings: rings(feature.geometry) }));
    this.zones.sort((a, b) => order(a) - order(b));
    this.#soon();
  }

  setShown(shown) {
    this.shown = shown;
    this.#soon();
  }

  setDevices(devices, alerting) {
    this.alerting = alerting;
    this.devices = [...devices]
      .filter(([, position]) => position.lat !== null)
      .map(([id, position]) => ({ id, at: toUnit([position.lon, position.lat]), alerting: alerting.has(id) }));
    this.devices.sort((a, b) => a.alerting - b.alerting);
    this.#soon();
  }

  setTrack(track) {
    this.track = (track ?? []).map((fix) => toUnit([fix.lon, fix.lat]));
    this.#soon();
  }

  setReplay(fix) {
    this.replay = fix ? toUnit([fix.lon, fix.lat]) : null;
    this.#soon();
  }

  select({ position, zoneId } = {}) {
    this.selection = { at: position?.lat != null ? toUnit([position.lon, position.lat]) : null, zoneId };
    this.#soon();
  }

  show(positions, { trim = 0, maxZoom = 16.5, room = {} } = {}) {
    const box = bounds(positions, trim);
    if (!box) return;
    const [west, north] = toUnit([box[0][0], box[1][1]]);
    const [east, south] = toUnit([box[1][0], box[0][1]]);
    const { left = 0, right = 0, top = 0, bottom = 0 } = room;
    const width = Math.max(this.width - left - right - 100, 50);
    const height = Math.max(this.height - top - bottom - 100, 50);
    const fits = Math.log2(Math.min(width / Math.max(east - west, 1e-12), height / Math.max(south - north, 1e-12)) / TILE);
    this.zoom = clamp(fits, MIN_ZOOM, maxZoom);
    const size = TILE * 2 ** this.zoom;
    this.centre = [(west + east) / 2 + (right - left) / 2 / size, (north + south) / 2 + (bottom - top) / 2 / size];
    this.#soon();
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    const ratio = devicePixelRatio || 1;
    this.width = clientWidth;
    this.height = clientHeight;
    this.canvas.width = clientWidth * ratio;
    this.canvas.height = clientHeight * ratio;
    this.#soon();
  }

  // --- drawing

  #soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
    });
  }

  #pixel([x, y]) {
    const size = TILE * 2 ** this.zoom;
    return [(x - this.centre[0]) * size + this.width / 2, (y - this.centre[1]) * size + this.height / 2];
  }

  #unit([px, py]) {
    const size = TILE * 2 ** this.zoom;
    return [(px - this.width / 2) / size + this.centre[0], (py - this.height / 2) / size + this.centre[1]];
  }

  #draw() {
    const ctx = this.canvas.getContext("2d");
    const c = this.colours;
    const ratio = devicePixelRatio || 1;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.fillStyle = c.ground;
    ctx.fillRect(0, 0, this.width, this.height);
    this.#drawGrid(ctx, c);
    for (const zone of this.zones) if (this.shown[zone.properties.kind]) this.#drawZone(ctx, c, zone);
    this.#drawTrack(ctx, c);
    for (const device of this.devices) this.#drawDevice(ctx, c, device);
    if (this.selection.at) {
      const [x, y] = this.#pixel(this.selection.at);
      ctx.strokeStyle = c.ink;
      ctx.lineWidth = 3;
      ctx.beginPath();
      ctx.arc(x, y, 14, 0, 7);
      ctx.stroke();
    }
    if (this.replay) {
      const [x, y] = this.#pixel(this.replay);
      ctx.fillStyle = c.halo;
      ctx.strokeStyle = c.ink;
      ctx.lineWidth = 3;
      ctx.beginPath();
      ctx.arc(x, y, 7, 0, 7);
      ctx.fill();
      ctx.stroke();
    }
    this.#drawScale();
  }

  #drawGrid(ctx, c) {
    const [west, north] = toLonLat(this.#unit([0, 0]));
    const [east, south] = toLonLat(this.#unit([this.width, this.height]));
    ctx.strokeStyle = c.grid;
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (const [from, to] of graticule([[west, south], [east, north]])) {
      ctx.moveTo(...this.#pixel(toUnit(from)));
      ctx.lineTo(...this.#pixel(toUnit(to)));
    }
    ctx.stroke();
  }

  #drawZone(ctx, c, { rings: parts, properties, geometry }) {
    const colour = c[properties.kind];
    ctx.beginPath();
    for (const ring of parts) {
      ring.forEach((position, i) => ctx[i ? "lineTo" : "moveTo"](...this.#pixel(position)));
    }
    ctx.lineJoin = ctx.lineCap = "round";
    ctx.strokeStyle = ctx.fillStyle = colour;
    ctx.globalAlpha = c.fill;
    if (!geometry.type.endsWith("LineString")) ctx.fill("evenodd");
    if (properties.w0) {
      ctx.lineWidth = properties.w0 * 2 ** this.zoom;
      ctx.stroke();
    }
    const selected = properties.id === this.selection.zoneId;
    ctx.globalAlpha = 1;
    ctx.lineCap = "butt";
    ctx.lineWidth = selected ? 4 : 1.4;
    if (selected) ctx.strokeStyle = c.ink;
    ctx.setLineDash((DASH[properties.kind] ?? []).map((length) => length * 2));
    ctx.stroke();
    ctx.setLineDash([]);
  }

  #drawTrack(ctx, c) {
    if (!this.track.length) return;
    ctx.strokeStyle = ctx.fillStyle = c.track;
    ctx.globalAlpha = 0.75;
    ctx.lineWidth = 2.5;
    ctx.beginPath();
    this.track.forEach((position, i) => ctx[i ? "lineTo" : "moveTo"](...this.#pixel(position)));
    ctx.stroke();
    ctx.globalAlpha = 1;
    for (const position of this.track) {
      const [x, y] = this.#pixel(position);
      ctx.fillRect(x - 1.5, y - 1.5, 3, 3);
    }
  }

  #drawDevice(ctx, c, { at, alerting }) {
    const [x, y] = this.#pixel(at);
    if (x < -20 || y < -20 || x > this.width + 20 || y > this.height + 20) return;
    ctx.fillStyle = alerting ? c.alerting : c.device;
    ctx.strokeStyle = c.halo;
    ctx.lineWidth = alerting ? 2 : 1.2;
    ctx.beginPath();
    ctx.arc(x, y, alerting ? 8.5 : clamp(this.zoom - 7, 2.5, 6), 0, 7);
    ctx.fill();
    ctx.stroke();
    if (!alerting) return;
    ctx.fillStyle = c.halo;
    ctx.font = "bold 12px sans-serif";
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.fillText("!", x, y + 0.5);
  }

  #drawScale() {
    const lat = toLonLat(this.centre)[1];
    const metresPerPixel = (78271.517 * Math.cos(lat * RAD)) / 2 ** this.zoom;
    const most = metresPerPixel * 120;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((n) => n * power).find((n) => n <= most);
    this.scale.style.width = `${length / metresPerPixel}px`;
    this.scale.textContent = length >= 1000 ? `${length / 1000} km` : `${length} m`;
  }

  // --- moving

  #zoomBy(levels, [px, py] = [this.width / 2, this.height / 2]) {
    const before = this.#unit([px, py]);
    this.zoom = clamp(this.zoom + levels, MIN_ZOOM, MAX_ZOOM);
    const after = this.#unit([px, py]);
    this.#moveBy(before[0] - after[0], before[1] - after[1]);
  }

  #moveBy(dx, dy) {
    this.centre = [clamp(this.centre[0] + dx, -0.1, 1.1), clamp(this.centre[1] + dy, 0, 1)];
    this.#soon();
  }

  #listen() {
    const { canvas } = this;
    const touches = new Map();
    let moved = 0;
    let spread = 0;
    const distance = () => {
      const [a, b] = [...touches.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      touches.set(event.pointerId, [event.offsetX, event.offsetY]);
      moved = 0;
      if (touches.size === 2) spread = distance();
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = touches.get(event.pointerId);
      if (!before) return;
      touches.set(event.pointerId, [event.offsetX, event.offsetY]);
      const dx = event.offsetX - before[0];
      const dy = event.offsetY - before[1];
      moved += Math.abs(dx) + Math.abs(dy);
      const size = TILE * 2 ** this.zoom * touches.size;
      this.#moveBy(-dx / size, -dy / size);
      if (touches.size === 2) {
        const now = distance();
        this.#zoomBy(Math.log2(now / spread), [event.offsetX, event.offsetY]);
        spread = now;
      }
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => {
        if (end === "pointerup" && moved < 5) this.#pick([event.offsetX, event.offsetY]);
        touches.delete(event.pointerId);
      });
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoomBy(clamp(-event.deltaY / 240, -1, 1), [event.offsetX, event.offsetY]);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = 80 / (TILE * 2 ** this.zoom);
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (moves[event.key]) this.#moveBy(...moves[event.key]);
      else if (event.key === "+" || event.key === "=") this.#zoomBy(1);
      else if (event.key === "-") this.#zoomBy(-1);
      else return;
      event.preventDefault();
    });
  }

  #pick([px, py]) {
    let best = null;
    let least = 14;
    for (const device of this.devices) {
      const [x, y] = this.#pixel(device.at);
      const far = Math.hypot(x - px, y - py) - (device.alerting ? 6 : 0);
      if (far < least) [best, least] = [device, far];
    }
    if (best) this.onPick(best.id);
  }
}

function rings(geometry) {
  const unit = (ring) => ring.map(toUnit);
  switch (geometry.type) {
    case "LineString": return [unit(geometry.coordinates)];
    case "Polygon": case "MultiLineString": return geometry.coordinates.map(unit);
    case "MultiPolygon": return geometry.coordinates.flat().map(unit);
    default: return [[...positionsOf(geometry)].map(toUnit)];
  }
}
