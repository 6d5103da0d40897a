// The sums, in C. What they are is in ../README.md; what each function is for, in ../../wit.
//
// Who owns what: arguments of exports and results of imports are ours to free (guest.h has a function for each type); results of
// exports are freed by the bindings, so they must come from malloc; arguments of imports stay ours.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"
#include "text.h"

#define MOST_JOBS UINT64_C(1000000)
#define MOST_SQUARE (MOST_JOBS * MOST_JOBS)
#define MOST_TOTAL (MOST_SQUARE * MOST_JOBS)

typedef struct {
  uint64_t next, total;
  uint64_t *again;  // jobs to be done again, in ascending order
  size_t again_len;
  bool saved;  // there is a version: of the key `total`, as this leader left it
  uint32_t version;
  uint64_t unsaved;  // ticks that were not saved
} progress_t;

typedef struct {
  guest_string_t id;
  unsigned capacity;
} member_t;

// What an instance knows.
static bool leading;
static bool known;  // whether there is any progress
static progress_t progress;
static member_t *members;  // in the order of their ids
static size_t members_len;
static uint64_t until, save_every, timeout_ms;

static void forget(void) {
  free(progress.again);
  progress = (progress_t){.next = 1};
  known = false;
}

static void say(wasi_logging_logging_level_t level, text_t message) {
  guest_string_t context = literal("sums"), line = text_string(&message);
  wasi_logging_logging_log(level, &context, &line);
  text_free(&message);
}

// Ends an export with an error; the bindings free the text.
static bool fail(guest_string_t *error, text_t message) {
  *error = text_string(&message);
  return false;
}

static void add_state_error(text_t *text, const bellwether_runtime_state_error_t *error) {
  switch (error->tag) {
    case BELLWETHER_RUNTIME_STATE_ERROR_NOT_LEADER:
      return text_add(text, "not-leader");
    case BELLWETHER_RUNTIME_STATE_ERROR_CONFLICT:
      text_add(text, "conflict: ");
      return error->val.conflict.is_some ? text_number(text, error->val.conflict.val) : text_add(text, "none");
    case BELLWETHER_RUNTIME_STATE_ERROR_BAD_KEY:
      text_add(text, "bad-key: ");
      return text_bytes(text, error->val.bad_key);
    case BELLWETHER_RUNTIME_STATE_ERROR_TOO_LARGE:
      text_add(text, "too-large: ");
      return text_number(text, error->val.too_large);
    case BELLWETHER_RUNTIME_STATE_ERROR_NOT_GRANTED:
      text_add(text, "not-granted: ");
      return text_bytes(text, error->val.not_granted);
    case BELLWETHER_RUNTIME_STATE_ERROR_UNAVAILABLE:
      text_add(text, "unavailable: ");
      return text_bytes(text, error->val.unavailable);
    default:
      text_add(text, "other: ");
      return text_bytes(text, error->val.other);
  }
}

static void add_workers_error(text_t *text, const bellwether_runtime_workers_error_t *error) {
  switch (error->tag) {
    case BELLWETHER_RUNTIME_WORKERS_ERROR_UNKNOWN_MEMBER:
      return text_add(text, "unknown-member");
    case BELLWETHER_RUNTIME_WORKERS_ERROR_UNREACHABLE:
      text_add(text, "unreachable: ");
      return text_bytes(text, error->val.unreachable);
    case BELLWETHER_RUNTIME_WORKERS_ERROR_TIMED_OUT:
      return text_add(text, "timed-out");
    case BELLWETHER_RUNTIME_WORKERS_ERROR_OVERLOADED:
      return text_add(text, "overloaded");
    case BELLWETHER_RUNTIME_WORKERS_ERROR_STALE_EPOCH:
      text_add(text, "stale-epoch: ");
      return text_number(text, error->val.stale_epoch);
    case BELLWETHER_RUNTIME_WORKERS_ERROR_FAILED:
      text_add(text, "failed: ");
      return text_bytes(text, error->val.failed);
    case BELLWETHER_RUNTIME_WORKERS_ERROR_TOO_LARGE:
      text_add(text, "too-large: ");
      return text_number(text, error->val.too_large);
    case BELLWETHER_RUNTIME_WORKERS_ERROR_NOT_LEADER:
      return text_add(text, "not-leader");
    default:
      text_add(text, "other: ");
      return text_bytes(text, error->val.other);
  }
}

// Progress, as it is written down: from the number of the next job on.

static void add_progress(text_t *text) {
  text_number(text, progress.next);
  text_add(text, " ");
  text_number(text, progress.total);
  for (size_t i = 0; i < progress.again_len; i++) {
    text_add(text, " ");
    text_number(text, progress.again[i]);
  }
}

// Reads the fields that are left; on success `parsed` is the caller's to free.
static bool parse_progress(fields_t *fields, progress_t *parsed) {
  guest_string_t field;
  *parsed = (progress_t){0};
  if (!field_next(fields, &field) || !number(field, 1, MOST_JOBS + 1, &parsed->next)) return false;
  if (!field_next(fields, &field) || !number(field, 0, MOST_TOTAL, &parsed->total)) return false;
  // At least two bytes a job.
  parsed->again = allocate(fields->left.len / 2 + 1, sizeof *parsed->again);
  while (field_next(fields, &field)) {
    if (!number(field, 1, parsed->next - 1, &parsed->again[parsed->again_len++])) {
      free(parsed->again);
      return false;
    }
  }
  return true;
}

static bool load(guest_string_t *error) {
  guest_string_t key = literal("total"), field;
  bellwether_runtime_state_option_entry_t entry;
  bellwether_runtime_state_error_t why;
  if (!bellwether_runtime_state_get(&key, &entry, &why)) {
    text_t text = text_of("the total cannot be read: ");
    add_state_error(&text, &why);
    bellwether_runtime_state_error_free(&why);
    return fail(error, text);
  }
  forget();
  if (entry.is_some) {
    fields_t fields = fields_of(entry.val.value.ptr, entry.val.value.len);
    progress_t parsed;
    // The second field is the language that wrote it.
    bool fits = field_next(&fields, &field) && is(field, "1") && field_next(&fields, &field) && parse_progress(&fields, &parsed);
    if (fits) {
      progress = parsed;
      progress.saved = true;
      progress.version = entry.val.version;
    }
    bellwether_runtime_state_option_entry_free(&entry);
    if (!fits) return fail(error, text_of("the total in the state is not of version 1"));
  }
  known = true;
  return true;
}

static bool save(guest_string_t *error) {
  text_t line = text_of("1 c ");
  add_progress(&line);
  guest_string_t key = literal("total");
  guest_list_u8_t value = text_list(&line);
  bellwether_runtime_state_expectation_t expect = {.tag = BELLWETHER_RUNTIME_STATE_EXPECTATION_ABSENT};
  if (progress.saved) {
    expect.tag = BELLWETHER_RUNTIME_STATE_EXPECTATION_VERSION;
    expect.val.version = progress.version;
  }
  bellwether_runtime_state_error_t why;
  bool done = bellwether_runtime_state_put(&key, &value, &expect, &progress.version, &why);
  text_free(&line);
  if (!done) {
    // What is there now is unknown: the next tick reads it.
    forget();
    text_t text = text_of("the total was not saved: ");
    add_state_error(&text, &why);
    bellwether_runtime_state_error_free(&why);
    return fail(error, text);
  }
  progress.saved = true;
  progress.unsaved = 0;
  return true;
}

static int by_number(const void *a, const void *b) {
  uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

// Gives out one job to each of `count` takers.
static void hand_out(const uint64_t *jobs, const guest_string_t *takers, size_t count) {
  bellwether_runtime_workers_assignment_t *work = allocate(count, sizeof *work);
  text_t *payloads = allocate(count, sizeof *payloads);
  for (size_t i = 0; i < count; i++) {
    payloads[i] = text_of("square ");
    text_number(&payloads[i], jobs[i]);
    work[i] = (bellwether_runtime_workers_assignment_t){takers[i], text_list(&payloads[i])};
  }
  bellwether_runtime_workers_list_assignment_t assignments = {work, count};
  bellwether_runtime_workers_list_result_list_u8_error_t answers;
  bellwether_runtime_workers_scatter(&assignments, (uint32_t)timeout_ms, &answers);

  // Jobs that were given out leave the list, those that came to nothing enter it.
  size_t repeated = count < progress.again_len ? count : progress.again_len, waiting = progress.again_len - repeated;
  uint64_t *again = allocate(waiting + count, sizeof *again);
  if (waiting > 0) memcpy(again, progress.again + repeated, waiting * sizeof *again);
  free(progress.again);
  progress.again = again;
  progress.again_len = waiting;
  for (size_t i = 0; i < count; i++) {
    bellwether_runtime_workers_result_list_u8_error_t *answer = &answers.ptr[i];
    uint64_t square;
    if (jobs[i] >= progress.next) progress.next = jobs[i] + 1;
    if (!answer->is_err && number((guest_string_t){answer->val.ok.ptr, answer->val.ok.len}, 0, MOST_SQUARE, &square)) {
      progress.total += square;
      continue;
    }
    text_t line = text_of("job ");
    text_number(&line, jobs[i]);
    text_add(&line, " by ");
    text_bytes(&line, takers[i]);
    text_add(&line, ": ");
    if (answer->is_err) {
      add_workers_error(&line, &answer->val.err);
    } else {
      text_add(&line, "not an answer");
    }
    say(WASI_LOGGING_LOGGING_LEVEL_WARN, line);
    progress.again[progress.again_len++] = jobs[i];
  }
  qsort(progress.again, progress.again_len, sizeof *progress.again, by_number);
  progress.unsaved++;

  text_t line = text_of("jobs");
  for (size_t i = 0; i < count; i++) {
    text_add(&line, " ");
    text_number(&line, jobs[i]);
    text_free(&payloads[i]);
  }
  text_add(&line, ": total ");
  text_number(&line, progress.total);
  say(WASI_LOGGING_LOGGING_LEVEL_DEBUG, line);
  bellwether_runtime_workers_list_result_list_u8_error_free(&answers);
  free(payloads);
  free(work);
}

bool exports_bellwether_runtime_ticker_on_tick(guest_string_t *error) {
  if (!leading) return true;
  if (!known && !load(error)) return false;
  size_t most = 0, count = 0;
  for (size_t i = 0; i < members_len; i++) most += members[i].capacity;
  uint64_t *jobs = allocate(most, sizeof *jobs), fresh = progress.next;
  guest_string_t *takers = allocate(most, sizeof *takers);
  for (size_t i = 0; i < members_len; i++) {
    for (unsigned n = 0; n < members[i].capacity && (count < progress.again_len || fresh <= until); n++) {
      takers[count] = members[i].id;
      jobs[count] = count < progress.again_len ? progress.again[count] : fresh++;
      count++;
    }
  }
  if (count > 0) hand_out(jobs, takers, count);
  free(jobs);
  free(takers);

  bool finished = progress.next > until && progress.again_len == 0;
  if (progress.unsaved < save_every && !(progress.unsaved > 0 && finished)) return true;
  if (!save(error)) return false;
  if (finished) {
    text_t line = text_of("finished: ");
    text_number(&line, until);
    text_add(&line, " jobs, total ");
    text_number(&line, progress.total);
    say(WASI_LOGGING_LOGGING_LEVEL_INFO, line);
  }
  return true;
}

static bool setting(const char *name, uint64_t usual, uint64_t most, uint64_t *value, guest_string_t *error) {
  guest_string_t key = {(uint8_t *)name, strlen(name)};
  guest_option_string_t found;
  wasi_config_store_error_t why;
  if (!wasi_config_store_get(&key, &found, &why)) {
    bool io = why.tag == WASI_CONFIG_STORE_ERROR_IO;
    text_t text = text_of("the settings cannot be read: ");
    text_add(&text, io ? "io: " : "upstream: ");
    text_bytes(&text, io ? why.val.io : why.val.upstream);
    wasi_config_store_error_free(&why);
    return fail(error, text);
  }
  *value = usual;
  bool fits = !found.is_some || number(found.val, 1, most, value);
  if (!fits) {
    text_t text = text_of("the setting ");
    text_add(&text, name);
    text_add(&text, " is \"");
    text_bytes(&text, found.val);
    text_add(&text, "\": a number from 1 to ");
    text_number(&text, most);
    text_add(&text, " is wanted");
    fail(error, text);
  }
  guest_option_string_free(&found);
  return fits;
}

bool exports_bellwether_runtime_lifecycle_on_elected(exports_bellwether_runtime_lifecycle_leadership_t *leadership, guest_string_t *error) {
  static const char *const causes[] = {"election", "swap", "restart"};
  uint64_t jobs, every, wait;
  if (!setting("until", MOST_JOBS, MOST_JOBS, &jobs, error) || !setting("save_every", 1, MOST_JOBS, &every, error) ||
      !setting("timeout_ms", 1000, 60000, &wait, error)) {
    return false;
  }
  until = jobs, save_every = every, timeout_ms = wait;
  if (leadership->cause != EXPORTS_BELLWETHER_RUNTIME_LIFECYCLE_CAUSE_SWAP) forget();
  leading = true;
  bellwether_runtime_cluster_member_t this;
  bellwether_runtime_cluster_this(&this);
  text_t line = text_of("");
  text_bytes(&line, this.id);
  text_add(&line, " leads, epoch ");
  text_number(&line, leadership->epoch);
  text_add(&line, ", by ");
  text_add(&line, causes[leadership->cause]);
  say(WASI_LOGGING_LOGGING_LEVEL_INFO, line);
  bellwether_runtime_cluster_member_free(&this);
  return true;
}

bool exports_bellwether_runtime_lifecycle_on_demoted(exports_bellwether_runtime_lifecycle_demotion_reason_t *reason, guest_string_t *error) {
  static const char *const reasons[] = {"resigned", "lease-lost", "session-lost", "superseded", "stopping", "failed: "};
  (void)error;
  leading = false;
  forget();
  text_t line = text_of("demoted: ");
  text_add(&line, reasons[reason->tag]);
  if (reason->tag == EXPORTS_BELLWETHER_RUNTIME_LIFECYCLE_DEMOTION_REASON_FAILED) text_bytes(&line, reason->val.failed);
  say(WASI_LOGGING_LOGGING_LEVEL_INFO, line);
  exports_bellwether_runtime_lifecycle_demotion_reason_free(reason);
  return true;
}

static unsigned capacity(const bellwether_runtime_types_member_t *member) {
  for (size_t i = 0; i < member->labels.len; i++) {
    guest_string_t value = member->labels.ptr[i].f1;
    if (!is(member->labels.ptr[i].f0, "capacity")) continue;
    return value.len == 1 && value.ptr[0] >= '0' && value.ptr[0] <= '9' ? value.ptr[0] - '0' : 1;
  }
  return 1;
}

// The place of a member in the list, or where it belongs.
static size_t place(guest_string_t id) {
  size_t at = 0;
  while (at < members_len && compare(members[at].id, id) < 0) at++;
  return at;
}

static bool is_at(size_t at, guest_string_t id) { return at < members_len && compare(members[at].id, id) == 0; }

static void take_in(const exports_bellwether_runtime_lifecycle_list_member_t *list) {
  for (size_t i = 0; i < list->len; i++) {
    guest_string_t id = list->ptr[i].id;
    size_t at = place(id);
    if (!is_at(at, id)) {
      members = resize(members, members_len + 1, sizeof *members);
      memmove(&members[at + 1], &members[at], (members_len - at) * sizeof *members);
      members_len++;
      guest_string_dup_n(&members[at].id, (const char *)id.ptr, id.len);
    }
    members[at].capacity = capacity(&list->ptr[i]);
  }
}

bool exports_bellwether_runtime_lifecycle_on_members_changed(exports_bellwether_runtime_lifecycle_membership_t *change, guest_string_t *error) {
  (void)error;
  take_in(&change->joined);
  take_in(&change->changed);
  for (size_t i = 0; i < change->left.len; i++) {
    size_t at = place(change->left.ptr[i]);
    if (!is_at(at, change->left.ptr[i])) continue;
    guest_string_free(&members[at].id);
    members_len--;
    memmove(&members[at], &members[at + 1], (members_len - at) * sizeof *members);
  }
  text_t line = text_of("members, version ");
  text_number(&line, change->version);
  text_add(&line, members_len == 0 ? ": none" : ":");
  for (size_t i = 0; i < members_len; i++) {
    text_add(&line, " ");
    text_bytes(&line, members[i].id);
    text_add(&line, "*");
    text_number(&line, members[i].capacity);
  }
  say(WASI_LOGGING_LOGGING_LEVEL_INFO, line);
  exports_bellwether_runtime_lifecycle_membership_free(change);
  return true;
}

bool exports_bellwether_runtime_worker_handle(exports_bellwether_runtime_worker_task_t *task, guest_list_u8_t *answer, guest_string_t *error) {
  static const char verb[] = "square ";
  const size_t len = sizeof verb - 1;
  guest_string_t payload = {task->payload.ptr, task->payload.len};
  uint64_t job;
  bool fits = payload.len > len && memcmp(payload.ptr, verb, len) == 0 &&
              number((guest_string_t){payload.ptr + len, payload.len - len}, 0, UINT32_MAX, &job);
  if (fits) {
    text_t line = text_of(verb);
    text_number(&line, job);
    text_add(&line, " for ");
    text_bytes(&line, task->sender);
    text_add(&line, task->epoch.is_some ? ", epoch " : ", no epoch");
    if (task->epoch.is_some) text_number(&line, task->epoch.val);
    say(WASI_LOGGING_LOGGING_LEVEL_DEBUG, line);
    text_t square = text_of("");
    text_number(&square, job * job);
    *answer = text_list(&square);
  } else {
    fail(error, text_of("not a job: \"square N\" is wanted, N from 0 to 4294967295"));
  }
  exports_bellwether_runtime_worker_task_free(task);
  return fits;
}

void exports_bellwether_runtime_handover_snapshot(guest_list_u8_t *state) {
  text_t line = text_of("1");
  if (known) {
    text_add(&line, " ");
    if (progress.saved) {
      text_number(&line, progress.version);
    } else {
      text_add(&line, "-");
    }
    text_add(&line, " ");
    text_number(&line, progress.unsaved);
    text_add(&line, " ");
    add_progress(&line);
  }
  *state = text_list(&line);
}

static bool parse_handover(const guest_list_u8_t *state, progress_t *parsed) {
  fields_t fields = fields_of(state->ptr, state->len);
  guest_string_t field;
  uint64_t version = 0, unsaved;
  if (!field_next(&fields, &field) || !is(field, "1") || !field_next(&fields, &field)) return false;
  bool saved = !is(field, "-");
  if (saved && !number(field, 0, UINT32_MAX, &version)) return false;
  if (!field_next(&fields, &field) || !number(field, 0, UINT32_MAX, &unsaved)) return false;
  if (!parse_progress(&fields, parsed)) return false;
  parsed->saved = saved;
  parsed->version = (uint32_t)version;
  parsed->unsaved = unsaved;
  return true;
}

bool exports_bellwether_runtime_handover_restore(guest_list_u8_t *state, guest_string_t *error) {
  progress_t parsed;
  bool nothing = is((guest_string_t){state->ptr, state->len}, "1"), fits = nothing || parse_handover(state, &parsed);
  if (fits) {
    forget();
    known = !nothing;
    if (known) progress = parsed;
  } else {
    fail(error, text_of("the state handed over is not of version 1"));
  }
  guest_list_u8_free(state);
  return fits;
}
