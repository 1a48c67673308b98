// Drawing a zone: a polygon or a circle on the map, or its GeoJSON typed in, saved through the API.

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { sentences } from "./format.js";
import { bounds, drawable, positionsOf } from "./geometry.js";

const VENDOR = "/console/vendor";
const SCRIPTS = [`${VENDOR}/terra-draw/terra-draw.umd.js`, `${VENDOR}/terra-draw-maplibre-gl-adapter/terra-draw-maplibre-gl-adapter.umd.js`];
const DIGITS = 7; // the engine's grid
const MOST_OFFERED = 500; // ids in the list to choose from; any other can be typed
const FROM_FILES = "Zones and rules come from files: a shape can be drawn here and copied into them, not saved.";

const EDITED = { feature: { draggable: true, coordinates: { midpoints: true, draggable: true, deletable: true } } };

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
    this.changed = null; // the zone whose shape is changed, as { feature, version }
    this.form = $("zone-form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save(event.submitter?.value === "check");
    });
    this.form.elements.id.addEventListener("change", () => this.changing && this.#load(this.form.elements.id.value.trim()));
    $("draw-cancel").addEventListener("click", () => this.stop());
    for (const mode of ["polygon", "circle"]) $(`draw-${mode}`).addEventListener("click", () => this.#mode(mode));
  }

  get active() {
    return !this.form.hidden;
  }

  /** existing: ids of the zones that can be changed; left out: a new one is made */
  async start({ existing = null } = {}) {
    if (this.active) this.stop();
    this.changing = existing !== null;
    this.form.hidden = false;
    $("zone-form-title").textContent = this.changing ? "Change a zone" : "New zone";
    $("zone-rule").hidden = this.changing;
    $("zone-ids").replaceChildren(...(existing ?? []).slice(0, MOST_OFFERED).map((value) => h("option", { value })));
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
    const { TerraDraw, TerraDrawPolygonMode, TerraDrawCircleMode, TerraDrawSelectMode } = globalThis.terraDraw;
    const { TerraDrawMapLibreGLAdapter } = globalThis.terraDrawMaplibreGlAdapter;
    this.draw = new TerraDraw({
      adapter: new TerraDrawMapLibreGLAdapter({ map: this.map, coordinatePrecision: 9 }),
      modes: [new TerraDrawPolygonMode(), new TerraDrawCircleMode(), new TerraDrawSelectMode({ flags: { polygon: EDITED } })],
    });
    this.draw.start();
    this.draw.on("finish", (id) => this.#finished(id));
    if (!this.changing) this.#mode("polygon");
    else this.#say("Choose a zone by its id.");
    api.rules().then(({ read_only: fixed }) => fixed && this.active && this.#say(FROM_FILES), () => {});
  }

  /** Take the zone's newest shape into the form and, where its corners can be moved, onto the map. */
  async #load(id) {
    try {
      const version = await api.newestVersion();
      const feature = await api.zone(id, version);
      if (!this.active) return;
      this.changed = { feature, version };
      this.form.elements.name.value = feature.properties.name ?? "";
      this.form.elements.geometry.value = JSON.stringify(feature.geometry);
      this.form.elements.radius.value = feature.properties.radius_m ?? "";
      this.map?.fitBounds(bounds([...positionsOf(drawable({ features: [feature] }).features[0].geometry)]), { padding: 80, maxZoom: 17, animate: false });
      this.#say(this.#edit(feature.geometry) ? "Drag a corner, or the middle of an edge." : "Draw it anew, or change its numbers below.");
    } catch (error) {
      this.changed = null;
      this.#say(sentences(error.message, "choose one of the list"));
    }
  }

  /** Whether the corners are on the map to be dragged: of a polygon without holes they are. */
  #edit({ type, coordinates }) {
    if (!this.draw) return false;
    this.draw.clear();
    if (type !== "Polygon" || coordinates.length > 1) {
      this.#mode(type === "Point" ? "circle" : "polygon");
      return false;
    }
    const [added] = this.draw.addFeatures([{ type: "Feature", properties: { mode: "polygon" }, geometry: { type, coordinates } }]);
    if (!added.valid) return false;
    this.draw.setMode("select");
    this.draw.selectFeature(added.id);
    for (const name of ["polygon", "circle"]) $(`draw-${name}`).setAttribute("aria-pressed", false);
    return true;
  }

  stop() {
    this.changed = null;
    this.draw?.stop();
    this.draw = null;
    this.form.reset();
    this.form.hidden = true;
    $(this.changing ? "change-open" : "draw-open").focus();
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
    this.#say(this.draw.getMode() === "select" ? "Moved. Save keeps the new shape." : "Drawn. Draw again to replace it.");
  }

  async #save(checkOnly) {
    const { id, name, geometry, radius, require, subjects, severity } = this.form.elements;
    const zoneId = id.value.trim();
    try {
      const shape = JSON.parse(geometry.value || "null");
      if (this.changing && this.changed?.feature.properties.id !== zoneId) return this.#say("Choose a zone by its id.");
      const properties = Object.fromEntries(
        Object.entries({ ...this.changed?.feature.properties, name: name.value.trim(), radius_m: Number(radius.value) || "" }).filter(([, value]) => value !== ""));
      const zone = { type: "Feature", geometry: shape, properties };
      if (checkOnly) {
        const outcome = await api.checkZone(zoneId, zone);
        return this.#say(sentences("the zone can be saved", ...outcome.warnings));
      }
      let outcome = await api.putZone(zoneId, zone, this.changed?.version ?? (await api.newestVersion()));
      if (require.value && !this.changing) {
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
