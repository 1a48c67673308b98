// Numbers and times as operators read them.

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;

/** Seconds as "40 s", "4 min", "3 h 10 min", "2 d 4 h". */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < MINUTE) return `${s} s`;
  if (s < HOUR) return `${Math.floor(s / MINUTE)} min`;
  if (s < DAY) return two(s, HOUR, "h", MINUTE, "min");
  return two(s, DAY, "d", HOUR, "h");
}

function two(s, large, largeName, small, smallName) {
  const rest = Math.floor((s % large) / small);
  return `${Math.floor(s / large)} ${largeName}${rest ? ` ${rest} ${smallName}` : ""}`;
}

/** How long ago a time was; in words when it is not past. */
export function age(time, now = Date.now()) {
  const seconds = (now - Date.parse(time)) / 1000;
  return seconds < 1 ? "now" : `${span(seconds)} ago`;
}

const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const ofToday = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** A time in the operator's own zone and manner. */
export const moment = (time) => full.format(Date.parse(time));

/** The same, without the date where it is today. */
export function shortMoment(time) {
  const date = new Date(time);
  return (date.toDateString() === new Date().toDateString() ? ofToday : full).format(date);
}

/** A probability as "99.8 %", never rounded up to certainty. */
export function percent(share) {
  if (share == null) return "—";
  return share === 1 ? "100 %" : `${Math.min(share * 100, 99.9).toFixed(1)} %`;
}

export function metres(m) {
  if (m == null) return "—";
  if (Math.abs(m) >= 10_000) return `${(m / 1000).toFixed(1)} km`;
  return `${Math.abs(m) < 10 ? m.toFixed(1) : Math.round(m)} m`;
}

export const count = (n, one, many) => `${n.toLocaleString()} ${n === 1 ? one : many}`;

/** What the API says, as sentences: each with a capital and a full stop. */
export const sentences = (...parts) =>
  parts.filter(Boolean).map((part) => `${part[0].toUpperCase()}${part.slice(1)}${/[.!?…]$/.test(part) ? "" : "."}`).join(" ");

export const words = (name) => name.replaceAll("_", " ");
