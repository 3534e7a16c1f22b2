// Turns values into what people read. Instants are shown in UTC, so that they agree with the logs.

export function duration(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function instant(ms) {
  return ms === null || ms === undefined ? "" : new Date(ms).toISOString().replace("T", " ").replace(/\.\d+/, "");
}

export function exact(ms) {
  return new Date(ms).toISOString().slice(11, 23);
}

export function age(ms) {
  const past = Math.max(0, Date.now() - ms);
  return past < 60000 ? `${Math.floor(past / 1000)} s ago` : `${duration(past)} ago`;
}

export function count(value) {
  return Number(value ?? 0).toLocaleString("en");
}

export function rate(value) {
  const found = Number(value ?? 0);
  return found >= 100 ? count(Math.round(found)) : found.toFixed(found && found < 10 ? 1 : 0);
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let found = Number(value ?? 0), unit = 0;
  while (found >= 1024 && unit < units.length - 1) { found /= 1024; unit += 1; }
  return `${found.toFixed(found < 10 && unit ? 1 : 0)} ${units[unit]}`;
}

export function reason(code, step) {
  return code && step ? `${code} at ${step}` : code || step || "";
}

export function facts(row, left_out) {
  return Object.entries(row)
    .filter(([name, value]) => !left_out.includes(name) && value !== "" && value !== null
      && !(Array.isArray(value) && !value.length))
    .map(([name, value]) => `${name}=${Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : value}`)
    .join("  ");
}
