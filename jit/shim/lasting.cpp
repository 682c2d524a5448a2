// What keeps static data of LLVM and clang alive to the very end of the process: programs have functions that they call first
// in their destructors, and these are compiled then. Much of that data is made by the first function that needs it, later
// than the program, so the C library would take it down earlier.

extern "C" {
// What the plugin has instead of __cxa_atexit (see build.rs): nothing in it is destroyed. It stays open as long as the process.
int hb_never_destroy(void (*)(void *), void *, void *) { return 0; }
}
