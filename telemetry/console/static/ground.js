// The map's own ground: land and borders of the world, and the states of the US. It is rough: a coast can be a kilometre off.

import { h } from "./dom.js";

const VENDOR = "/console/vendor";
const SCRIPT = `${VENDOR}/topojson-client/topojson-client.min.js`;
const WORLD = `${VENDOR}/world-atlas/countries-50m.json`;
const STATES = `${VENDOR}/us-atlas/states-10m.json`;

const script = (src) =>
  new Promise((resolve, reject) => {
    document.head.append(h("script", { src, onload: resolve, onerror: () => reject(new Error(`${src} can't be loaded`)) }));
  });

async function json(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answered ${response.status}`);
  return response.json();
}

/** { land, borders } as GeoJSON. A border is a line that two countries, or two states, share. */
export async function loadGround() {
  const [world, states] = await Promise.all([json(WORLD), json(STATES), script(SCRIPT)]);
  const { feature, mesh } = globalThis.topojson;
  const shared = (a, b) => a !== b;
  const lines = [mesh(world, world.objects.countries, shared), mesh(states, states.objects.states, shared)];
  return {
    land: feature(world, world.objects.land),
    borders: { type: "FeatureCollection", features: lines.map((geometry) => ({ type: "Feature", properties: {}, geometry })) },
  };
}
