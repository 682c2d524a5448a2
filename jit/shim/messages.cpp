// Access to what a compiler said.
#include "shim.h"

using hotbed::slice;

extern "C" {

// A new empty list; owned, hb_messages_free.
hb_messages *hb_messages_new() { return new hb_messages; }

// The same once more; owned, hb_messages_free.
hb_messages *hb_messages_copy(const hb_messages *m) { return new hb_messages(*m); }

// Adds `others`, borrowed, behind the messages of `m`.
void hb_messages_append(hb_messages *m, const hb_messages *others) {
  m->list.insert(m->list.end(), others->list.begin(), others->list.end());
  m->rendered += others->rendered;
  m->failed |= others->failed;
}

void hb_messages_free(hb_messages *m) { delete m; }

// Whether an error is among them.
bool hb_messages_failed(const hb_messages *m) { return m->failed; }

size_t hb_messages_count(const hb_messages *m) { return m->list.size(); }

// As clang prints them; borrowed from `m`.
hb_slice hb_messages_rendered(const hb_messages *m) { return slice(m->rendered); }

uint8_t hb_message_severity(const hb_messages *m, size_t i) { return m->list[i].severity; }

uint32_t hb_message_line(const hb_messages *m, size_t i) { return m->list[i].line; }

uint32_t hb_message_column(const hb_messages *m, size_t i) { return m->list[i].column; }

// Borrowed from `m`, like the text.
hb_slice hb_message_file(const hb_messages *m, size_t i) { return slice(m->list[i].file); }

hb_slice hb_message_text(const hb_messages *m, size_t i) { return slice(m->list[i].text); }
}
