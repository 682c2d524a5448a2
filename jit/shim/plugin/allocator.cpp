// What LLVM and clang allocate with: mimalloc. The C library's allocator grows the heap of a thread page by page, a system call
// each; a compilation of sqlite3 made 15,000 of them, and takes 0.94 of its time without.
//
// Only in the plugin, whose linker puts these functions and mimalloc's own in the place of C++'s operators (see build.rs). There
// libstdc++ is linked statically and everything is hidden: so nothing of the host's or of a program's goes through them, and
// what malloc gave is still freed by free. A host that links the back end has its own operators.

#include "../shim.h"
#include <cstdlib>

extern "C" {
// Of mimalloc (the crate libmimalloc-sys). Null when there is no memory.
void *mi_malloc(size_t size);
void *mi_malloc_aligned(size_t size, size_t alignment);
void mi_collect(bool force);

// Owned, mi_free. As in LLVM itself there is no exception that could carry the news that there is no memory.
void *hb_allocate(size_t size) {
  if (void *block = mi_malloc(size))
    return block;
  abort();
}

// The same, `alignment` being a power of two.
void *hb_allocate_aligned(size_t size, size_t alignment) {
  if (void *block = mi_malloc_aligned(size, alignment))
    return block;
  abort();
}
}

// Gives memory that nothing uses back to the system; mimalloc itself waits for the next allocation with it.
void hotbed::give_back_memory() { mi_collect(true); }
