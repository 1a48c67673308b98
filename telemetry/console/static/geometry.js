// Small geometry for drawing. Decisions are the engine's; nothing here decides anything.

const EARTH_M = 6_371_008.8;
const RAD = Math.PI / 180;
const METRES_PER_PIXEL_Z0 = 78_271.517; // at the equator, 512-pixel tiles

/** A circle on the sphere as a closed ring of positions. */
export function circleRing([lon, lat], radiusM, corners = 64) {
  const d = radiusM / EARTH_M;
  const ring = [];
  for (let i = 0; i <= corners; i++) {
    const bearing = (2 * Math.PI * i) / corners;
    const y = Math.asin(Math.sin(lat * RAD) * Math.cos(d) + Math.cos(lat * RAD) * Math.sin(d) * Math.cos(bearing));
    const x = Math.atan2(
      Math.sin(bearing) * Math.sin(d) * Math.cos(lat * RAD),
      Math.cos(d) - Math.sin(lat * RAD) * Math.sin(y),
    );
    ring.push([lon + x / RAD, y / RAD]);
  }
  return ring;
}

/** The width in pixels at zoom 0 of something `metres` wide; it doubles with each zoom level. */
export const widthAtZoom0 = (metres, lat) => metres / (METRES_PER_PIXEL_Z0 * Math.cos(lat * RAD));

/** Every position of a geometry. */
export function* positionsOf(geometry) {
  if (!geometry) return;
  if (geometry.type === "GeometryCollection") {
    for (const part of geometry.geometries) yield* positionsOf(part);
    return;
  }
  const stack = [geometry.coordinates];
  while (stack.length) {
    const item = stack.pop();
    if (typeof item[0] === "number") yield item;
    else stack.push(...item);
  }
}

/** [[west, south], [east, north]] of positions, or null. Outliers past the outermost percent don't count. */
export function bounds(positions, trim = 0) {
  const lons = positions.map((p) => p[0]).sort((a, b) => a - b);
  const lats = positions.map((p) => p[1]).sort((a, b) => a - b);
  if (!lons.length) return null;
  const skip = Math.floor(lons.length * trim);
  const last = lons.length - 1 - skip;
  return [[lons[skip], lats[skip]], [lons[last], lats[last]]];
}

/** Zones as what is drawn: circles become polygons, corridors and buffers carry the width of their line. */
export function drawable(collection) {
  return {
    type: "FeatureCollection",
    features: collection.features.map((feature) => {
      const { geometry, properties } = feature;
      const radiusM = (properties.radius_m ?? 0) + (geometry.type === "Point" ? (properties.buffer_m ?? 0) : 0);
      const kind = properties.kind === "exclusion" || properties.kind === "inclusion" ? properties.kind : "other";
      const drawn = { id: properties.id, name: properties.name ?? properties.id, kind, w0: 0 };
      if (geometry.type === "Point") {
        return { type: "Feature", properties: drawn, geometry: { type: "Polygon", coordinates: [circleRing(geometry.coordinates, radiusM)] } };
      }
      const [first] = positionsOf(geometry);
      const isLine = geometry.type.endsWith("LineString");
      const reachM = isLine ? radiusM + (properties.buffer_m ?? 0) : (properties.buffer_m ?? 0);
      if (first && reachM) drawn.w0 = widthAtZoom0(2 * reachM, first[1]);
      return { type: "Feature", properties: drawn, geometry };
    }),
  };
}

const STEPS = [30, 15, 10, 5, 2, 1, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.0025, 0.001];

/** Meridians and parallels across a view, about six each way. */
export function graticule([[west, south], [east, north]]) {
  const size = Math.max(east - west, north - south);
  const step = STEPS.find((candidate) => size / candidate >= 5) ?? STEPS.at(-1);
  const lines = [];
  for (let lon = Math.floor(west / step) * step; lon <= east; lon += step) lines.push([[lon, south], [lon, north]]);
  for (let lat = Math.ceil(Math.max(south, -85) / step) * step; lat <= Math.min(north, 85); lat += step) {
    lines.push([[west, lat], [east, lat]]);
  }
  return lines;
}
