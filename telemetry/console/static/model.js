// What the page knows: alerts by id, devices by id. Views read it and are told when it changed.

const RANK = { critical: 0, high: 1, low: 2, info: 3 };
const LIVE = new Set(["open", "acknowledged"]);
const DONE_SHOWN = 200;

export const isLive = (alert) => LIVE.has(alert.state);

const byNeed = (a, b) =>
  (a.state === "acknowledged") - (b.state === "acknowledged") ||
  RANK[a.severity] - RANK[b.severity] ||
  b.opened_at.localeCompare(a.opened_at) ||
  b.alert_id.localeCompare(a.alert_id);

const byChange = (a, b) => b.updated_at.localeCompare(a.updated_at);

export class Model {
  constructor() {
    this.alerts = new Map();
    this.devices = new Map();
    this.loaded = false;
  }

  /** All alerts anew, as lists gave them. */
  replaceAlerts(items) {
    this.alerts = new Map(items.map((alert) => [alert.alert_id, alert]));
    this.loaded = true;
  }

  putAlert(alert) {
    this.alerts.set(alert.alert_id, alert);
  }

  /** Columns and rows, as positions travel; devices that are not named stay. */
  mergePositions({ columns, rows }) {
    for (const row of rows) {
      const position = {};
      for (let i = 0; i < columns.length; i++) position[columns[i]] = row[i];
      this.devices.set(position.device_id, position);
    }
  }

  get live() {
    return [...this.alerts.values()].filter(isLive).sort(byNeed);
  }

  get done() {
    return [...this.alerts.values()].filter((alert) => !isLive(alert)).sort(byChange).slice(0, DONE_SHOWN);
  }

  /** Devices that an alert to do is about. */
  get alerting() {
    return new Set(this.live.map((alert) => alert.device_id));
  }

  /** The alert to do of a device that matters most. */
  alertOf(deviceId) {
    return this.live.find((alert) => alert.device_id === deviceId);
  }
}
