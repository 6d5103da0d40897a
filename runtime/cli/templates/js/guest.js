// What a node of the group does: the leader hands out one job at each tick, to one member after the other, and writes down how far it
// is; the members do the jobs. What each function is for is told in wit/deps/bellwether-runtime.

import * as cluster from "bellwether:runtime/cluster@0.1.0";
import * as state from "bellwether:runtime/state@0.1.0";
import * as workers from "bellwether:runtime/workers@0.1.0";
import { log } from "wasi:logging/logging@0.1.0-draft";

const GREETING = "hello";

// What an instance knows. Its callbacks come one at a time.
let members = [];
let turn = 0;
// How far the jobs are: what the key `next` of the group's state holds, and its version; null if there is no such key yet.
let progress = null;

// There is no TextEncoder. All that is written here is ASCII.
const bytes = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const text = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
const number = (text) => (/^[0-9]{1,15}$/.test(text) ? Number(text) : null);

// An import that fails throws an error whose payload is the contract's, such as { tag: "unreachable", val: "…" }.
const why = ({ payload, message }) => (payload ? [payload.tag, payload.val].filter(Boolean).join(": ") : message);

function attempt(call, failure) {
  try {
    return call();
  } catch (error) {
    throw `${failure}: ${why(error)}`;
  }
}

function load() {
  const entry = attempt(() => state.get("next"), "the progress cannot be read");
  if (entry === null) return { next: 1, version: null };
  const next = number(text(entry.value));
  if (next === null) throw "the key `next` holds no number";
  return { next, version: entry.version };
}

// Writes the progress down. It is refused if another leader has written in between.
function save(next, last) {
  const expect = last === null ? { tag: "absent" } : { tag: "version", val: last };
  const version = attempt(() => state.put("next", bytes(`${next}`), expect), "the progress was not written down");
  return { next, version };
}

export const ticker = {
  onTick() {
    if (members.length === 0) return;
    const known = progress ?? load();
    // Should something fail, the next tick reads what is there.
    progress = null;
    const member = members[turn++ % members.length];
    let answer;
    try {
      answer = workers.send(member, bytes(`${known.next}`), 1000);
    } catch (error) {
      // It may have been done or not, so jobs must bear to be done twice.
      log("warn", "", `job ${known.next} by ${member} came to nothing: ${why(error)}`);
      progress = known;
      return;
    }
    log("info", "", `job ${known.next}: ${text(answer)}`);
    progress = save(known.next + 1, known.version);
  },
};

export const worker = {
  handle({ payload }) {
    if (number(text(payload)) === null) throw "not a job: a number is wanted";
    return bytes(`${GREETING} from ${cluster.this().id}`);
  },
};

export const lifecycle = {
  onElected({ epoch, cause }) {
    log("info", "", `leads, epoch ${epoch}`);
    if (cause !== "swap") progress = null;
  },

  onDemoted(reason) {
    log("info", "", `leads no more: ${reason.tag}`);
  },

  onMembersChanged({ joined, left }) {
    members = members.filter((id) => !left.includes(id)).concat(joined.map(({ id }) => id));
  },
};

export const handover = {
  // Begins with the version of this format, so that later releases can tell it from theirs.
  snapshot() {
    return bytes(JSON.stringify({ format: 1, progress }));
  },

  restore(state) {
    const { format, progress: handed } = JSON.parse(text(state));
    if (format !== 1) throw `not a state of version 1: ${text(state)}`;
    progress = handed;
  },
};
