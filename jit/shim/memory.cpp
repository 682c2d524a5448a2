// C++'s operators new and delete as the plugin has them (see build.rs). Compilers allocate much and in small pieces, and
// mimalloc takes a third of the time of libc's malloc for that. What libc allocates and gives away is libc's to free,
// so malloc itself stays libc's. A host that links the back end has operators of its own, and all its C++ must agree
// on them.
#include <cstddef>

extern "C" {
void *mi_malloc(size_t size) noexcept;
void *mi_malloc_aligned(size_t size, size_t alignment) noexcept;
void mi_free(void *memory) noexcept;

// Without exceptions there is nobody to tell; LLVM itself gives up then, too.
static void *or_die(void *memory) {
  if (__builtin_expect(!memory, 0))
    __builtin_trap();
  return memory;
}

void *hb_new(size_t size) { return or_die(mi_malloc(size)); }
void *hb_new_aligned(size_t size, size_t alignment) { return or_die(mi_malloc_aligned(size, alignment)); }
// The reference is to std::nothrow.
void *hb_try_new(size_t size, const void *) { return mi_malloc(size); }
void *hb_try_new_aligned(size_t size, size_t alignment, const void *) { return mi_malloc_aligned(size, alignment); }
// Sizes and alignments, which some operators are given besides, are not needed.
void hb_delete(void *memory) { mi_free(memory); }
}
