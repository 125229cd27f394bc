// Quantities and stages as people read them; the same rules as the server's `quantity.rs`.

/** `1.23 GB`: three figures, decimal prefixes. */
export function bytes(count) {
  if (!(count >= 1000)) return `${count ?? 0} B`;
  let value = count;
  for (const unit of ["kB", "MB", "GB", "TB"]) {
    value /= 1000;
    if (value < 999.5 || unit === "TB") {
      return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${unit}`;
    }
  }
}

export const rate = (count) => `${bytes(Math.round(count))}/s`;

/** `42 s`, `3 min 4 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(ms) {
  const all = Math.max(0, Math.floor(ms / 1000));
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} min ${all % 60} s`;
  if (all < 86400) return `${Math.floor(all / 3600)} h ${Math.floor(all / 60) % 60} min`;
  return `${Math.floor(all / 86400)} d ${Math.floor(all / 3600) % 24} h`;
}

/** The same in one figure, where there is little room. */
export function short(ms) {
  const all = Math.max(0, Math.floor(ms / 1000));
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} min`;
  if (all < 86400) return `${Math.floor(all / 3600)} h`;
  return `${Math.floor(all / 86400)} d`;
}

/** A stage's length, with tenths where they matter. */
export const span = (ms) => (ms < 10000 ? `${(ms / 1000).toFixed(1)} s` : duration(ms));

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export const clock = (ms) => CLOCK.format(ms);
export const day = (ms) => DAY.format(ms);

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** Where stages belong: what a person wants to tell apart at a glance. */
export const GROUPS = [
  ["none", "never seen"],
  ["starting", "starting"],
  ["downloading", "downloading"],
  ["ready", "verified"],
  ["booted", "booted"],
  ["failed", "failed"],
];

const OF = { downloading: "downloading", verified: "ready", loading: "ready", booted: "booted", failed: "failed" };

export const group = (stage) => (stage ? (OF[stage] ?? "starting") : "none");

export const stageWord = (node) => node.stage ?? "never seen";

export const label = (node) => node.name ?? node.mac;

/** How much of its image a node has, 0 to 1. */
export function done(node) {
  if (node.progress) return node.progress.total_bytes ? node.progress.verified_bytes / node.progress.total_bytes : 1;
  return ["ready", "booted"].includes(group(node.stage)) ? 1 : 0;
}

export const percent = (node) => `${Math.floor(done(node) * 100)} %`;
