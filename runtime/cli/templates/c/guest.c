// What a node of the group does: the leader hands out one job at each tick, to one member after the other, and writes down how far it
// is; the members do the jobs. What each function is for is told in wit/deps/bellwether-runtime.
//
// Who owns what: arguments of exports and results of imports are ours to free (build/bindings/guest.h has a function for each type);
// results of exports are freed by the bindings, so they must come from malloc; arguments of imports stay ours.

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"

#define GREETING "hello"

// How far the jobs are: what the key `next` of the group's state holds, and its version.
typedef struct {
  bool known;   // false: the state has to be asked
  bool saved;   // false: there is no such key yet
  uint64_t next;
  uint32_t version;
} progress_t;

// What an instance knows. Its callbacks come one at a time.
static progress_t progress;
static guest_string_t *members;
static size_t members_len, turn;

// The names of errors and reasons, in the order of their tags; guest.h has what more they carry.
static const char *const STATE[] = {"not-leader", "conflict", "bad-key", "too-large", "not-granted", "unavailable", "other"};
static const char *const WORKERS[] = {"unknown-member", "unreachable", "timed-out", "overloaded", "stale-epoch",
                                      "failed",         "too-large",   "not-leader", "other"};
static const char *const DEMOTED[] = {"resigned", "lease-lost", "session-lost", "superseded", "stopping", "failed"};

// Text of at most 511 bytes, made as by printf; free it by guest_string_free.
static guest_string_t text(const char *format, ...) {
  char buffer[512];
  va_list values;
  va_start(values, format);
  vsnprintf(buffer, sizeof buffer, format, values);
  va_end(values);
  guest_string_t made;
  guest_string_dup(&made, buffer);
  return made;
}

static void say(wasi_logging_logging_level_t level, guest_string_t line) {
  guest_string_t context = {0};
  wasi_logging_logging_log(level, &context, &line);
  guest_string_free(&line);
}

// Ends an export with an error.
static bool fail(guest_string_t *error, guest_string_t why) {
  *error = why;
  return false;
}

// Decimal digits and nothing else.
static bool number(const uint8_t *bytes, size_t len, uint64_t *value) {
  *value = 0;
  for (size_t i = 0; i < len; i++) {
    if (bytes[i] < '0' || bytes[i] > '9') return false;
    *value = *value * 10 + (bytes[i] - '0');
  }
  return len > 0 && len < 19;
}

static bool load(guest_string_t *error) {
  guest_string_t key;
  guest_string_set(&key, "next");
  bellwether_runtime_state_option_entry_t entry;
  bellwether_runtime_state_error_t why;
  if (!bellwether_runtime_state_get(&key, &entry, &why)) {
    guest_string_t said = text("the progress cannot be read: %s", STATE[why.tag]);
    bellwether_runtime_state_error_free(&why);
    return fail(error, said);
  }
  progress = (progress_t){.known = true, .saved = entry.is_some, .next = 1};
  if (!entry.is_some) return true;
  progress.version = entry.val.version;
  progress.known = number(entry.val.value.ptr, entry.val.value.len, &progress.next);
  bellwether_runtime_state_option_entry_free(&entry);
  return progress.known || fail(error, text("the key `next` holds no number"));
}

// Writes the progress down. It is refused if another leader has written in between.
static bool save(uint64_t next, guest_string_t *error) {
  guest_string_t key, value = text("%" PRIu64, next);
  guest_string_set(&key, "next");
  guest_list_u8_t bytes = {value.ptr, value.len};
  bellwether_runtime_state_expectation_t expect = {.tag = BELLWETHER_RUNTIME_STATE_EXPECTATION_ABSENT};
  if (progress.saved) {
    expect.tag = BELLWETHER_RUNTIME_STATE_EXPECTATION_VERSION;
    expect.val.version = progress.version;
  }
  bellwether_runtime_state_error_t why;
  bool done = bellwether_runtime_state_put(&key, &bytes, &expect, &progress.version, &why);
  guest_string_free(&value);
  // Should it have failed, the next tick reads what is there.
  progress = (progress_t){.known = done, .saved = done, .next = next, .version = progress.version};
  if (done) return true;
  guest_string_t said = text("the progress was not written down: %s", STATE[why.tag]);
  bellwether_runtime_state_error_free(&why);
  return fail(error, said);
}

bool exports_bellwether_runtime_ticker_on_tick(guest_string_t *error) {
  if (members_len == 0) return true;
  if (!progress.known && !load(error)) return false;
  guest_string_t member = members[turn++ % members_len], job = text("%" PRIu64, progress.next);
  guest_list_u8_t payload = {job.ptr, job.len}, answer;
  bellwether_runtime_workers_error_t why;
  bool done = bellwether_runtime_workers_send(&member, &payload, 1000, &answer, &why);
  guest_string_free(&job);
  if (!done) {
    // It may have been done or not, so jobs must bear to be done twice.
    const char *name = WORKERS[why.tag];
    say(WASI_LOGGING_LOGGING_LEVEL_WARN,
        text("job %" PRIu64 " by %.*s came to nothing: %s", progress.next, (int)member.len, (char *)member.ptr, name));
    bellwether_runtime_workers_error_free(&why);
    return true;
  }
  say(WASI_LOGGING_LOGGING_LEVEL_INFO, text("job %" PRIu64 ": %.*s", progress.next, (int)answer.len, (char *)answer.ptr));
  guest_list_u8_free(&answer);
  return save(progress.next + 1, error);
}

bool exports_bellwether_runtime_worker_handle(exports_bellwether_runtime_worker_task_t *task, guest_list_u8_t *answer, guest_string_t *error) {
  uint64_t job;
  bool fits = number(task->payload.ptr, task->payload.len, &job);
  exports_bellwether_runtime_worker_task_free(task);
  if (!fits) return fail(error, text("not a job: a number is wanted"));
  bellwether_runtime_cluster_member_t this;
  bellwether_runtime_cluster_this(&this);
  guest_string_t greeting = text(GREETING " from %.*s", (int)this.id.len, (char *)this.id.ptr);
  bellwether_runtime_cluster_member_free(&this);
  *answer = (guest_list_u8_t){greeting.ptr, greeting.len};
  return true;
}

bool exports_bellwether_runtime_lifecycle_on_elected(exports_bellwether_runtime_lifecycle_leadership_t *leadership, guest_string_t *error) {
  (void)error;
  say(WASI_LOGGING_LOGGING_LEVEL_INFO, text("leads, epoch %" PRIu64, leadership->epoch));
  if (leadership->cause != EXPORTS_BELLWETHER_RUNTIME_LIFECYCLE_CAUSE_SWAP) progress.known = false;
  return true;
}

bool exports_bellwether_runtime_lifecycle_on_demoted(exports_bellwether_runtime_lifecycle_demotion_reason_t *reason, guest_string_t *error) {
  (void)error;
  say(WASI_LOGGING_LOGGING_LEVEL_INFO, text("leads no more: %s", DEMOTED[reason->tag]));
  exports_bellwether_runtime_lifecycle_demotion_reason_free(reason);
  return true;
}

static void leave(guest_string_t id) {
  for (size_t i = 0; i < members_len; i++) {
    if (members[i].len != id.len || memcmp(members[i].ptr, id.ptr, id.len) != 0) continue;
    guest_string_free(&members[i]);
    members_len--;
    memmove(&members[i], &members[i + 1], (members_len - i) * sizeof *members);
    return;
  }
}

static void join(guest_string_t id) {
  members = realloc(members, (members_len + 1) * sizeof *members);
  if (members == NULL) abort();
  guest_string_dup_n(&members[members_len++], (char *)id.ptr, id.len);
}

bool exports_bellwether_runtime_lifecycle_on_members_changed(exports_bellwether_runtime_lifecycle_membership_t *change, guest_string_t *error) {
  (void)error;
  for (size_t i = 0; i < change->left.len; i++) leave(change->left.ptr[i]);
  for (size_t i = 0; i < change->joined.len; i++) join(change->joined.ptr[i].id);
  exports_bellwether_runtime_lifecycle_membership_free(change);
  return true;
}

// Begins with the version of this format, so that later releases can tell it from theirs.
void exports_bellwether_runtime_handover_snapshot(guest_list_u8_t *state) {
  guest_string_t all = text("1 %d %d %" PRIu64 " %" PRIu32, progress.known, progress.saved, progress.next, progress.version);
  *state = (guest_list_u8_t){all.ptr, all.len};
}

bool exports_bellwether_runtime_handover_restore(guest_list_u8_t *state, guest_string_t *error) {
  char all[64] = {0};
  memcpy(all, state->ptr, state->len < sizeof all ? state->len : sizeof all - 1);
  guest_list_u8_free(state);
  int known, saved;
  progress_t handed = {0};
  if (sscanf(all, "1 %d %d %" SCNu64 " %" SCNu32, &known, &saved, &handed.next, &handed.version) != 4) {
    return fail(error, text("not a state of version 1: %s", all));
  }
  progress = handed;
  progress.known = known, progress.saved = saved;
  return true;
}
