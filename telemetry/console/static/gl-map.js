// The map with WebGL: MapLibre GL JS over zones and positions, no server of tiles needed.

import { loadGround } from "./ground.js";
import { bounds, graticule, widthAtZoom0 } from "./geometry.js";
import { DASH, KINDS, PALETTES } from "./palette.js";

const VENDOR = "/console/vendor/maplibre-gl/maplibre-gl.mjs";
const MAX_ZOOM = 20;
const ERRORS_SHOWN = 30; // the newest; more would cover each other
const NOTHING = { type: "FeatureCollection", features: [] };
const DEVICES_EVERY_MS = 1000; // each change has a worker cluster the whole fleet anew
const FONT = ["sans-serif"]; // without a glyph server MapLibre draws text with the browser's own fonts

export const hasWebGl = () => {
  try {
    return document.createElement("canvas").getContext("webgl2") !== null;
  } catch {
    return false;
  }
};

const point = (id, { lon, lat }) => ({
  type: "Feature",
  properties: { id },
  geometry: { type: "Point", coordinates: [lon, lat] },
});

const points = (entries) => ({ type: "FeatureCollection", features: entries.map(([id, position]) => point(id, position)) });

/** Features with an error, each place and error once: a fix that is repeated would darken its circle. */
function distinct(features) {
  const known = new Map(features.map((f) => [`${f.geometry.coordinates} ${f.properties.w0}`, f]));
  return [...known.values()].filter((f) => f.properties.w0 > 0);
}

/** Pixels for something that is `w0` pixels wide at zoom 0. */
const byGround = (w0) => ["interpolate", ["exponential", 2], ["zoom"], 0, w0, 24, ["*", w0, 2 ** 24]];

export async function createGlMap(container, options) {
  const maplibre = await import(VENDOR);
  const map = new GlMap(maplibre, container, options);
  await map.loaded;
  return map;
}

class GlMap {
  constructor(maplibre, container, { onPick, dark, tileUrl, reducedMotion }) {
    this.name = "webgl";
    this.colours = PALETTES[dark ? "dark" : "light"];
    this.reducedMotion = reducedMotion;
    this.placed = new Map(); // device id -> the position it is drawn at, of those without an alert
    this.devicesTimer = null;
    this.devicesAt = -Infinity;
    const map = (this.map = new maplibre.Map({
      container,
      center: [0, 20],
      zoom: 1.2,
      maxZoom: MAX_ZOOM,
      attributionControl: tileUrl ? { compact: true } : false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      fadeDuration: 0,
      style: { version: 8, sources: {}, layers: [{ id: "ground", type: "background" }] },
    }));
    map.touchZoomRotate.disableRotation();
    map.addControl(new maplibre.NavigationControl({ showCompass: false }), "bottom-right");
    map.addControl(new maplibre.ScaleControl({ maxWidth: 120 }), "bottom-left");
    this.loaded = new Promise((resolve) => map.once("load", resolve)).then(() => {
      this.#build(tileUrl);
      this.setDark(dark);
      map.on("moveend", () => this.#drawGrid());
      this.#drawGrid();
      this.#listen(onPick);
    });
  }

  #build(tileUrl) {
    const { map } = this;
    const geojson = (id, extra = {}) => map.addSource(id, { type: "geojson", data: NOTHING, ...extra });
    for (const id of ["land", "borders", "grid", "errors", "track", "fixes", "alerting", "selected", "replay"]) geojson(id);
    geojson("zones", { tolerance: 0.05 }); // the default of 0.375 pixels makes corners of circles visible
    geojson("devices", { promoteId: "id", cluster: true, clusterRadius: 30, clusterMinPoints: 4, clusterMaxZoom: 13 });
    const add = (id, type, source, rest = {}) => map.addLayer({ id, type, source, ...rest });

    if (tileUrl) {
      map.addSource("tiles", { type: "raster", tiles: [tileUrl], tileSize: 256 });
      add("tiles", "raster", "tiles");
    } else {
      add("land", "fill", "land", { paint: { "fill-antialias": false } }); // the edge would be drawn as a second pass
      add("borders", "line", "borders", { paint: { "line-width": ["interpolate", ["linear"], ["zoom"], 2, 0.6, 8, 1.4] } });
      this.#drawGround();
    }
    add("grid", "line", "grid", { paint: { "line-width": 1 } });
    for (const kind of KINDS) {
      const filter = ["==", ["get", "kind"], kind];
      const dash = DASH[kind] ? { "line-dasharray": DASH[kind] } : {};
      add(`${kind}-reach`, "line", "zones", {
        filter: ["all", filter, [">", ["get", "w0"], 0]],
        layout: { "line-cap": "round", "line-join": "round" },
        paint: { "line-width": byGround(["get", "w0"]) },
      });
      add(`${kind}-fill`, "fill", "zones", { filter: ["all", filter, ["!=", ["geometry-type"], "LineString"]] });
      add(`${kind}-line`, "line", "zones", {
        filter,
        layout: { "line-join": "round" },
        paint: { "line-width": ["interpolate", ["linear"], ["zoom"], 9, 0.8, 15, 2], ...dash },
      });
    }
    add("zone-selected", "line", "zones", { filter: ["==", ["get", "id"], ""], paint: { "line-width": 4 } });
    add("zone-name", "symbol", "zones", {
      minzoom: 13.5,
      layout: { "text-field": ["get", "name"], "text-font": FONT, "text-size": 12, "text-max-width": 9 },
      paint: { "text-halo-width": 1.5 },
    });
    add("errors", "circle", "errors", {
      paint: { "circle-radius": byGround(["get", "w0"]), "circle-opacity": 0.04, "circle-stroke-width": 0.6, "circle-stroke-opacity": 0.3 },
    });
    add("track", "line", "track", {
      layout: { "line-cap": "round", "line-join": "round" },
      paint: { "line-width": 2.5, "line-opacity": 0.75 },
    });
    add("fixes", "circle", "fixes", { paint: { "circle-radius": ["interpolate", ["linear"], ["zoom"], 11, 1.2, 16, 3.5], "circle-stroke-width": 1 } });
    add("replay-error", "circle", "replay", { paint: { "circle-radius": byGround(["get", "w0"]), "circle-opacity": 0.18, "circle-stroke-width": 1.5 } });
    add("replay", "circle", "replay", { paint: { "circle-radius": 7, "circle-stroke-width": 3 } });
    add("device", "circle", "devices", {
      filter: ["!", ["has", "point_count"]],
      paint: { "circle-radius": ["interpolate", ["linear"], ["zoom"], 9, 3, 15, 6], "circle-stroke-width": 1.2 },
    });
    add("cluster", "circle", "devices", {
      filter: ["has", "point_count"],
      paint: { "circle-radius": ["step", ["get", "point_count"], 11, 20, 14, 200, 19, 2000, 25], "circle-opacity": 0.88, "circle-stroke-width": 1.5 },
    });
    add("cluster-count", "symbol", "devices", {
      filter: ["has", "point_count"],
      layout: { "text-field": ["get", "point_count_abbreviated"], "text-font": FONT, "text-size": 11, "text-allow-overlap": true },
    });
    add("device-name", "symbol", "devices", {
      minzoom: 14.5,
      filter: ["!", ["has", "point_count"]],
      layout: { "text-field": ["get", "id"], "text-font": FONT, "text-size": 11, "text-offset": [0, 1.1], "text-anchor": "top" },
      paint: { "text-halo-width": 1.5 },
    });
    add("alerting", "circle", "alerting", { paint: { "circle-radius": 8.5, "circle-stroke-width": 2 } });
    add("alerting-mark", "symbol", "alerting", {
      layout: { "text-field": "!", "text-font": FONT, "text-size": 13, "text-allow-overlap": true, "text-ignore-placement": true },
    });
    add("selected", "circle", "selected", {
      paint: { "circle-radius": 14, "circle-opacity": 0, "circle-stroke-width": 3 },
    });
  }

  #listen(onPick) {
    const { map } = this;
    for (const layer of ["device", "alerting", "cluster"]) {
      map.on("mouseenter", layer, () => (map.getCanvas().style.cursor = "pointer"));
      map.on("mouseleave", layer, () => (map.getCanvas().style.cursor = ""));
    }
    map.on("click", async (event) => {
      const reach = 6;
      const { x, y } = event.point;
      const [hit] = map.queryRenderedFeatures([[x - reach, y - reach], [x + reach, y + reach]], {
        layers: ["alerting", "device", "cluster"],
      });
      if (!hit) return;
      if (hit.properties.cluster_id == null) return onPick(hit.properties.id);
      const zoom = await map.getSource("devices").getClusterExpansionZoom(hit.properties.cluster_id);
      map.easeTo({ center: hit.geometry.coordinates, zoom: Math.min(zoom + 0.3, MAX_ZOOM) });
    });
  }

  #drawGrid() {
    const view = this.map.getBounds().toArray();
    const coordinates = graticule(view);
    this.#set("grid", { type: "Feature", properties: {}, geometry: { type: "MultiLineString", coordinates } });
  }

  /** The page works without its ground, so what goes wrong with it is only logged. */
  async #drawGround() {
    try {
      const { land, borders } = await loadGround();
      this.#set("land", land);
      this.#set("borders", borders);
      this.grounded = true;
      this.setDark(this.dark);
    } catch (error) {
      console.warn("the ground of the map can't be drawn:", error);
    }
  }

  #set(source, data) {
    this.map.getSource(source).setData(data);
  }

  setDark(dark) {
    this.dark = dark;
    const c = (this.colours = PALETTES[dark ? "dark" : "light"]);
    const paint = (layer, properties) => {
      for (const [name, value] of Object.entries(properties)) this.map.setPaintProperty(layer, name, value);
    };
    paint("ground", { "background-color": this.grounded ? c.water : c.ground });
    if (this.map.getLayer("land")) {
      paint("land", { "fill-color": c.ground });
      paint("borders", { "line-color": c.border });
    }
    paint("grid", { "line-color": c.grid });
    for (const kind of KINDS) {
      paint(`${kind}-reach`, { "line-color": c[kind], "line-opacity": c.fill });
      paint(`${kind}-fill`, { "fill-color": c[kind], "fill-opacity": c.fill });
      paint(`${kind}-line`, { "line-color": c[kind] });
    }
    paint("zone-selected", { "line-color": c.ink });
    for (const layer of ["zone-name", "device-name"]) paint(layer, { "text-color": c.ink, "text-halo-color": c.halo });
    paint("errors", { "circle-color": c.track, "circle-stroke-color": c.track });
    paint("track", { "line-color": c.track });
    paint("replay-error", { "circle-color": c.track, "circle-stroke-color": c.ink });
    paint("replay", { "circle-color": c.halo, "circle-stroke-color": c.ink });
    paint("fixes", { "circle-color": c.track, "circle-stroke-color": c.halo });
    paint("device", { "circle-color": c.device, "circle-stroke-color": c.halo });
    paint("cluster", { "circle-color": c.cluster, "circle-stroke-color": c.halo });
    paint("cluster-count", { "text-color": c.clusterInk });
    paint("alerting", { "circle-color": c.alerting, "circle-stroke-color": c.halo });
    paint("alerting-mark", { "text-color": c.halo });
    paint("selected", { "circle-stroke-color": c.ink });
  }

  setZones(collection) {
    this.#set("zones", collection);
  }

  setShown(shown) {
    for (const kind of KINDS) {
      for (const part of ["reach", "fill", "line"]) {
        this.map.setLayoutProperty(`${kind}-${part}`, "visibility", shown[kind] ? "visible" : "none");
      }
    }
    const kinds = KINDS.filter((kind) => shown[kind]);
    this.map.setFilter("zone-name", ["in", ["get", "kind"], ["literal", kinds]]);
  }

  /** Draw the fleet as it is when its turn comes: at once, or a second after the last time. */
  setDevices(devices, alerting) {
    this.fleet = [devices, alerting];
    this.devicesTimer ??= setTimeout(() => {
      this.devicesTimer = null;
      this.devicesAt = performance.now();
      this.#drawDevices(...this.fleet);
    }, Math.max(0, this.devicesAt + DEVICES_EVERY_MS - performance.now()));
  }

  /** Only what changed goes to the map: a position that moved is another object. */
  #drawDevices(devices, alerting) {
    const urgent = [];
    const add = [];
    const update = [];
    const remove = [];
    for (const [id, position] of devices) {
      const wanted = position.lat !== null && !alerting.has(id);
      const drawn = this.placed.get(id);
      if (position.lat !== null && !wanted) urgent.push([id, position]);
      if (wanted && !drawn) add.push(point(id, position));
      else if (wanted && drawn !== position) update.push({ id, newGeometry: point(id, position).geometry });
      else if (!wanted && drawn) remove.push(id);
      if (wanted) this.placed.set(id, position);
      else this.placed.delete(id);
    }
    if (add.length || update.length || remove.length) this.map.getSource("devices").updateData({ add, update, remove });
    this.#set("alerting", points(urgent));
  }

  setTrack(track) {
    const fixes = track ?? [];
    const line = fixes.map((fix) => [fix.lon, fix.lat]);
    this.#set("track", line.length > 1 ? { type: "Feature", properties: {}, geometry: { type: "LineString", coordinates: line } } : NOTHING);
    const features = fixes.map((fix) => ({
      type: "Feature",
      properties: { w0: widthAtZoom0(fix.accuracy_m ?? 0, fix.lat) },
      geometry: { type: "Point", coordinates: [fix.lon, fix.lat] },
    }));
    this.#set("fixes", { type: "FeatureCollection", features });
    this.#set("errors", { type: "FeatureCollection", features: distinct(features).slice(-ERRORS_SHOWN) });
  }

  /** The fix of the track that the slider stands on. */
  setReplay(fix) {
    const feature = fix && {
      type: "Feature",
      properties: { w0: widthAtZoom0(fix.accuracy_m ?? 0, fix.lat) },
      geometry: { type: "Point", coordinates: [fix.lon, fix.lat] },
    };
    this.#set("replay", feature ?? NOTHING);
  }

  select({ position, zoneId } = {}) {
    this.#set("selected", position?.lat != null ? points([["selected", position]]) : NOTHING);
    this.map.setFilter("zone-selected", ["==", ["get", "id"], zoneId ?? ""]);
  }

  /** Show these positions; `room` is the space in pixels that something covers on each side. */
  show(positions, { trim = 0, maxZoom = 16.5, room = {} } = {}) {
    const box = bounds(positions, trim);
    if (!box) return;
    const padding = { top: 50, right: 50, bottom: 50, left: 50 };
    for (const side of Object.keys(room)) padding[side] += room[side];
    // The first look is there at once: a flight from nowhere tells nothing.
    const animate = this.looked && !this.reducedMotion;
    this.looked = true;
    this.map.fitBounds(box, { padding, maxZoom, animate, duration: 900 });
  }

  resize() {
    this.map.resize();
  }
}
