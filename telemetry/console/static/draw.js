// Drawing a zone: a polygon or a circle on the map, or its GeoJSON typed in, saved through the API.

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { sentences } from "./format.js";

const VENDOR = "/console/vendor";
const SCRIPTS = [`${VENDOR}/terra-draw/terra-draw.umd.js`, `${VENDOR}/terra-draw-maplibre-gl-adapter/terra-draw-maplibre-gl-adapter.umd.js`];
const DIGITS = 7; // the engine's grid

let loaded = null;

function load() {
  loaded ??= SCRIPTS.reduce(
    (before, src) => before.then(() => new Promise((resolve, reject) => {
      document.head.append(h("script", { src, onload: resolve, onerror: () => reject(new Error(`${src} can't be loaded`)) }));
    })),
    Promise.resolve(),
  );
  return loaded;
}

const round = (value) => Number(value.toFixed(DIGITS));
const rounded = (ring) => ring.map(([lon, lat]) => [round(lon), round(lat)]);

/** What was drawn as a zone: a circle stays a circle. */
export function zoneOf(feature) {
  const ring = feature.geometry.coordinates[0];
  const radiusKm = feature.properties.radiusKilometers;
  if (radiusKm == null) return { geometry: { type: "Polygon", coordinates: [rounded(ring)] }, properties: {} };
  const corners = ring.slice(0, -1);
  const mean = (i) => round(corners.reduce((sum, position) => sum + position[i], 0) / corners.length);
  return { geometry: { type: "Point", coordinates: [mean(0), mean(1)] }, properties: { radius_m: Math.round(radiusKm * 1000) } };
}

export class Drawing {
  /** map: a maplibre map or null (then the geometry is typed); onSaved(outcome) */
  constructor(map, onSaved) {
    this.map = map;
    this.onSaved = onSaved;
    this.draw = null;
    this.form = $("zone-form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save(event.submitter?.value === "check");
    });
    $("draw-cancel").addEventListener("click", () => this.stop());
    for (const mode of ["polygon", "circle"]) $(`draw-${mode}`).addEventListener("click", () => this.#mode(mode));
  }

  get active() {
    return !this.form.hidden;
  }

  async start() {
    this.form.hidden = false;
    this.#say("");
    this.form.elements.id.focus();
    for (const mode of ["polygon", "circle"]) $(`draw-${mode}`).disabled = !this.map;
    if (!this.map) return;
    try {
      await load();
    } catch (error) {
      return this.#say(sentences(error.message, "Type the geometry in instead."));
    }
    if (!this.active || this.draw) return;
    const { TerraDraw, TerraDrawPolygonMode, TerraDrawCircleMode } = globalThis.terraDraw;
    const { TerraDrawMapLibreGLAdapter } = globalThis.terraDrawMaplibreGlAdapter;
    this.draw = new TerraDraw({
      adapter: new TerraDrawMapLibreGLAdapter({ map: this.map, coordinatePrecision: 9 }),
      modes: [new TerraDrawPolygonMode(), new TerraDrawCircleMode()],
    });
    this.draw.start();
    this.draw.on("finish", (id) => this.#finished(id));
    this.#mode("polygon");
  }

  stop() {
    this.draw?.stop();
    this.draw = null;
    this.form.reset();
    this.form.hidden = true;
    $("draw-open").focus();
  }

  #mode(mode) {
    if (!this.draw) return;
    this.draw.clear();
    this.draw.setMode(mode);
    for (const name of ["polygon", "circle"]) $(`draw-${name}`).setAttribute("aria-pressed", name === mode);
    this.#say(mode === "polygon" ? "Click the corners on the map; click the last one again to close." : "Click the middle, then the edge.");
  }

  #finished(id) {
    const feature = this.draw.getSnapshot().find((item) => item.id === id);
    if (!feature) return;
    const { geometry, properties } = zoneOf(feature);
    this.form.elements.geometry.value = JSON.stringify(geometry);
    this.form.elements.radius.value = properties.radius_m ?? "";
    this.#say("Drawn. Draw again to replace it.");
  }

  async #save(checkOnly) {
    const { id, name, geometry, radius, require, subjects, severity } = this.form.elements;
    const zoneId = id.value.trim();
    try {
      const shape = JSON.parse(geometry.value || "null");
      const properties = Object.fromEntries(
        Object.entries({ name: name.value.trim(), radius_m: Number(radius.value) || "" }).filter(([, value]) => value !== ""));
      const zone = { type: "Feature", geometry: shape, properties };
      if (checkOnly) {
        const outcome = await api.checkZone(zoneId, zone);
        return this.#say(sentences("the zone can be saved", ...outcome.warnings));
      }
      let outcome = await api.putZone(zoneId, zone, await api.newestVersion());
      if (require.value) {
        const rule = { subjects: subjects.value.split(/[\s,]+/).filter(Boolean), require: require.value, zones: [zoneId], severity: severity.value };
        outcome = await api.putRule(`${zoneId}-${require.value}`, rule, outcome.version);
      }
      this.stop();
      this.onSaved(outcome);
    } catch (error) {
      this.#say(error instanceof SyntaxError ? "Draw the zone on the map, or type its geometry as GeoJSON." : sentences(error.message, error.remedy));
    }
  }

  #say(text) {
    $("zone-said").textContent = text;
  }
}
