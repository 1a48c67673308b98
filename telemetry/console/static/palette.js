// Colours of the map, for light and dark. Hues are from Okabe and Ito's set, which colour-blind eyes tell apart;
// kinds also differ in their line (dashed, solid, dotted), and a device with an alert has its own shape.

export const PALETTES = {
  light: {
    ground: "#eef1f3",
    water: "#d3dfe8",
    border: "#aab6c0",
    grid: "#d9dfe4",
    ink: "#1b242c",
    halo: "#ffffff",
    exclusion: "#c2410c",
    inclusion: "#0b66a3",
    other: "#6b5b95",
    device: "#00805e",
    cluster: "#00805e",
    clusterInk: "#ffffff",
    alerting: "#b3261e",
    track: "#1b242c",
    fill: 0.1,
  },
  dark: {
    ground: "#171e24",
    water: "#0b1116",
    border: "#45525d",
    grid: "#222b33",
    ink: "#e6edf2",
    halo: "#0b0f12",
    exclusion: "#ff9a5c",
    inclusion: "#63b8f0",
    other: "#b9a6e3",
    device: "#35c79c",
    cluster: "#1f8f70",
    clusterInk: "#ffffff",
    alerting: "#ff6b5e",
    track: "#e6edf2",
    fill: 0.13,
  },
};

export const DASH = { exclusion: [3, 1.5], inclusion: null, other: [1, 1.6] };
export const KINDS = ["other", "inclusion", "exclusion"]; // in drawing order
