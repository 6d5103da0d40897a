// Text for a guest: it grows as it is written, and is read field by field.
#ifndef SUMS_TEXT_H
#define SUMS_TEXT_H

#include <stdlib.h>
#include <string.h>

#include "guest.h"

typedef struct {
  char *ptr;
  size_t len, room;
} text_t;

// Memory for `count` things, or the end of the instance: there is nothing to go on with.
static inline void *resize(void *old, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) abort();
  // Never nothing: what is returned can be told from a failure.
  void *memory = realloc(old, bytes > 0 ? bytes : 1);
  if (memory == NULL) abort();
  return memory;
}

static inline void *allocate(size_t count, size_t size) { return resize(NULL, count, size); }

static inline void text_append(text_t *text, const void *bytes, size_t len) {
  if (text->room - text->len < len) {
    text->room = (text->len + len) * 2;
    text->ptr = resize(text->ptr, text->room, 1);
  }
  if (len > 0) memcpy(text->ptr + text->len, bytes, len);
  text->len += len;
}

static inline void text_add(text_t *text, const char *more) { text_append(text, more, strlen(more)); }

static inline void text_bytes(text_t *text, guest_string_t more) { text_append(text, more.ptr, more.len); }

static inline void text_number(text_t *text, uint64_t number) {
  char digits[20];
  size_t at = sizeof digits;
  do {
    digits[--at] = (char)('0' + number % 10);
    number /= 10;
  } while (number > 0);
  text_append(text, digits + at, sizeof digits - at);
}

static inline text_t text_of(const char *begin) {
  text_t text = {allocate(64, 1), 0, 64};
  text_add(&text, begin);
  return text;
}

static inline void text_free(text_t *text) { free(text->ptr); }

// The text as the bindings want it: the same memory.
static inline guest_string_t text_string(const text_t *text) { return (guest_string_t){(uint8_t *)text->ptr, text->len}; }

static inline guest_list_u8_t text_list(const text_t *text) { return (guest_list_u8_t){(uint8_t *)text->ptr, text->len}; }

// A string that is not to be freed.
static inline guest_string_t literal(const char *text) { return (guest_string_t){(uint8_t *)text, strlen(text)}; }

static inline int compare(guest_string_t a, guest_string_t b) {
  int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
  return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static inline bool is(guest_string_t string, const char *text) { return compare(string, literal(text)) == 0; }

// Decimal digits and nothing else: `strtoull` alone would take blanks and signs.
static inline bool number(guest_string_t text, uint64_t least, uint64_t most, uint64_t *value) {
  uint64_t sum = 0;
  if (text.len < 1 || text.len > 20) return false;
  for (size_t i = 0; i < text.len; i++) {
    if (text.ptr[i] < '0' || text.ptr[i] > '9') return false;
    if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_add_overflow(sum, text.ptr[i] - '0', &sum)) return false;
  }
  if (sum < least || sum > most) return false;
  *value = sum;
  return true;
}

// Fields with one space between them.
typedef struct {
  guest_string_t left;
  bool more;
} fields_t;

static inline fields_t fields_of(uint8_t *bytes, size_t len) { return (fields_t){{bytes, len}, true}; }

static inline bool field_next(fields_t *fields, guest_string_t *field) {
  if (!fields->more) return false;
  uint8_t *space = fields->left.len > 0 ? memchr(fields->left.ptr, ' ', fields->left.len) : NULL;
  *field = fields->left;
  fields->more = space != NULL;
  if (fields->more) {
    field->len = (size_t)(space - field->ptr);
    fields->left = (guest_string_t){space + 1, fields->left.len - field->len - 1};
  }
  return true;
}

#endif
