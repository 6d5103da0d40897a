// The sums, in JavaScript. What they are is in ../README.md; what each function is for, in ../../wit.
// Squares and totals outgrow what a number holds exactly, so they are BigInts.

import * as cluster from "bellwether:runtime/cluster@0.1.0";
import * as state from "bellwether:runtime/state@0.1.0";
import * as workers from "bellwether:runtime/workers@0.1.0";
import * as store from "wasi:config/store@0.2.0-rc.1";
import * as logging from "wasi:logging/logging@0.1.0-draft";

const MOST_JOBS = 1_000_000;
const MOST_SQUARE = 10n ** 12n;
const MOST_TOTAL = 10n ** 18n;
const MOST_U32 = 2 ** 32 - 1;

// What an instance knows.
const members = new Map();
let leading = false;
let progress = null;
let settings = null;

// Decimal digits and nothing else: BigInt alone would take "", "0x10" and blanks.
function bigNumber(text, least, most) {
  if (!/^[0-9]{1,20}$/.test(text)) return null;
  const value = BigInt(text);
  return value >= least && value <= most ? value : null;
}

function number(text, least, most) {
  const value = bigNumber(text, least, most);
  return value === null ? null : Number(value);
}

const bytes = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const text = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
const log = (level, message) => logging.log(level, "sums", message);

// componentize-qjs takes a u32 for signed: beyond 2^31 it comes as a negative number, and must go back as one.
const unsigned = (version) => version >>> 0;
const signed = (version) => version | 0;

// A case of a variant, such as { tag: "stale-epoch", val: 9 }, as the contract has it: "stale-epoch: 9".
function words(variant) {
  const { tag, val } = variant;
  if (tag === "conflict") return `conflict: ${val === null ? "none" : unsigned(val)}`;
  return "val" in variant ? `${tag}: ${val}` : tag;
}

// Calls an import. It throws an Error that carries the contract's error as its payload; that becomes ours.
function attempt(what, call) {
  try {
    return call();
  } catch (error) {
    if (error.payload === undefined) throw error;
    throw `${what}: ${words(error.payload)}`;
  }
}

function setting(key, usual, most) {
  const text = attempt("the settings cannot be read", () => store.get(key));
  const value = text === null ? usual : number(text, 1, most);
  if (value === null) throw `the setting ${key} is "${text}": a number from 1 to ${most} is wanted`;
  return value;
}

function fields({ next, total, again }) {
  return [next, total, ...again];
}

function parse([first, second, ...rest]) {
  const next = number(first, 1, MOST_JOBS + 1);
  const total = bigNumber(second, 0n, MOST_TOTAL);
  if (next === null || total === null) return null;
  const again = rest.map((job) => number(job, 1, next - 1));
  return again.includes(null) ? null : { next, total, again, version: null, unsaved: 0 };
}

function load() {
  const entry = attempt("the total cannot be read", () => state.get("total"));
  if (entry === null) return { next: 1, total: 0n, again: [], version: null, unsaved: 0 };
  const [version, , ...rest] = text(entry.value).split(" ");
  const loaded = version === "1" ? parse(rest) : null;
  if (loaded === null) throw "the total in the state is not of version 1";
  loaded.version = unsigned(entry.version);
  return loaded;
}

function handOut(work) {
  const assignments = work.map(({ job, to }) => ({ to, payload: bytes(`square ${job}`) }));
  const answers = workers.scatter(assignments, settings.timeoutMs);
  progress.again.splice(0, work.length);
  progress.next = Math.max(progress.next, work.at(-1).job + 1);
  work.forEach(({ job, to }, index) => {
    const { tag, val } = answers[index];
    const square = tag === "ok" ? bigNumber(text(val), 0n, MOST_SQUARE) : null;
    if (square === null) {
      log("warn", `job ${job} by ${to}: ${tag === "ok" ? "not an answer" : words(val)}`);
      progress.again.push(job);
    } else {
      progress.total += square;
    }
  });
  progress.again.sort((a, b) => a - b);
  progress.unsaved += 1;
  log("debug", `jobs ${work.map(({ job }) => job).join(" ")}: total ${progress.total}`);
}

function save() {
  const { version } = progress;
  const expect = version === null ? { tag: "absent" } : { tag: "version", val: signed(version) };
  const value = bytes([1, "javascript", ...fields(progress)].join(" "));
  const unsaved = progress;
  // Should it fail, what is there is unknown: the next tick reads it.
  progress = null;
  unsaved.version = unsigned(attempt("the total was not saved", () => state.put("total", value, expect)));
  unsaved.unsaved = 0;
  progress = unsaved;
}

const sorted = () => [...members].sort(([a], [b]) => (a < b ? -1 : 1));

function tick() {
  progress ??= load();
  const takers = sorted().flatMap(([id, capacity]) => Array(capacity).fill(id));
  const work = [];
  for (const to of takers) {
    const fresh = progress.next + work.length - progress.again.length;
    if (work.length >= progress.again.length && fresh > settings.until) break;
    work.push({ job: progress.again[work.length] ?? fresh, to });
  }
  if (work.length > 0) handOut(work);
  const finished = progress.next > settings.until && progress.again.length === 0;
  if (progress.unsaved >= settings.saveEvery || (progress.unsaved > 0 && finished)) {
    save();
    if (finished) log("info", `finished: ${settings.until} jobs, total ${progress.total}`);
  }
}

export const lifecycle = {
  onElected({ epoch, cause }) {
    settings = {
      until: setting("until", MOST_JOBS, MOST_JOBS),
      saveEvery: setting("save_every", 1, MOST_JOBS),
      timeoutMs: setting("timeout_ms", 1000, 60_000),
    };
    if (cause !== "swap") progress = null;
    leading = true;
    log("info", `${cluster.this().id} leads, epoch ${epoch}, by ${cause}`);
  },

  onDemoted(reason) {
    leading = false;
    progress = null;
    log("info", `demoted: ${words(reason)}`);
  },

  onMembersChanged({ version, joined, changed, left }) {
    for (const { id, labels } of [...joined, ...changed]) {
      members.set(id, number(new Map(labels).get("capacity") ?? "1", 0, 9) ?? 1);
    }
    for (const id of left) members.delete(id);
    const known = sorted().map(([id, capacity]) => `${id}*${capacity}`);
    log("info", `members, version ${version}: ${known.join(" ") || "none"}`);
  },
};

export const ticker = {
  onTick() {
    if (leading) tick();
  },
};

export const worker = {
  handle({ sender, epoch, payload }) {
    const [, argument] = /^square (.*)$/s.exec(text(payload)) ?? [];
    const job = argument === undefined ? null : bigNumber(argument, 0n, BigInt(MOST_U32));
    if (job === null) throw 'not a job: "square N" is wanted, N from 0 to 4294967295';
    log("debug", `square ${job} for ${sender}, ${epoch === null ? "no epoch" : `epoch ${epoch}`}`);
    return bytes(`${job * job}`);
  },
};

export const handover = {
  snapshot() {
    if (progress === null) return bytes("1");
    return bytes([1, progress.version ?? "-", progress.unsaved, ...fields(progress)].join(" "));
  },

  restore(state) {
    const [format, version, unsaved, ...rest] = text(state).split(" ");
    if (format === "1" && version === undefined) {
      progress = null;
      return;
    }
    const restored = format === "1" && unsaved !== undefined ? parse(rest) : null;
    if (restored !== null) {
      restored.version = version === "-" ? null : number(version, 0, MOST_U32);
      restored.unsaved = number(unsaved, 0, MOST_U32);
    }
    if (restored === null || restored.unsaved === null || (restored.version === null && version !== "-")) {
      throw "the state handed over is not of version 1";
    }
    progress = restored;
  },
};
